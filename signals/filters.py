"""Low-pass filters, batched on the device: IIR by frequency response, ideal, and ssr_eval's STFT mask."""

from collections.abc import Sequence
from functools import partial

import numpy as np
import scipy.fft
import scipy.signal
import torch
from torch import Tensor
from torch.nn.functional import pad

from signals.spectra import istft, stft

KINDS = {
    "butterworth": scipy.signal.butter,
    "chebyshev": partial(scipy.signal.cheby1, rp=0.1),
    "elliptic": partial(scipy.signal.ellip, rp=0.1, rs=60),
    "bessel": partial(scipy.signal.bessel, norm="phase"),
}
IDENTITY = np.array([[1.0, 0, 0, 1, 0, 0]])


def design(kind: str, order: int, cutoff: float, rate: int) -> np.ndarray:
    """Second-order sections [S, 6] of a low-pass filter with its edge at `cutoff` Hz, as ssr_eval has it.

    Chebyshev is type I with 0.1 dB ripple, elliptic has 0.1 dB ripple and 60 dB stop band; the edge of a
    Bessel filter is where its phase is half-way (SciPy's norm="phase"), well above its -3 dB point.

    Raises ValueError for an unknown kind and for a cutoff outside (0, rate / 2).
    """
    if kind not in KINDS:
        raise ValueError(f"unknown filter {kind!r}: one of {', '.join(KINDS)}")
    if not 0 < cutoff < rate / 2:
        raise ValueError(f"cutoff of {cutoff} Hz is not between 0 and {rate / 2} Hz, half the rate")
    return KINDS[kind](N=order, Wn=cutoff, fs=rate, output="sos")


def settling(sos: np.ndarray) -> int:
    """Samples after which the impulse response of `sos` [S, 6] stays below -120 dB.

    The time the slowest pole takes, and two samples for the zeros of each section. Raises ValueError if `sos`
    is not stable.
    """
    radius = max(np.abs(np.roots(section[3:])).max(initial=0) for section in sos)
    if radius >= 1:
        raise ValueError(f"filter is not stable: a pole has radius {radius:.6f}")
    decay = np.log(1e-6) / np.log(radius) if radius > 0 else 0
    return int(np.ceil(decay)) + 2 * len(sos)


def sosfilt(wave: Tensor, sos: Sequence[np.ndarray] | np.ndarray, zero_phase: bool) -> Tensor:
    """Filter `wave` [B, 1, T] by second-order sections: one [S, 6] for all, or a list of B with any S each.

    One FFT over the signal and the silence in which the filter settles. Causal, it equals SciPy's sosfilt to
    -120 dB. Zero-phase, the signal is filtered forwards and backwards with silence before and after it, and
    equals sosfiltfilt more than `settling(sos)` samples from the ends, where SciPy continues it instead.

    Raises ValueError if there are neither 1 nor B filters, or one is not stable.
    """
    cascades = [sos] if isinstance(sos, np.ndarray) else list(sos)
    if len(cascades) not in (1, len(wave)):
        raise ValueError(f"{len(cascades)} filters for a batch of {len(wave)}: one each, or one for all")
    samples = wave.shape[-1]
    # One stretch of silence serves both directions: the FFT is circular, so what rings ahead ends up there.
    size = scipy.fft.next_fast_len(samples + max(map(settling, cascades)), real=True)
    spectrum = torch.fft.rfft(wave, size)
    response = _response(cascades, size, wave.device)[:, None]
    response = response.abs().square() if zero_phase else response
    return torch.fft.irfft(spectrum * response.to(spectrum.dtype), size)[..., :samples]


def _response(cascades: list[np.ndarray], size: int, device: torch.device) -> Tensor:
    """Frequency responses [B, F] of cascades of sections at the bins of an rFFT, in double precision."""
    longest = max(map(len, cascades))
    padded = [np.concatenate([sos, IDENTITY.repeat(longest - len(sos), 0)]) for sos in cascades]
    sections = torch.from_numpy(np.stack(padded)).to(device)
    omega = torch.arange(size // 2 + 1, device=device, dtype=torch.float64) * (2 * torch.pi / size)
    delay = torch.polar(torch.ones_like(omega), -omega)
    response = torch.ones_like(delay)
    for b0, b1, b2, a0, a1, a2 in sections[..., None].permute(1, 2, 0, 3):
        response = response * (b0 + delay * (b1 + delay * b2)) / (a0 + delay * (a1 + delay * a2))
    return response


def boxcar(wave: Tensor, cutoff: Tensor, rate: int) -> Tensor:
    """Ideal low-pass of `wave` [B, 1, T], with silence around it: a rectangle up to `cutoff` [B] Hz.

    One FFT with the rectangle's own impulse response, a sinc over all lags that the signal has. Setting bins
    to zero is the same but for the length of the FFT, and so of the batch, which would show in the result.
    """
    samples = wave.shape[-1]
    size = scipy.fft.next_fast_len(2 * samples, real=True)
    lags = torch.fft.fftfreq(size, 1 / size, device=wave.device, dtype=torch.float64)
    band = (2 * cutoff.double() / rate)[:, None, None]
    response = torch.fft.rfft(band * torch.sinc(band * lags)).real.to(wave.dtype)
    return torch.fft.irfft(torch.fft.rfft(wave, size) * response, size)[..., :samples]


def stft_hard(wave: Tensor, cutoff: Tensor, rate: int, n_fft: int = 2048, hop: int = 441) -> Tensor:
    """ssr_eval's `stft_hard`: the STFT of `wave` [B, 1, T] without bins from int(F * cutoff / (rate / 2)) up.

    cutoff: [B] Hz. Equals the same by librosa, except in the last `n_fft` samples: here silence is appended,
    so that a signal's end is the same whatever it is batched with.
    """
    samples = wave.shape[-1]
    spectrum = stft(pad(wave, (0, 2 * n_fft)), n_fft, hop)
    bins = spectrum.shape[1]
    edge = (bins * cutoff.double() / (rate / 2)).long()
    kept = torch.arange(bins, device=wave.device) < edge[:, None]
    return istft(spectrum * kept[..., None], n_fft, hop, samples + 2 * n_fft)[..., :samples]
