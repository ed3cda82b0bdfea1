"""Degradations: how a low-resolution input is made from a full-band recording.

A degradation is called with the full-band batch and one seed per item, on the device, and gives the
low-resolution signal at its own rate (never interpolated back) with its true band edge. Whatever it draws
comes from the item's seed alone. `margin` samples on each side of a window are read for it and cropped after.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from signals.errors import UserError
from signals.filters import boxcar, design, sosfilt, stft_hard
from signals.resampling import resample, resampled_length
from signals.types import Signal, silence_padding


class Identity:
    """Full band in, full band out: for stages that learn from recordings alone."""

    margin = 0

    def __call__(self, high: Signal, seeds: Tensor) -> tuple[Signal, Tensor]:
        return high, torch.full((len(high.wave),), high.rate / 2, device=high.wave.device)


class RandomLowpass:
    """AudioSR's training simulation (Liu et al. 2023, Section 3.1): a random low-pass at the full rate.

    cutoff: range in Hz, uniform. order: range, uniform. kinds: equally likely. The paper says no more; ours:
    filters run zero-phase (as in NVSR, which the paper follows), so the low band stays aligned, and `boxcar`
    is the ideal rectangular response.
    """

    def __init__(
        self,
        cutoff: tuple[float, float] = (2000, 16000),
        order: tuple[int, int] = (2, 10),
        kinds: tuple[str, ...] = ("chebyshev", "elliptic", "butterworth", "boxcar"),
        margin: int = 2048,
    ):
        self.cutoff, self.order, self.kinds, self.margin = cutoff, order, kinds, margin

    def draw(self, seed: int) -> tuple[str, int, float]:
        """Kind, order and cut-off in Hz of the item with this seed."""
        rng = np.random.default_rng(seed)
        kind = self.kinds[rng.integers(len(self.kinds))]
        return kind, int(rng.integers(self.order[0], self.order[1] + 1)), float(rng.uniform(*self.cutoff))

    def __call__(self, high: Signal, seeds: Tensor) -> tuple[Signal, Tensor]:
        drawn = [self.draw(seed) for seed in seeds.tolist()]
        cutoff = torch.tensor([hertz for *_, hertz in drawn], device=high.wave.device)
        ideal = [row for row, (kind, *_) in enumerate(drawn) if kind == "boxcar"]
        iir = [row for row, (kind, *_) in enumerate(drawn) if kind != "boxcar"]
        low = torch.empty_like(high.wave)
        if ideal:
            low[ideal] = boxcar(high.wave[ideal], cutoff[ideal], high.rate)
        if iir:
            sections = [design(*drawn[row], high.rate) for row in iir]
            low[iir] = sosfilt(high.wave[iir], sections, zero_phase=True)
        return Signal(silence_padding(low, high.lengths), high.rate, high.lengths), cutoff


class _At:
    """A degradation to one cut-off in Hz, made at `rate` Hz (the recording's own where None)."""

    margin = 0

    def __init__(self, cutoff: float, rate: int | None = None):
        self.cutoff, self.rate = cutoff, rate

    def __call__(self, high: Signal, seeds: Tensor) -> tuple[Signal, Tensor]:
        rate = self.rate or high.rate
        lengths = resampled_length(high.lengths, high.rate, rate)
        cutoff = torch.full((len(high.wave),), float(self.cutoff), device=high.wave.device)
        low = self.lowpass(Signal(resample(high.wave, high.rate, rate), rate, lengths), cutoff)
        return low._replace(wave=silence_padding(low.wave, low.lengths)), cutoff

    def lowpass(self, high: Signal, cutoff: Tensor) -> Signal:
        raise NotImplementedError


class StftHard(_At):
    """ssr_eval's recommended input: STFT bins from the cut-off up are zeroed; the rate stays."""

    def lowpass(self, high: Signal, cutoff: Tensor) -> Signal:
        return high._replace(wave=stft_hard(high.wave, cutoff, high.rate))


class Polyphase(_At):
    """Resampled to twice the cut-off by a polyphase FIR filter: what a low-rate recording is."""

    def lowpass(self, high: Signal, cutoff: Tensor) -> Signal:
        rate = int(2 * self.cutoff)
        return Signal(
            resample(high.wave, high.rate, rate), rate, resampled_length(high.lengths, high.rate, rate)
        )


DEGRADATIONS: dict[str, Callable] = {
    "none": Identity,
    "random_lowpass": RandomLowpass,
    "stft_hard": StftHard,
    "polyphase": Polyphase,
}


def degradation(name: str, **options) -> Callable[[Signal, Tensor], tuple[Signal, Tensor]]:
    """Raises UserError where the name or an option is unknown."""
    if name not in DEGRADATIONS:
        raise UserError(f"unknown degradation {name}: one of {', '.join(DEGRADATIONS)}.")
    try:
        return DEGRADATIONS[name](**options)
    except TypeError as error:
        raise UserError(f"degradation {name}: {error}.") from None
