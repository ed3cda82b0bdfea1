"""Two signals side by side, as a whole in memory (`Signal`) or read by stretches (`Recording`).

What is summed over the samples is the same either way; a stretch has as much around it as a sum needs.
"""

from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import partial
from math import ceil

import scipy.fft
import torch
from torch import Tensor
from torch.nn.functional import pad

from signals.resampling import ratio, resample, resampled_length
from signals.types import Rate, Recording, Signal, aligned, check_alike

Sound = Signal | Recording
AT_ONCE = 2**19  # samples of a stretch, of all items together


def by_stretches(metric: Callable) -> Callable:
    """Marks a metric that takes Recordings, too. Others are given Signals only."""
    metric.by_stretches = True
    return metric


def takes_stretches(metric: Callable) -> bool:
    """Whether a metric, or what a `partial` is of, is marked so."""
    return getattr(metric.func if isinstance(metric, partial) else metric, "by_stretches", False)


def alike(estimate: Sound, reference: Sound) -> tuple[Sound, Sound]:
    """Both, with silence for padding. Raises ValueError if rates or lengths differ."""
    if isinstance(reference, Recording):
        check_alike(estimate, reference)
        return estimate, reference
    waves = aligned(estimate, reference)
    return tuple(Signal(wave, reference.rate, reference.lengths) for wave in waves)


def side_by_side(estimate: Sound, reference: Sound, around: int = 0) -> Iterator[tuple[int, Tensor, Tensor]]:
    """The first sample of a stretch, and both waves [B, around + T + around] there; silence outside.

    Signals are one stretch. Raises ValueError if rates or lengths differ.
    """
    both = alike(estimate, reference)
    if isinstance(reference, Signal):
        yield 0, *(pad(signal.wave[:, 0], (around, around)) for signal in both)
        return
    size = max(1, AT_ONCE // len(reference.lengths))
    for first in range(0, reference.samples, size):
        count = min(size, reference.samples - first) + 2 * around
        yield first, *(recording.read(first - around, count)[:, 0] for recording in both)


def summed_in(sound: Sound) -> torch.dtype | None:
    """Double precision for sums over stretches, of which there may be many; else that of the samples."""
    return torch.float64 if isinstance(sound, Recording) else None


def resampled(sound: Sound, rate: Rate) -> Sound:
    """A signal brought to `rate` Hz by `resample`; a stretch is equal to that of the whole brought there."""
    if isinstance(sound, Signal):
        lengths = resampled_length(sound.lengths, sound.rate, rate)
        return Signal(resample(sound.wave, sound.rate, rate), rate, lengths)
    up, down = ratio(sound.rate, rate)
    heard = Fraction(10 * max(up, down), up)  # inputs to either side
    samples = resampled_length(sound.samples, sound.rate, rate)
    margin = 1 + ceil(heard / down)  # in blocks of `down` inputs and `up` outputs

    def read(first: int, count: int) -> Tensor:
        start = first // up - margin
        blocks = -(-(first + count) // up) + margin - start
        wave = resample(sound.read(start * down, blocks * down), sound.rate, rate)
        n = torch.arange(first, first + count, device=wave.device)
        return wave[..., first - start * up :][..., :count] * ((n >= 0) & (n < samples))

    return Recording(read, samples, rate)


def correlation(estimate: Recording, reference: Recording, reach: int) -> Tensor:
    """[B, 2 reach + 1] sums over n of estimate[n + lag] * reference[n], for lags from -reach to reach."""
    total = 0
    for _, E, R in side_by_side(estimate, reference, reach):
        size = scipy.fft.next_fast_len(E.shape[1], real=True)
        R = R[:, reach : R.shape[1] - reach]
        spectra = (torch.fft.rfft(wave.double(), size) for wave in (E, R))
        e, r = spectra
        total = total + torch.fft.irfft(e * r.conj(), size)[:, : 2 * reach + 1]
    return total
