"""The log-mel spectrogram that all three networks of AudioSR speak."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_modules.ranks import over_ranks
from signals.spectra import mel_filters, stft
from signals.types import Recording, Signal, silence_padding

SILENCE = 1e-5  # a peak below it is not raised
STRETCH = 2**19  # samples of a long recording that are looked at at once


def magnitude(wave: Tensor, n_fft: int, hop: int, window_length: int | None = None) -> Tensor:
    """wave [B, 1, T] -> linear magnitude [B, F, N], N = T // hop, in float32 under any autocast.

    Reflected by (n_fft - hop) / 2 at each end, so that every frame is centred on its own `hop` samples.
    """
    padding = (n_fft - hop) // 2
    with torch.autocast(wave.device.type, enabled=False):
        wave = F.pad(wave.float(), (padding, padding), mode="reflect")
        return stft(wave, n_fft, hop, window_length, center=False).abs()


class LogMel(nn.Module):
    """Logarithm of the mel magnitude, floored, in float32 under any autocast.

    `rate`, `fmin` and `fmax` in Hz, `n_fft` (also the Hann window) and `hop` in samples: 100 frames a second.
    Level, mean and deviation stay as they are: the autoencoder takes it raw. The rest is as AudioSR has it,
    and may be as NVSR has: `htk` and `norm`, librosa's, of the mel filters; `center`, frames around 0, hop,
    2 hop, ..., T, reflected at both ends, one more; `log10`, not the natural one.
    """

    def __init__(
        self,
        rate: int = 48000,
        n_fft: int = 2048,
        hop: int = 480,
        n_mels: int = 256,
        fmin: float = 20,
        fmax: float = 24000,
        floor: float = 1e-5,
        htk: bool = False,
        norm: str | None = "slaney",
        center: bool = False,
        log10: bool = False,
    ):
        super().__init__()
        self.options = (rate, n_fft, hop, n_mels, fmin, fmax, floor, htk, norm, center, log10)
        self.rate, self.n_fft, self.hop, self.floor = rate, n_fft, hop, floor
        self.center, self.log10 = center, log10
        filters = mel_filters(rate, n_fft, n_mels, fmin, fmax, htk, norm)
        self.register_buffer("filters", filters.clone(), persistent=False)

    def magnitude(self, wave: Tensor) -> Tensor:
        """wave [B, 1, T] -> linear magnitude [B, F, N], N = T // hop (+ 1), F = n_fft / 2 + 1."""
        if not self.center:
            return magnitude(wave, self.n_fft, self.hop)
        with torch.autocast(wave.device.type, enabled=False):
            return stft(wave.float(), self.n_fft, self.hop, pad_mode="reflect").abs()

    def forward(self, wave: Tensor) -> Tensor:
        """wave [B, 1, T] -> log-mel [B, M, N]; silence is that of the floor."""
        with torch.autocast(wave.device.type, enabled=False):
            mel = (self.filters @ self.magnitude(wave)).clamp(min=self.floor)
            return mel.log10() if self.log10 else mel.log()


def normalise(signal: Signal) -> tuple[Tensor, Tensor, Tensor]:
    """The wave [B, 1, T] without its mean and at peak 0.5, the mean and the gain [B, 1, 1] that did it.

    As released, except that silence, where the released code divides by zero, keeps its level. Padding does
    not count, and stays silent.
    """
    samples = signal.lengths.clamp(min=1).view(-1, 1, 1)
    total = silence_padding(signal.wave, signal.lengths).sum(dim=-1, keepdim=True, dtype=torch.float64)
    mean = (total / samples).to(signal.wave.dtype)
    centred = silence_padding(signal.wave - mean, signal.lengths)
    peak = centred.abs().amax(dim=-1, keepdim=True)
    gain = torch.where(peak > SILENCE, 0.5 / peak, 1.0)
    return centred * gain, mean, gain


class Level(NamedTuple):
    """The `mean` and the `gain`, each [B, 1, 1], by which `normalise` changes a whole recording."""

    mean: Tensor
    gain: Tensor

    @classmethod
    def of(cls, recording: Recording) -> "Level":
        totals, tops, bottoms = [], [], []
        for wave in recording.stretches(STRETCH):
            totals.append(wave.sum(dim=-1, keepdim=True, dtype=torch.float64))
            tops.append(wave.amax(dim=-1, keepdim=True))
            bottoms.append(wave.amin(dim=-1, keepdim=True))
        mean = (sum(totals) / recording.samples).to(tops[0].dtype)
        peak = torch.maximum(torch.stack(tops).amax(0) - mean, mean - torch.stack(bottoms).amin(0))
        return cls(mean, torch.where(peak > SILENCE, 0.5 / peak, 1.0))

    def applied(self, recording: Recording) -> Recording:
        """The recording without its mean and at peak 0.5; what is outside stays silent."""

        def read(first: int, count: int) -> Tensor:
            wave = recording.read(first, count)
            places = torch.arange(first, first + count, device=wave.device)
            inside = (places >= 0) & (places < recording.samples)
            return (wave - self.mean) * self.gain * inside

        return recording._replace(read=read)


class RunningMean(nn.Module):
    """Mean log-mel [M] of everything seen in training: the constant that a network has to beat."""

    def __init__(self, n_mels: int):
        super().__init__()
        self.register_buffer("total", torch.zeros(n_mels, dtype=torch.float64))
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))

    def update(self, log_mel: Tensor) -> None:
        """log_mel: [B, M, N], of a training step: those of all processes count."""
        self.total += over_ranks(log_mel.detach().double().sum(dim=(0, 2)))
        self.count += over_ranks(torch.full_like(self.count, log_mel.shape[0] * log_mel.shape[2]))

    def error(self, log_mel: Tensor) -> Tensor:
        """Mean absolute distance [B] of log_mel [B, M, N] to the constant."""
        constant = (self.total / self.count.clamp(min=1)).float()
        return (log_mel - constant[:, None]).abs().mean(dim=(1, 2))
