"""Low-pass filters, batched on the device: IIR by frequency response, ideal, and ssr_eval's STFT mask."""

from collections.abc import Sequence
from functools import lru_cache
from math import ceil, log, pi, tan
from typing import NamedTuple

import numpy as np
import scipy.fft
import scipy.signal
import torch
from torch import Tensor
from torch.nn.functional import pad

from signals.errors import UserError
from signals.spectra import istft, stft

KINDS = {  # analog prototypes of an order and a ripple: zeros, poles, gain
    "butterworth": lambda order, ripple: scipy.signal.buttap(order),
    "chebyshev": scipy.signal.cheb1ap,
    "elliptic": lambda order, ripple: scipy.signal.ellipap(order, ripple, 60),
    "bessel": lambda order, ripple: scipy.signal.besselap(order, norm="phase"),
}
ZEROS = 10  # of the sinc, on either side, in resample_poly's filter
X_STEP = 2.0**-13  # of the table of `resampler`
IDENTITY = np.array([[0.0, 0, 1, 0, 0, 1]])


class Lowpass(NamedTuple):
    """An IIR low-pass filter as SciPy and ssr_eval design it: by the bilinear transform, edge in Hz.

    Chebyshev is type I. ripple: dB, in the pass band of Chebyshev and elliptic filters; elliptic ones have a
    60 dB stop band. The edge is at -3 dB for Butterworth, at -`ripple` for Chebyshev and elliptic, and where
    the phase is half-way for Bessel (SciPy's norm="phase"), well above its -3 dB point.
    """

    kind: str
    order: int
    cutoff: float
    ripple: float = 0.1

    def edge(self, rate: int) -> float:
        """The analog frequency tan(pi * cutoff / rate), which is the prototype's 1.

        Raises UserError for a cut-off outside (0, rate / 2).
        """
        if not 0 < self.cutoff < rate / 2:
            raise UserError(
                f"a cut-off of {self.cutoff:g} Hz: at {rate} Hz, 0 to {rate / 2:g} Hz can be had."
            )
        return tan(pi * self.cutoff / rate)

    def settling(self, rate: int) -> int:
        """Samples after which the impulse response stays below -120 dB.

        The time the slowest pole takes, and two samples for the zeros of each section.
        """
        poles = _prototype(*self.shape)[1] * self.edge(rate)
        radius = max(np.abs((1 + poles) / (1 - poles)).max(), 1e-6)
        return ceil(log(1e-6) / log(radius)) + 2 * ceil(self.order / 2)

    @property
    def shape(self) -> tuple[str, int, float]:
        """All but the frequency: what the prototype depends on."""
        return self.kind, self.order, self.ripple


@lru_cache(maxsize=256)
def _prototype(kind: str, order: int, ripple: float) -> tuple[np.ndarray, np.ndarray, float]:
    """Zeros, poles and gain of the analog filter H(s) with its edge at 1."""
    if kind not in KINDS:
        raise UserError(f"unknown filter {kind}: one of {', '.join(KINDS)}.")
    zeros, poles, gain = KINDS[kind](order, ripple)
    return zeros, np.atleast_1d(poles), gain


@lru_cache(maxsize=256)
def _sections(kind: str, order: int, ripple: float, squared: bool) -> np.ndarray:
    """[S, 6] quadratics over quadratics, highest power first, whose product is H(s).

    squared: |H(jW)|^2 as a function of x = W^2 instead. Since H is real, that is H(s) H(-s) at s^2 = -x: a
    root r of H becomes the root -r^2 in x.
    """
    zeros, poles, gain = _prototype(kind, order, ripple)
    if squared:
        zeros, poles, gain = -(zeros**2), -(poles**2), gain**2
    return scipy.signal.zpk2sos(zeros, poles, gain, analog=True)


def lowpass(wave: Tensor, filters: Lowpass | Sequence[Lowpass], rate: int, zero_phase: bool) -> Tensor:
    """Filter `wave` [B, 1, T] at `rate` Hz: one filter for all, or B of any kind and order.

    One FFT over the signal and the silence in which the filter settles. Causal, it equals SciPy's sosfilt to
    -120 dB. Zero-phase, the signal is filtered forwards and backwards with silence before and after it, and
    equals sosfiltfilt more than `settling` samples from the ends, where SciPy continues it instead.

    Raises UserError for an unknown kind and for a cut-off outside (0, rate / 2), and ValueError if there are
    neither 1 nor B filters.
    """
    filters = [filters] if isinstance(filters, Lowpass) else list(filters)
    if len(filters) not in (1, len(wave)):
        raise ValueError(f"{len(filters)} filters for a batch of {len(wave)}: one each, or one for all")
    samples = wave.shape[-1]
    # One stretch of silence serves both directions: the FFT is circular, so what rings ahead ends up there.
    settling = max(each.settling(rate) for each in filters)
    size = scipy.fft.next_fast_len(samples + settling, real=True)
    response = _response(filters, rate, size, zero_phase, wave.device)[:, None]
    spectrum = torch.fft.rfft(wave, size)
    spectrum *= response.to(wave.dtype if zero_phase else spectrum.dtype)
    return torch.fft.irfft(spectrum, size)[..., :samples]


