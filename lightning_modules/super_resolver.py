"""What is tested and what enhances recordings: any length, any rate in, `rate` out."""

from collections.abc import Callable

import lightning
import torch
from torch import Tensor

from signals.errors import UserError
from signals.interpolation import INTERPOLATIONS
from signals.resampling import resample, resampled_length
from signals.types import Pair, Signal, silence_padding


class SuperResolver(lightning.LightningModule):
    """A subclass gives `resolve`; lengths, rates, long recordings and the test step are written here, once.

    rate: Hz of what comes out. upsample: how the input is brought to `rate` before `resolve` sees it
    (`polyphase`, a name in INTERPOLATIONS, or `none`: the method raises the rate itself). oracle: needs the
    reference, so it can be scored but not used. blind: estimates the band edge itself when tested.
    window, overlap: samples at `rate` that `resolve` takes at most, and that neighbours share (None: any).
    """

    upsample: str = "polyphase"
    oracle: bool = False
    blind: bool = False
    window: int | None = None
    overlap: int = 0
    windows_at_once: int = 8

    def __init__(self, rate: int):
        super().__init__()
        self.rate = rate

    def resolve(self, low: Signal, cutoff: Tensor, seeds: Tensor, reference: Tensor | None) -> Tensor:
        """One window. low: at `rate`, or at its own where `upsample` is `none`; cutoff: [B] Hz, the band edge;
        reference: [B, 1, T] for oracles. Returns [B, 1, T] at `rate`."""
        raise NotImplementedError

    def forward(
        self,
        low: Signal,
        *,
        cutoff: Tensor | None = None,
        seeds: Tensor | None = None,
        reference: Signal | None = None,
    ) -> Signal:
        """The full-band estimate of `low`: its duration and alignment, at `self.rate`.

        cutoff: [B] Hz, where the band of `low` ends (half its rate where None). seeds: [B], what is random
        follows from them (0, 1, ... where None). Raises UserError where an oracle lacks its reference.
        """
        if self.oracle and reference is None:
            raise UserError(f"{type(self).__name__} is an oracle: it needs the full-band reference.")
        batch, device = len(low.wave), low.wave.device
        if cutoff is None:
            cutoff = torch.full((batch,), low.rate / 2, device=device)
        if seeds is None:
            seeds = torch.arange(batch, device=device)
        lengths = resampled_length(low.lengths, low.rate, self.rate)
        if reference is not None:
            lengths = torch.minimum(lengths, reference.lengths)
        total = int(lengths.max())
        low = self.raise_rate(low, resampled_length(low.wave.shape[-1], low.rate, self.rate))
        reach = None if reference is None else reference.wave
        if self.window is None or total <= self.window:
            wave = self.resolve(low, cutoff, seeds, reach)
        else:
            wave = self._overlap_add(low, cutoff, seeds, reach, total)
        wave = wave[..., :total]
        return Signal(silence_padding(wave, lengths), self.rate, lengths)

    def raise_rate(self, low: Signal, length: int) -> Signal:
        if self.upsample == "none" or low.rate == self.rate:
            return low
        if self.upsample == "polyphase":
            wave = resample(low.wave, low.rate, self.rate)
        else:
            wave = INTERPOLATIONS[self.upsample](low.wave, low.rate, self.rate, length)
        return Signal(wave, self.rate, resampled_length(low.lengths, low.rate, self.rate))

    def _overlap_add(
        self, low: Signal, cutoff: Tensor, seeds: Tensor, reference: Tensor | None, total: int
    ) -> Tensor:
        """[B, 1, total] by windows whose neighbours cross-fade linearly over `overlap`, a few at once."""
        window, hop, batch = self.window, self.window - self.overlap, len(low.wave)
        count = -(-(total - self.overlap) // hop)
        fade = torch.ones(window, device=low.wave.device)
        if self.overlap:
            ramp = (torch.arange(self.overlap, device=fade.device) + 0.5) / self.overlap
            fade[: self.overlap], fade[-self.overlap :] = ramp, ramp.flip(0)
        out = torch.zeros(batch, 1, (count - 1) * hop + window, device=fade.device)
        weight = torch.zeros(out.shape[-1], device=fade.device)
        at_once = max(1, self.windows_at_once // batch)
        for first in range(0, count, at_once):
            places = range(first, min(first + at_once, count))

            def stacked(cut: Callable[[int], Tensor], places=places) -> Tensor:
                return torch.cat([cut(place) for place in places])

            def windows(wave: Tensor, rate: int, stacked=stacked) -> Tensor:
                step, size = hop * rate // self.rate, window * rate // self.rate
                padded = torch.nn.functional.pad(wave, (0, max(0, (count - 1) * step + size - wave.shape[-1])))
                return stacked(lambda place: padded[..., place * step : place * step + size])

            part = windows(low.wave, low.rate)
            resolved = self.resolve(
                Signal.of(part, low.rate),
                cutoff.repeat(len(places)),
                stacked(lambda place: seeds + place),
                None if reference is None else windows(reference, self.rate),
            )
            for place, wave in zip(places, resolved.split(batch), strict=True):
                out[..., place * hop : place * hop + window] += wave * fade
                weight[place * hop : place * hop + window] += fade
        return (out / weight.clamp(min=1e-8))[..., :total]

    def test_step(self, pair: Pair, _: int) -> Signal:
        return self(
            pair.low,
            cutoff=None if self.blind else pair.cutoff,
            seeds=pair.seeds,
            reference=pair.high if self.oracle else None,
        )
