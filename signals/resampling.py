"""Changes of rate by windowed sincs.

Sample n of the result lies at n * rate_in / rate_out samples of the input.
"""

from collections.abc import Iterator
from fractions import Fraction
from functools import lru_cache
from math import ceil

import scipy.signal
import torch
import torchaudio.functional
from torch import Tensor
from torch.nn.functional import conv1d, pad

from signals.errors import UserError
from signals.types import Rate

Filters = tuple[tuple[int, Tensor], ...]
WHOLE = 2**20  # taps of one run of phases: 8 MB


def ratio(rate_in: Rate, rate_out: Rate) -> tuple[int, int]:
    """What `rate_in` is multiplied and divided by to become `rate_out`, in lowest terms: up, down."""
    change = Fraction(rate_out) / Fraction(rate_in)
    return change.numerator, change.denominator


def polyphase(wave: Tensor, filters: Filters, down: int, count: int) -> Tensor:
    """Rational resampling as strided convolutions, one for each run of phases.

    wave: [B, 1, T]. filters: one for each of the `up` phases that an output sample can have between input
    samples, in runs: the input at which a run starts to read, and its taps [P, K]. Gives [B, 1, count * up]:
    block n of `up` samples is made of the inputs from n * down on.
    """
    # In double precision, since TF32 and autocast leave that alone; theirs would be a noise floor at -60 dB.
    wide = wave.double()
    blocks = [
        conv1d(
            wide[..., first : first + (count - 1) * down + taps.shape[1]],
            taps[:, None].to(wave.device),
            stride=down,
        )
        for first, taps in filters
    ]
    return torch.cat(blocks, dim=1).transpose(1, 2).flatten(1)[:, None].to(wave.dtype)


def runs_of_phases(up: int, down: int, reach: Fraction) -> Iterator[Tensor]:
    """The phases 0 ... up - 1 of filters that hear the inputs up to `reach` before and after an output.

    In runs, since phases that share their inputs hold zeros for what the others hear: all together they would
    hold up * down of them, gigabytes for 47,999 to 48,000 Hz. A ratio of small numbers is one run.
    """
    heard = 2 * reach + 1
    few = up * (down + heard) <= WHOLE
    yield from torch.arange(up).split(up if few else ceil(heard * up / down))


def resample_poly(wave: Tensor, up: Rate, down: Rate) -> Tensor:
    """[B, 1, T] -> [B, 1, ceil(T * up / down)] as scipy.signal.resample_poly: Kaiser 5.0, zeros outside."""
    up, down = ratio(down, up)
    if up == down:
        return wave
    before, filters = _kaiser_filters(up, down)
    samples = wave.shape[-1]
    length = resampled_length(samples, down, up)
    count = ceil(length / up)
    read = (count - 1) * down + span(filters)
    return polyphase(pad(wave, (before, read - before - samples)), filters, down, count)[..., :length]


def span(filters: Filters) -> int:
    """Inputs that a block of `up` outputs hears."""
    return max(first + taps.shape[1] for first, taps in filters)


@lru_cache(maxsize=16)
def _kaiser_filters(up: int, down: int) -> tuple[int, Filters]:
    """The inputs that SciPy's default filter hears before the first output, and its phases."""
    half = 10 * max(up, down)
    window = up * scipy.signal.firwin(2 * half + 1, 1 / max(up, down), window=("kaiser", 5.0))
    window, before, filters = torch.from_numpy(window), half // up, []
    for phases in runs_of_phases(up, down, Fraction(half, up)):
        at = phases[:, None] * down
        inputs = torch.arange(int(at[0]) // up - before, (int(at[-1]) + half) // up + 1)
        lag = at - inputs * up
        filters.append(
            (int(inputs[0]) + before, window[(lag + half).clamp(0, 2 * half)] * (lag.abs() <= half))
        )
    return before, tuple(filters)


def resample(wave: Tensor, rate_in: Rate, rate_out: Rate) -> Tensor:
    """[B, 1, T] -> [B, 1, ceil(T * rate_out / rate_in)] by `resample_poly`, rates in Hz."""
    return resample_poly(wave, rate_out, rate_in)


def resampled_length(lengths: Tensor | int, rate_in: Rate, rate_out: Rate) -> Tensor | int:
    """Samples that `lengths` at `rate_in` Hz become at `rate_out` Hz: ceil(T * rate_out / rate_in)."""
    up, down = ratio(rate_in, rate_out)
    return -(-lengths * up // down)


def sinc(wave: Tensor, rate_in: Rate, rate_out: Rate) -> Tensor:
    """[B, 1, T] -> [B, 1, ceil(T * rate_out / rate_in)] by torchaudio's "kaiser_best"."""
    up, down = checked_ratio(rate_in, rate_out)
    resampled = torchaudio.functional.resample(
        wave.double(),  # as in `polyphase`
        down,
        up,
        lowpass_filter_width=64,
        rolloff=0.9475937167399596,
        resampling_method="sinc_interp_kaiser",
        beta=14.769656459379492,
    )
    return resampled.to(wave.dtype)


def hann_sinc(wave: Tensor, rate_in: Rate, rate_out: Rate) -> Tensor:
    """[B, 1, T] -> [B, 1, ceil(T * rate_out / rate_in)] by torchaudio's default: six zeros a side, Hann."""
    up, down = checked_ratio(rate_in, rate_out)
    return torchaudio.functional.resample(wave.double(), down, up).to(wave.dtype)


def checked_ratio(rate_in: Rate, rate_out: Rate) -> tuple[int, int]:
    """`ratio`; raises UserError where torchaudio's table, up * down taps and more, would be above 128 MB."""
    up, down = ratio(rate_in, rate_out)
    if up * down > 2**24:
        raise UserError(
            f"{rate_in} Hz to {rate_out} Hz by torchaudio's sinc: a ratio of {up} to {down} is too fine for "
            "it; polyphase and spline can have it."
        )
    return up, down