def _response(filters: list[Lowpass], rate: int, size: int, zero_phase: bool, device: torch.device) -> Tensor:
    """[B, F] H, or |H|^2, at the bins of an rFFT of `size`, in double precision.

    A filter made by the bilinear transform answers to w as its prototype does to tan(w / 2) / edge.
    """
    cascades = [_sections(*each.shape, zero_phase) for each in filters]
    longest = max(map(len, cascades))
    padded = [np.concatenate([each, IDENTITY.repeat(longest - len(each), 0)]) for each in cascades]
    sections = torch.from_numpy(np.stack(padded)).to(device)
    edges = torch.tensor([[each.edge(rate)] for each in filters], dtype=torch.float64, device=device)
    bins = torch.arange(size // 2 + 1, dtype=torch.float64, device=device)
    # At Nyquist the tangent of the nearest double to pi / 2 is 1e16: finite, and far enough.
    warped = (bins * (pi / size)).tan().abs()
    v = warped.square() / edges.square() if zero_phase else 1j * warped / edges
    response, quadratic = torch.ones_like(v), torch.empty_like(v)  # in place: memory is what costs here
    for b2, b1, b0, a2, a1, a0 in sections.permute(1, 2, 0)[..., None]:
        response *= torch.mul(b2, v, out=quadratic).add_(b1).mul_(v).add_(b0)
        response /= torch.mul(a2, v, out=quadratic).add_(a1).mul_(v).add_(a0)
    return response


def boxcar(wave: Tensor, cutoff: Tensor, rate: int) -> Tensor:
    """Ideal low-pass of `wave` [B, 1, T], with silence around it: a rectangle up to `cutoff` [B] Hz.

    One FFT with the rectangle's own impulse response, a sinc over all lags that the signal has. Setting bins
    to zero is the same but for the length of the FFT, and so of the batch, which would show in the result.
    """
    samples = wave.shape[-1]
    size = scipy.fft.next_fast_len(2 * samples, real=True)
    lags = torch.arange(size // 2 + 1, device=wave.device, dtype=torch.float64)
    band = (2 * cutoff.double() / rate)[:, None, None]
    response = torch.fft.hfft(band * torch.sinc(band * lags), size)[..., : len(lags)]  # of an even signal
    spectrum = torch.fft.rfft(wave, size)
    spectrum *= response.to(wave.dtype)
    return torch.fft.irfft(spectrum, size)[..., :samples]


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


# What scipy.signal.resample_poly does ----------------------------------------------------------------------


def there_and_back(wave: Tensor, edge: Tensor, rate: int) -> Tensor:
    """wave [B, 1, T] at `rate` Hz as resample_poly brings it to twice `edge` [B] Hz and back.

    But for what folds at the edge on the way down and is mirrored there on the way up.
    """
    samples = wave.shape[-1]
    silence = ceil(ZEROS * rate / float(edge.min()))  # of both filters, each reaching so many of its zeros
    size = scipy.fft.next_fast_len(samples + silence, real=True)
    hertz = torch.arange(size // 2 + 1, dtype=torch.float64, device=wave.device) * rate / size
    response = resampler(hertz / edge[:, None]).square()[:, None]
    return torch.fft.irfft(torch.fft.rfft(wave, size) * response.to(wave.dtype), size)[..., :samples]


def chebyshev(hertz: Tensor, edge: Tensor, order: Tensor, ripple: Tensor, rate: int) -> Tensor:
    """|H|^2 of scipy.signal.cheby1 at `hertz`: 1 / (1 + (10^(ripple / 10) - 1) T_order(Omega)^2).

    By this closed form for any order and ripple. (With hardly any ripple, the poles lie next to z = -1.)
    """
    omega = (pi * hertz / rate).tan().abs() / (pi * edge / rate).tan()
    inside = (order * omega.clamp(max=1).acos()).cos()
    outside = (order * omega.clamp(min=1).acosh()).cosh()
    T = inside.where(omega <= 1, outside)
    return 1 / (1 + torch.expm1(ripple * (log(10) / 10)) * T.square())


def resampler(x: Tensor) -> Tensor:
    """The response of scipy.signal.resample_poly's filter at `x` times its edge, where it is a half.

    Kaiser 5.0 over ten zeros of the sinc on either side, interpolated in a table of the finely sampled one.
    """
    table = _resampler().to(x.device)
    place = (x / X_STEP).clamp(max=len(table) - 2)
    return torch.lerp(table[place.long()], table[place.long() + 1], place.frac())


@lru_cache(maxsize=1)
def _resampler() -> Tensor:
    """From 0 to 16 edges, every X_STEP; sampled at 64 edges."""
    fine = 32
    taps = scipy.signal.firwin(2 * ZEROS * fine + 1, 1 / fine, window=("kaiser", 5.0))
    size = round(2 * fine / X_STEP)
    response = np.fft.rfft(taps, size) * np.exp(2j * pi * np.arange(size // 2 + 1) * ZEROS * fine / size)
    return torch.from_numpy(response.real[: size // 4])
