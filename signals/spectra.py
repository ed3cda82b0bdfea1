"""Short-time Fourier transforms, mel filters, and where a spectrum ends."""

from functools import lru_cache

import torch
from torch import Tensor


def stft(
    wave: Tensor,
    n_fft: int,
    hop: int,
    window_length: int | None = None,
    center: bool = True,
    pad_mode: str = "constant",
) -> Tensor:
    """[B, 1, T] or [B, T] -> complex [B, F, N] with a periodic Hann window and without normalisation.

    As librosa does it. With `center`, frame n is centred on sample n * hop; `pad_mode` says what is outside.
    """
    window = torch.hann_window(window_length or n_fft, dtype=wave.dtype, device=wave.device)
    wave = wave.squeeze(1) if wave.ndim == 3 else wave
    return torch.stft(
        wave, n_fft, hop, len(window), window, center=center, pad_mode=pad_mode, return_complex=True
    )


def istft(spectrum: Tensor, n_fft: int, hop: int, length: int) -> Tensor:
    """The inverse of a centred `stft` of full window: complex [B, F, N] -> [B, 1, length]."""
    window = torch.hann_window(n_fft, dtype=spectrum.real.dtype, device=spectrum.device)
    return torch.istft(spectrum, n_fft, hop, window=window, length=length)[:, None]


@lru_cache(maxsize=64)
def mel_filters(
    rate: int,
    n_fft: int,
    n_mels: int,
    fmin: float,
    fmax: float,
    htk: bool = False,
    norm: str | None = "slaney",
) -> Tensor:
    """Mel filters [M, F] by librosa, edges in Hz. Shared by all who ask: not to be written to."""
    import librosa

    filters = librosa.filters.mel(
        sr=rate, n_fft=n_fft, n_mels=n_mels, fmin=fmin, fmax=fmax, htk=htk, norm=norm
    )
    return torch.from_numpy(filters)


def rolloff(magnitude: Tensor, fraction: float) -> Tensor:
    """Where spectra [B, F, N] end: [B], the highest bin up to which there is less than `fraction` of all.

    Magnitude, not energy, summed over time, as AudioSR's and NVSR's code has it. Silence ends at bin 0.
    """
    cumulative = magnitude.double().sum(-1).cumsum(-1)
    below = cumulative < fraction * cumulative[:, -1:]
    return (below * torch.arange(below.shape[-1], device=below.device)).amax(-1)
