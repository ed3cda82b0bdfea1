"""What is tested and what enhances recordings: any length, any rate in, `rate` out."""

from collections.abc import Mapping
from math import gcd

import lightning
import torch
from torch import Tensor
from torch.nn.functional import pad

from signals.errors import UserError
from signals.interpolation import INTERPOLATIONS
from signals.resampling import resample, resampled_length
from signals.types import Pair, Signal, silence_padding


def raise_rate(low: Signal, rate: int, upsample: str) -> Signal:
    """`low` at `rate` Hz by `polyphase` or a name in INTERPOLATIONS.

    A higher rate always comes down by the polyphase filter, since interpolation would alias.
    """
    if low.rate == rate:
        return low
    if upsample == "polyphase" or low.rate > rate:
        wave = resample(low.wave, low.rate, rate)
    else:
        length = resampled_length(low.wave.shape[-1], low.rate, rate)
        wave = INTERPOLATIONS[upsample](low.wave, low.rate, rate, length)
    return Signal(wave, rate, resampled_length(low.lengths, low.rate, rate))


class SuperResolver(lightning.LightningModule):
    """A subclass gives `resolve`; lengths, rates, long recordings and the test step are written here, once.

    rate: Hz of what comes out. upsample: how the input is brought to `rate` before `resolve` sees it
    (`polyphase`, a name in INTERPOLATIONS, or `none`: the method raises the rate itself). oracle: needs the
    reference, so it can be scored but not used. blind: estimates the band edge itself where none is given,
    and is given none when tested. window, overlap: samples at `rate` that `resolve` takes at most (None:
    any), and that neighbours share at least; where the method raises the rate itself, on both rates' grid.
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

    @classmethod
    def resolved(cls, settings: Mapping) -> dict:
        """`settings` with all that they leave open filled in: a number is named by these."""
        return dict(settings)

    def resolve(self, low: Signal, cutoff: Tensor | None, seeds: Tensor, reference: Tensor | None) -> Tensor:
        """One window -> [B, 1, T] at `rate`.

        low: at `rate`, or at its own where `upsample` is `none`. cutoff: [B] Hz, the band edge. reference:
        [B, 1, T], for oracles.
        """
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

        cutoff: [B] Hz, where the band of `low` ends (None: half its rate, or estimated by a blind method).
        seeds: [B], what is random follows from them (0, 1, ... where None). reference: at `self.rate`. Raises
        UserError where an oracle lacks it.
        """
        if self.oracle and reference is None:
            raise UserError(f"{type(self).__name__} is an oracle: it needs the full-band reference.")
        batch, device = len(low.wave), low.wave.device
        if cutoff is None and not self.blind:
            cutoff = torch.full((batch,), low.rate / 2, device=device)
        if seeds is None:
            seeds = torch.arange(batch, device=device)
        lengths = resampled_length(low.lengths, low.rate, self.rate)
        if reference is not None:
            lengths = torch.minimum(lengths, reference.lengths)
        out = low.wave.new_zeros(batch, 1, int(lengths.max()))
        # One length at a time: a network would hear the padding, and an item must not depend on its batch.
        for size, length in sorted(set(zip(low.lengths.tolist(), lengths.tolist(), strict=True))):
            rows = (low.lengths == size) & (lengths == length)
            wave = self.resolve_whole(
                Signal.of(low.wave[rows, :, :size], low.rate),
                None if cutoff is None else cutoff[rows],
                seeds[rows],
                None if reference is None else reference.wave[rows, :, :length],
            )
            out[rows, :, :length] = wave[..., :length].to(out.dtype)
        return Signal(out, self.rate, lengths)

    def resolve_whole(
        self, low: Signal, cutoff: Tensor | None, seeds: Tensor, reference: Tensor | None
    ) -> Tensor:
        """Whole recordings of one length, at any rate -> [B, 1, T] at `rate`, by windows where they are long.

        A subclass wraps it for what a recording has one of, as its level.
        """
        total = resampled_length(low.wave.shape[-1], low.rate, self.rate)
        if self.upsample != "none" or low.rate > self.rate:
            low = raise_rate(low, self.rate, self.upsample)
        if self.window is None or total <= self.window:
            return self.resolve(low, cutoff, seeds, reference)
        return self._overlap_add(low, cutoff, seeds, reference, total)

    def _overlap_add(
        self, low: Signal, cutoff: Tensor | None, seeds: Tensor, reference: Tensor | None, total: int
    ) -> Tensor:
        """[B, 1, total] by windows whose neighbours cross-fade linearly over `overlap`, a few at once."""
        grid = self.rate // gcd(self.rate, low.rate)  # samples after which both rates have one
        window = self.window // grid * grid
        hop = (window - self.overlap) // grid * grid
        if hop <= 0:
            raise UserError(
                f"a window of {self.window} samples is too short for {low.rate} to {self.rate} Hz."
            )
        overlap, batch = window - hop, len(low.wave)
        count = -(-(total - overlap) // hop)
        ramp = (torch.arange(window, device=low.wave.device) + 0.5) / max(overlap, 0.5)
        fade = torch.minimum(ramp, ramp.flip(0)).clamp(max=1)
        out = low.wave.new_zeros(batch, 1, (count - 1) * hop + window)
        weight = torch.zeros(out.shape[-1], device=out.device)
        at_once = max(1, self.windows_at_once // batch)

        def windows(wave: Tensor, rate: int, places: range) -> Tensor:
            step, size = hop * rate // self.rate, window * rate // self.rate
            inside = [wave[..., place * step : place * step + size] for place in places]
            return torch.cat([pad(part, (0, size - part.shape[-1])) for part in inside])

        for first in range(0, count, at_once):
            places = range(first, min(first + at_once, count))

            resolved = self.resolve(
                Signal.of(windows(low.wave, low.rate, places), low.rate),
                None if cutoff is None else cutoff.repeat(len(places)),
                torch.cat([seeds + (place << 32) for place in places]),  # apart from neighbouring seeds
                None if reference is None else windows(reference, self.rate, places),
            )
            for place, wave in zip(places, resolved.split(batch), strict=True):
                out[..., place * hop : place * hop + window] += wave * fade
                weight[place * hop : place * hop + window] += fade
        return (out / weight)[..., :total]

    def test_step(self, pair: Pair, _: int) -> Signal:
        """The estimate, as long as the reference: a lower rate's last sample may reach beyond it."""
        estimate = self(
            pair.low,
            cutoff=None if self.blind else pair.cutoff,
            seeds=pair.seeds,
            reference=pair.high if self.oracle else None,
        )
        lengths = torch.minimum(estimate.lengths, pair.high.lengths)
        wave = silence_padding(estimate.wave[..., : int(lengths.max())], lengths)
        return Signal(wave, estimate.rate, lengths)
