"""What is tested and what enhances recordings: any length, any rate in, `rate` out."""

from collections.abc import Iterator, Mapping, Sequence
from math import lcm

import lightning
import torch
from torch import Tensor
from torch.nn.functional import pad

from signals.errors import UserError
from signals.interpolation import INTERPOLATIONS
from signals.resampling import ratio, resample, resampled_length
from signals.types import Pair, Recording, Signal, silence_padding

REACH = (
    80  # input samples beyond which no resampling or interpolation here reads, per step of the slower rate
)
HELD = ("hold", "linear", "cubic", "spline")  # interpolations that take the ends to be held, not silent
LONG_WINDOW = 2**19  # samples at once of a long recording, for a method that takes any length


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
    frame: samples on whose multiples windows begin, for a method that cuts the recording into frames.
    use: settings of a trained method that its training never sees, attributes by name, with their defaults.
    guests: of a method of parts, by part: the stage and how it is trained where a configuration says nothing.
    """

    upsample: str = "polyphase"
    oracle: bool = False
    blind: bool = False
    window: int | None = None
    overlap: int = 0
    frame: int = 1
    windows_at_once: int = 8
    use: Mapping = {}
    guests: Mapping[str, Mapping] = {}
    version = 1  # raised whenever the same weights make another estimate: cells made before are made again

    def __init__(self, rate: int):
        super().__init__()
        self.rate = rate
        self.used()

    def used(self, **settings) -> None:
        """Sets what `use` names to `settings`, and the rest to its defaults. Raises UserError on another."""
        unknown = settings.keys() - self.use.keys()
        if unknown:
            known = ", ".join(self.use) or "none"
            raise UserError(
                f"{type(self).__name__} has no setting {min(unknown)} of its use (it has: {known})."
            )
        for name, value in {**self.use, **settings}.items():
            setattr(self, name, value)

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

    def measured(self, pair: Pair) -> dict[str, Tensor]:
        """Scores [B] by name of what no waveform shows, such as a spectrum on its way to one."""
        return {}

    # What a method may wrap -------------------------------------------------------------------------------

    def survey(
        self, low: Recording, cutoff: Tensor | None, seeds: Tensor, reference: Recording | None
    ) -> dict[str, Tensor]:
        """What a recording has one of, however it is cut: its `cutoff` [B] Hz, a level [B, ...]."""
        return {} if cutoff is None else {"cutoff": cutoff}

    def windows(
        self,
        low: Recording,
        firsts: Sequence[int],
        count: int,
        whole: Mapping[str, Tensor],
        seeds: Tensor,
        reference: Recording | None,
    ) -> Tensor:
        """Windows of `count` samples at `rate` from each of P `firsts` on -> [P * B, 1, count].

        whole: what `survey` found, and seeds, of each of the P * B.
        """
        if self.upsample == "none" and low.rate <= self.rate:
            size = count * low.rate // self.rate
            heard = torch.cat([low.read(first * low.rate // self.rate, size) for first in firsts])
            given = Signal.of(heard, low.rate)
        else:
            raised = self.raised(low)
            given = Signal.of(torch.cat([raised.read(first, count) for first in firsts]), self.rate)
        referred = torch.cat([reference.read(first, count) for first in firsts]) if reference else None
        return self.resolve(given, whole.get("cutoff"), seeds, referred)

    def raised(self, low: Recording, rate: int | None = None) -> Recording:
        """`low` at `rate` (None: the method's); a stretch of it is equal to that of the whole brought there.

        By `upsample`, or the polyphase filter where that is `none`.
        """
        rate = rate or self.rate
        upsample = "polyphase" if self.upsample == "none" else self.upsample
        if low.rate == rate:
            return low
        up, down = ratio(low.rate, rate)
        margin = 0 if upsample == "fft" else -(-REACH * max(1, low.rate // rate + 1) // down)

        def read(first: int, count: int) -> Tensor:
            start = first // up  # of the grid of samples that both rates have
            size = (-(-(first - start * up + count) // up) + 2 * margin) * down
            begin = (start - margin) * down
            wave = low.read(begin, size)
            if upsample in HELD and low.rate < rate:
                before, after = max(0, -begin), max(0, begin + size - low.samples)
                wave = pad(wave[..., before : size - after], (before, after), mode="replicate")
            wave = raise_rate(Signal.of(wave, low.rate), rate, upsample).wave
            skipped = first + (margin - start) * up
            return wave[..., skipped : skipped + count]

        return Recording(read, resampled_length(low.samples, low.rate, rate), rate)

    # Whole recordings -------------------------------------------------------------------------------------

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
            cutoff = torch.full((batch,), float(low.rate / 2), device=device)
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
                Recording.of(low.wave[rows, :, :size], low.rate),
                None if cutoff is None else cutoff[rows],
                seeds[rows],
                None if reference is None else Recording.of(reference.wave[rows, :, :length], self.rate),
            )
            out[rows, :, :length] = wave[..., :length].to(out.dtype)
        return Signal(out, self.rate, lengths)

    def enhance(self, low: Recording, cutoff: float | None = None, seed: int = 0) -> Iterator[Tensor]:
        """The estimate of a recording of any length, [B, 1, ...] at a time, in bounded memory.

        B: channels; what is random is the same in all of them. cutoff: Hz, as in `forward`. Raises UserError
        where the method is an oracle.
        """
        if self.oracle:
            raise UserError(f"{type(self).__name__} is an oracle: it needs the full-band reference.")
        example = low.read(0, 0)
        seeds = torch.full((len(example),), seed, device=example.device)
        if cutoff is None and not self.blind:
            cutoff = low.rate / 2
        edges = None if cutoff is None else torch.full((len(seeds),), float(cutoff), device=seeds.device)
        return self.pieces(low, edges, seeds, None, self.window or LONG_WINDOW)

    def resolve_whole(
        self, low: Recording, cutoff: Tensor | None, seeds: Tensor, reference: Recording | None
    ) -> Tensor:
        """[B, 1, T] at `rate`, in memory; by windows where the method has them."""
        return torch.cat(list(self.pieces(low, cutoff, seeds, reference, self.window)), dim=-1)

    def pieces(
        self,
        low: Recording,
        cutoff: Tensor | None,
        seeds: Tensor,
        reference: Recording | None,
        window: int | None,
    ) -> Iterator[Tensor]:
        """The estimate from its beginning to its end, as consecutive [B, 1, ...] at `rate`.

        window: samples at `rate` (None: the whole at once). Neighbours cross-fade linearly over their
        overlap; a few are resolved at once, and no more is ever held.
        """
        total = resampled_length(low.samples, low.rate, self.rate)
        whole = self.survey(low, cutoff, seeds, reference)
        if window is None or total <= window:
            yield self.windows(low, [0], total, whole, seeds, reference)
            return
        # Samples after which a frame begins and, where `windows` cuts the low rate, both rates have one.
        raises = self.upsample == "none" and low.rate <= self.rate
        grid = lcm(ratio(low.rate, self.rate)[0], self.frame) if raises else self.frame
        window = window // grid * grid
        hop = (window - (self.overlap if self.window else self.rate // 10)) // grid * grid
        if hop <= 0:
            raise UserError(f"a window of {window} samples is too short for {low.rate} to {self.rate} Hz.")
        batch, overlap = len(seeds), window - hop
        count = -(-(total - overlap) // hop)
        at_once = max(1, self.windows_at_once // batch) if self.window else 1
        ramp = (torch.arange(window, device=seeds.device) + 0.5) / max(overlap, 0.5)
        fade = torch.minimum(ramp, ramp.flip(0)).clamp(max=1)
        pending, weight = 0, torch.zeros(window, device=seeds.device)  # of the window at hand
        for first in range(0, count, at_once):
            places = range(first, min(first + at_once, count))
            resolved = self.windows(
                low,
                [place * hop for place in places],
                window,
                {
                    name: values.repeat(len(places), *[1] * (values.ndim - 1))
                    for name, values in whole.items()
                },
                torch.cat([seeds + (place << 32) for place in places]),  # apart from neighbouring seeds
                reference,
            )
            for place, wave in zip(places, resolved.split(batch), strict=True):
                pending, weight = pending + wave * fade, weight + fade
                done = hop if place < count - 1 else total - place * hop
                yield pending[..., :done] / weight[:done]
                pending, weight = pad(pending[..., hop:], (0, hop)), pad(weight[hop:], (0, hop))

    def in_use(self) -> "SuperResolver":
        """Itself without what only training needs, for a process that will not train it."""
        return self

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
