"""What travels through the house: recordings as batches, and pairs of them.

Shapes use one alphabet everywhere: `B` batch, `C` channels, `T` samples, `F` frequency bins, `N` frames,
`M` mel bands.
"""

from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import NamedTuple

import torch
from torch import Tensor

Rate = int | Fraction  # Hz


class Signal(NamedTuple):
    """A batch of mono signals of different lengths.

    wave: [B, 1, T], zero-padded at the end. rate: Hz, a fraction where it is not whole (a sixth of 16 kHz).
    lengths: [B], valid samples of each.
    """

    wave: Tensor
    rate: Rate
    lengths: Tensor

    @classmethod
    def of(cls, wave: Tensor, rate: Rate) -> "Signal":
        """A batch without padding: every sample of `wave` [B, 1, T] is valid."""
        return cls(wave, rate, torch.full((len(wave),), wave.shape[-1], device=wave.device))

    def mapped(self, function: Callable[[Tensor], Tensor]) -> "Signal":
        """The same with `function` of each sample."""
        return self._replace(wave=function(self.wave))


class Recording(NamedTuple):
    """Signals of one length that are read by stretches: a long one never is in memory as a whole.

    read: (first sample, how many) -> [B, 1, how many], silence outside. samples: of each. rate: Hz.
    """

    read: Callable[[int, int], Tensor]
    samples: int
    rate: Rate

    @classmethod
    def of(cls, wave: Tensor, rate: Rate) -> "Recording":
        """A batch [B, 1, T] that is in memory anyway."""
        samples = wave.shape[-1]

        def read(first: int, count: int) -> Tensor:
            out = wave.new_zeros(*wave.shape[:-1], count)
            start, stop = max(first, 0), min(first + count, samples)
            if start < stop:
                out[..., start - first : stop - first] = wave[..., start:stop]
            return out

        return cls(read, samples, rate)

    @property
    def lengths(self) -> Tensor:
        """[B], as those of a Signal."""
        example = self.read(0, 0)
        return torch.full((len(example),), self.samples, device=example.device)

    def mapped(self, function: Callable[[Tensor], Tensor]) -> "Recording":
        """The same with `function` of each sample, which leaves silence silent."""
        return self._replace(read=lambda first, count: function(self.read(first, count)))

    def stretches(self, length: int) -> Iterator[Tensor]:
        """All of it in order, [B, 1, length] at a time; the last may be shorter."""
        for first in range(0, self.samples, length):
            yield self.read(first, min(length, self.samples - first))


class Pair(NamedTuple):
    """What a super-resolver hears (`low`) and what it should give back (`high`).

    cutoff: [B] Hz, the true band edge of `low`. ids: recordings. seeds: [B], from run seed, split and item:
    whatever is random about an item is drawn from its seed, so that it is the same everywhere.
    """

    low: Signal
    high: Signal
    cutoff: Tensor
    ids: list[str]
    seeds: Tensor


def valid(lengths: Tensor, size: int) -> Tensor:
    """[B, size] mask of the samples (or frames) before each length [B]."""
    return torch.arange(size, device=lengths.device) < lengths[:, None]


def silence_padding(wave: Tensor, lengths: Tensor) -> Tensor:
    """`wave` [B, 1, T] with everything from each length [B] on set to zero."""
    return wave * valid(lengths, wave.shape[-1])[:, None]


def check_alike(estimate: Signal | Recording, reference: Signal | Recording) -> None:
    """Raises ValueError if rates or lengths differ."""
    if estimate.rate != reference.rate:
        raise ValueError(f"the estimate is at {estimate.rate} Hz, the reference at {reference.rate} Hz")
    ours, theirs = estimate.lengths.tolist(), reference.lengths.tolist()
    if ours != theirs:
        raise ValueError(f"the estimate has {ours} samples, the reference {theirs}")


def aligned(estimate: Signal, reference: Signal) -> tuple[Tensor, Tensor]:
    """Both waves [B, 1, longest] with silence for padding, whatever it held before.

    Raises ValueError if rates or lengths differ.
    """
    check_alike(estimate, reference)
    longest = int(reference.lengths.max())
    return tuple(
        silence_padding(signal.wave[..., :longest], signal.lengths) for signal in (estimate, reference)
    )
