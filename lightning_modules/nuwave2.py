"""NU-Wave 2 (S. Han and J. Lee, "NU-Wave 2: a general neural audio upsampling model for various sampling
rates", Interspeech 2022), as its code has it (maum-ai/nuwave2).

One network for all cut-offs: half of its channels go through a short-time Fourier transform, whose bins are
scaled and shifted in one way below the cut-off and in another above. It is NU-Wave otherwise, with noise by
its log-SNR, which is taken away without new noise.

What is not repeated: they validate on the test speakers; where their filtered input is shorter than the
recording, it is replaced by the recording; their sampling takes one item at a time; their network fails where
nothing is below the cut-off.
"""

from collections.abc import Callable, Mapping
from itertools import pairwise
from math import atan, exp, log
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import pad, silu

from lightning_modules.nuwave import Denoiser, WaveDiffusion, conv
from lightning_modules.ranks import over_ranks, rank_of
from lightning_modules.stage import uniform
from signals.errors import UserError
from signals.spectra import istft, stft

N_FFT, HOP = 1024, 256  # samples
BINS = N_FFT // 2 + 1
LOGSNR = 20.0  # of the clean end, and minus this of the noisy one
SCHEDULE = (-2.6, -0.8, 2.0, 6.4, 9.8, 12.9, 14.4, 17.2)  # log-SNR of the eight steps

# The network ----------------------------------------------------------------------------------------------


def band_mask(cutoff: Tensor, rate: int) -> Tensor:
    """Cut-offs [B] Hz -> [B, 2, F]: ones above, and ones below, in int(F * cutoff / (rate / 2)) bins."""
    edge = (cutoff.double() / (rate / 2) * BINS).long()
    below = torch.arange(BINS, device=cutoff.device) < edge[:, None]
    return torch.stack([~below, below], dim=1).float()


class FourierUnit(nn.Module):
    """[B, C, T] -> the same, by its spectrum: scaled and shifted by the band mask, ReLU, then mixed.

    The scaling is the paper's BSFT: x * (1 + gamma) + beta, one gamma and beta for each bin and channel, real
    and imaginary parts being channels of their own.
    """

    def __init__(self, channels: int, hidden: int):
        super().__init__()
        self.shared = nn.Conv1d(2, hidden, 3, padding=1)
        self.gamma, self.beta = (conv(hidden, 2 * channels, 3) for _ in range(2))
        self.mix = conv(2 * channels, 2 * channels, bias=False, kind=nn.Conv2d)

    def forward(self, x: Tensor, band: Tensor) -> Tensor:
        """band: [B, 2, F]."""
        batch, channels, samples = x.shape
        # Fourier transforms keep float32 under any autocast.
        spectrum = stft(x.float().flatten(0, 1), N_FFT, HOP, pad_mode="reflect") / N_FFT**0.5
        parts = torch.view_as_real(spectrum).unflatten(0, (batch, channels))  # [B, C, F, N, 2]
        parts = parts.permute(0, 1, 4, 2, 3).flatten(1, 2)  # [B, 2C, F, N]
        hidden = silu(self.shared(band))
        parts = parts * (1 + self.gamma(hidden)[..., None]) + self.beta(hidden)[..., None]
        parts = self.mix(parts.relu()).unflatten(1, (channels, 2)).permute(0, 1, 3, 4, 2)
        if x.is_meta:  # where only the work is counted; the inverse looks at values
            return x
        spectrum = torch.view_as_complex(parts.float().contiguous()).flatten(0, 1) * N_FFT**0.5
        return istft(spectrum, N_FFT, HOP, samples).view(batch, channels, samples)


class SpectralTransform(nn.Module):
    """[B, C, T] -> [B, 2C, T] around a Fourier unit."""

    def __init__(self, channels: int, hidden: int):
        super().__init__()
        self.inner = conv(channels, channels, bias=False)
        self.outer = conv(channels, 2 * channels, bias=False)
        self.unit = FourierUnit(channels, hidden)

    def forward(self, x: Tensor, band: Tensor) -> Tensor:
        x = silu(self.inner(x))
        return self.outer(x + self.unit(x, band))


class STFC(nn.Module):
    """The short-time Fourier convolution, [B, C, T] -> [B, 2C, T].

    The first half of the channels is local, the second global, and each hears both.
    """

    def __init__(self, channels: int, hidden: int):
        super().__init__()
        half = channels // 2
        self.local_to_local, self.local_to_global, self.global_to_local = (
            conv(half, 2 * half, 3, bias=False) for _ in range(3)
        )
        self.global_to_global = SpectralTransform(half, hidden)

    def forward(self, x: Tensor, band: Tensor) -> Tensor:
        near, far = x.chunk(2, dim=1)
        local = self.local_to_local(near) + self.global_to_local(far)
        everywhere = self.local_to_global(near) + self.global_to_global(far, band)
        (gate, filtered), (far_gate, far_filtered) = local.chunk(2, dim=1), everywhere.chunk(2, dim=1)
        return torch.cat([gate, far_gate, filtered, far_filtered], dim=1)


