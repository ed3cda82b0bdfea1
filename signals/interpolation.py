"""Interpolation without a filter: the spectrum's images stay, as far as the kernel lets them.

Every function takes `wave` [B, 1, T] at `rate_in` Hz and gives [B, 1, length] at `rate_out` Hz. Sample n of
the result lies at n * rate_in / rate_out samples of the input. Beyond its ends the input keeps its first and
last value.
"""

from collections.abc import Callable
from fractions import Fraction
from functools import lru_cache
from math import ceil

import torch
from torch import Tensor
from torch.nn.functional import pad

from signals import resampling
from signals.types import Rate

POLE = 3**0.5 - 2
REACH = 24  # samples after which |POLE|^n is below 1e-13


def hold(wave: Tensor, rate_in: Rate, rate_out: Rate, length: int) -> Tensor:
    """Sample-and-hold: each sample lasts until the next."""
    return _interpolate(wave, rate_in, rate_out, length, _box, 1)


def linear(wave: Tensor, rate_in: Rate, rate_out: Rate, length: int) -> Tensor:
    """Straight lines between the samples."""
    return _interpolate(wave, rate_in, rate_out, length, _triangle, 1)


def cubic(wave: Tensor, rate_in: Rate, rate_out: Rate, length: int) -> Tensor:
    """Cubic convolution over four samples (Keys 1981, a = -1/2)."""
    return _interpolate(wave, rate_in, rate_out, length, _keys, 2)


def spline(wave: Tensor, rate_in: Rate, rate_out: Rate, length: int) -> Tensor:
    """The cubic spline through all samples.

    Equal to scipy.interpolate.make_interp_spline(k=3) more than 24 samples from the ends, where the two take
    different things to be outside.
    """
    return _interpolate(wave, rate_in, rate_out, length, _cardinal_spline, REACH + 2)


def sinc(wave: Tensor, rate_in: Rate, rate_out: Rate, length: int) -> Tensor:
    """`resampling.sinc`, cropped or continued with zeros to `length`: what is outside is silence to it."""
    resampled = resampling.sinc(wave, rate_in, rate_out)
    return pad(resampled, (0, length - resampled.shape[-1]))


def fft(wave: Tensor, rate_in: Rate, rate_out: Rate, length: int) -> Tensor:
    """scipy.signal.resample: the spectrum, continued with zeros. TFNet's.

    To it the signal, zero-padded to a whole number of periods of the two grids, repeats itself for ever: what
    is at one end is heard, ever fainter, from the other end on, so batch only what is of one length.
    """
    up, down = resampling.ratio(rate_in, rate_out)
    periods = max(ceil(wave.shape[-1] / down), ceil(length / up))
    spectrum = torch.fft.rfft(wave, periods * down)[..., : periods * min(up, down) // 2 + 1]
    if up != down and periods * min(up, down) % 2 == 0:  # the shared Nyquist bin stands for two, or for one
        spectrum[..., -1] *= 0.5 if up > down else 2
    return torch.fft.irfft(spectrum, periods * up)[..., :length] * (up / down)


INTERPOLATIONS: dict[str, Callable[[Tensor, Rate, Rate, int], Tensor]] = {
    "hold": hold,
    "linear": linear,
    "cubic": cubic,
    "spline": spline,
    "sinc": sinc,
    "fft": fft,
}


Kernel = Callable[[Tensor], Tensor]


def _interpolate(
    wave: Tensor, rate_in: Rate, rate_out: Rate, length: int, kernel: Kernel, reach: int
) -> Tensor:
    """Sum over k of wave[k] * kernel(t - k) at the times t of the result; `kernel` is zero beyond `reach`."""
    up, down = resampling.ratio(rate_in, rate_out)
    filters, count = _filters(kernel, reach, up, down), ceil(length / up)
    read = (count - 1) * down + resampling.span(filters)
    margins = (reach, max(0, read - reach - wave.shape[-1]))
    return resampling.polyphase(pad(wave, margins, mode="replicate"), filters, down, count)[..., :length]


@lru_cache(maxsize=16)
def _filters(kernel: Kernel, reach: int, up: int, down: int) -> resampling.Filters:
    """`kernel` sampled for each phase, from `reach` samples before the first phase."""
    filters = []
    for phases in resampling.runs_of_phases(up, down, Fraction(reach)):
        at = phases[:, None].double() * down
        first, last = int(phases[0]) * down // up, int(phases[-1]) * down // up
        inputs = torch.arange(first - reach, last + reach + 1, dtype=torch.float64)
        filters.append((first, kernel((at - inputs * up) / up)))
    return tuple(filters)


def _box(t: Tensor) -> Tensor:
    return ((t >= 0) & (t < 1)).double()


def _triangle(t: Tensor) -> Tensor:
    return (1 - t.abs()).clamp(min=0)


def _keys(t: Tensor) -> Tensor:
    """Keys' kernel (1981, eq. 15)."""
    t = t.abs()
    near = 1.5 * t**3 - 2.5 * t**2 + 1
    far = -0.5 * t**3 + 2.5 * t**2 - 4 * t + 2
    return torch.where(t < 1, near, torch.where(t < 2, far, 0))


def _b_spline(t: Tensor) -> Tensor:
    """The cubic B-spline."""
    t = t.abs()
    return torch.where(t < 1, 2 / 3 - t**2 + t**3 / 2, (2 - t).clamp(min=0) ** 3 / 6)


def _cardinal_spline(t: Tensor) -> Tensor:
    """The cubic spline that is 1 at 0 and 0 at all other integers: a sum of B-splines.

    Their weights invert a B-spline's samples, (1, 4, 1) / 6: -6z / (1 - z^2) * z^|k| with z = sqrt(3) - 2
    (Unser, Splines: a perfect fit for signal and image processing, 1999).
    """
    k = torch.arange(-REACH, REACH + 1, dtype=torch.float64)
    return (_b_spline(t[..., None] - k) * (-6 * POLE / (1 - POLE**2) * POLE ** k.abs())).sum(-1)