class NuWave2Net(Denoiser):
    """As given: 1,711,681 parameters; hidden: channels in which a band mask becomes gammas and betas.

    Raises UserError where the channels cannot be halved.
    """

    def __init__(self, channels: int = 64, layers: int = 15, hidden: int = 64, width: int = 512):
        if channels % 2:
            raise UserError(f"channels={channels}: an even number is needed, half local, half global.")
        frequencies = (torch.arange(64) * (-log(1e4) / 63)).exp()  # to 1e-4 itself
        super().__init__(channels, width, frequencies, [STFC(channels, hidden) for _ in range(layers)])
        self.stem = conv(2, channels)

    def forward(self, y: Tensor, low: Tensor, band: Tensor, level: Tensor) -> Tensor:
        """y, low: [B, 1, T], any T; band: [B, 2, F]; level: [B], the log-SNR from 20 to -20 as 0 to 1."""
        samples = y.shape[-1]
        frames = max(-(-samples // HOP), N_FFT // HOP)
        both = pad(torch.cat([y, low], dim=1), (0, frames * HOP - samples))
        return self.read(silu(self.stem(both)), band, level)[..., :samples]


# Diffusion ------------------------------------------------------------------------------------------------

B = atan(exp(-LOGSNR / 2))
A = atan(exp(LOGSNR / 2)) - B


def log_snr(t: Tensor) -> Tensor:
    """Of times 0 to 1, from 20 to -20: the cosine schedule (Ho and Salimans 2022, Section 2)."""
    return -2 * (A * t + B).tan().log()


def told(logsnr: Tensor) -> Tensor:
    """What the network is told: 0 to 1."""
    return (LOGSNR - logsnr) / (2 * LOGSNR)


def ddim(y: Tensor, eps: Tensor, before: Tensor, after: Tensor) -> Tensor:
    """y at log-SNR `after`, from y at `before` and the noise in it (Song et al. 2021, eq. 12, sigma 0)."""
    start = (y - (-before).sigmoid().sqrt() * eps) / before.sigmoid().sqrt()
    return after.sigmoid().sqrt() * start + (-after).sigmoid().sqrt() * eps


class NuWave2(WaveDiffusion):
    """`NuWave2Net` with its options, for any cut-off; trained on degradation `random_nuwave2`.

    Of use: steps: of the sampling. 8: at the released log-SNRs; others: evenly from -20 on. What comes out is
    clamped to the peak of the input, where theirs is to that of the recording.
    """

    defaults: ClassVar = {
        "weights": {"l1": 1.0},
        "options": {"channels": 64, "layers": 15, "hidden": 64, "width": 512},
    }
    use: ClassVar = {**WaveDiffusion.use, "steps": 8}

    def __init__(self, weights: Mapping[str, float], optimizer: Mapping, rate: int, **model):
        super().__init__(weights, optimizer, rate)
        self.net = NuWave2Net(**model)

    def used(self, **settings) -> None:
        super().used(**settings)
        if not isinstance(self.steps, int) or self.steps < 1:
            raise UserError(f"steps={self.steps}: a whole number from 1 on.")

    def example(self, batch: int, samples: int) -> tuple:
        zeros = torch.zeros(batch, 1, samples, device=self.net.head.weight.device)
        level = zeros[:, 0, 0]
        return zeros, zeros, band_mask(level, self.rate), level

    def times(self, seeds: Tensor, salt: int) -> Tensor:
        """In training even over the batch, as theirs, from one draw on, by the seed of its first item.

        So batches differ less, and an item's time depends on its place in the batch of all processes; a check
        gives each its own.
        """
        if not self.training:
            return super().times(seeds, salt)
        rank, ranks = rank_of()
        first = over_ranks(seeds[:1] * (rank == 0))
        places = torch.arange(rank, len(seeds) * ranks, ranks, device=seeds.device) / (len(seeds) * ranks)
        return (uniform(first, salt) + places) % 1

    def noising(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        logsnr = log_snr(t)
        return logsnr.sigmoid().sqrt(), (-logsnr).sigmoid().sqrt(), told(logsnr)

    def predict(self, y: Tensor, low: Tensor, cutoff: Tensor, level: Tensor) -> Tensor:
        return self.net(y, low, band_mask(cutoff, self.rate), level)

    @property
    def schedule(self) -> Tensor:
        """Log-SNRs of the steps [steps + 1], and the last at which the last ends."""
        if self.steps == len(SCHEDULE):
            return torch.tensor([*SCHEDULE, LOGSNR])
        return torch.linspace(-LOGSNR, LOGSNR, self.steps + 1)

    def sample(self, low: Tensor, cutoff: Tensor, drawn: Callable[[int], Tensor]) -> Tensor:
        """low: within -1 and 1, and so is what comes out."""
        y, schedule = drawn(0), self.schedule.to(low.device)
        for before, after in pairwise(schedule):
            eps = self.predict(y, low, cutoff, told(before).expand(len(y)))
            y = ddim(y, eps, before, after)
        return y.clamp(-1, 1 - torch.finfo(torch.float16).eps)
