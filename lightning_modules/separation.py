"""Separate, then enhance: a mixture's stems are enhanced one by one, and the estimates added.

The stems of a recording are recordings themselves, at its rate and of its length, so that whatever enhances a
mixture enhances a stem: it takes its level or peak, cuts its windows, and puts it back at its place.
"""

from collections.abc import Iterator
from functools import cache, lru_cache, partial
from math import ceil, log2

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from lightning_modules.super_resolver import SuperResolver
from signals.errors import UserError
from signals.resampling import resample
from signals.spectra import istft, stft
from signals.types import Rate, Recording

HELD = 300  # s of stems that are held in memory: a longer recording is separated again where it is read again


class Separator(nn.Module):
    """A subclass gives `separate` and says by `cut` how a recording is cut for it."""

    def separate(self, wave: Tensor, rate: Rate) -> Tensor:
        """[B, 1, T] -> its S stems [S, B, 1, T]."""
        raise NotImplementedError

    def cut(self, low: Recording) -> tuple[int, int, int]:
        """Samples from one segment to the next, heard around each, and of it cross-faded with the next."""
        raise NotImplementedError

    @property
    def names(self) -> tuple[str, ...]:
        raise NotImplementedError

    def forward(self, low: Recording) -> list[Recording]:
        """The stems of `low`, separated where they are read."""
        hop, margin, fade = self.cut(low)
        size = hop + 2 * margin + fade
        nothing = low.read(0, 0)
        ramp = (torch.arange(size, device=nothing.device) + 0.5 - margin) / max(fade, 0.5)
        weight = torch.minimum(ramp, ramp.flip(0)).clamp(0, 1)

        @lru_cache(maxsize=ceil(HELD * low.rate / hop))
        def segment(place: int) -> Tensor:
            """[S, B, 1, size], to be added to its neighbours, `hop` samples before and after it."""
            return weight * self.separate(low.read(place * hop - margin - fade, size), low.rate)

        def read(stem: int, first: int, count: int) -> Tensor:
            start, stop = max(first, 0), max(min(first + count, low.samples), 0)
            out = nothing.new_zeros(*nothing.shape[:-1], count)
            for place in range(start // hop, ceil((stop + fade) / hop)) if start < stop else ():
                begin = place * hop - margin - fade
                a, b = max(start, begin), min(stop, begin + size)
                out[..., a - first : b - first] += segment(place)[stem][..., a - begin : b - begin]
            return out

        return [low._replace(read=partial(read, stem)) for stem in range(len(self.names))]


class HarmonicPercussive(Separator):
    """What stays in time and what is spread in frequency, by median filters (Fitzgerald 2010, DAFx).

    The medians of |S| [F, N] over 17 frames (H) and over 17 bins (P); its soft masks H^p / (H^p + P^p) and
    what is left to 1, p = 2. Frames of 4096 samples every 1024 at 44.1 kHz, and about as long at other rates.
    Nothing is learnt. However a recording is read, its stems are the same.
    """

    names = ("harmonic", "percussive")
    width = 17  # of the medians, in frames and in bins
    seconds = 3  # at once

    def frame(self, rate: Rate) -> int:
        """Samples, a power of two."""
        return 2 ** round(log2(4096 * rate / 44100))

    def cut(self, low: Recording) -> tuple[int, int, int]:
        """On the grid of the frames, with as much around as a sample hears."""
        frame = self.frame(low.rate)
        samples = max(1, min(self.seconds * low.rate, low.samples))
        return ceil(samples / frame) * frame, frame + self.width // 2 * (frame // 4), 0

    def separate(self, wave: Tensor, rate: Rate) -> Tensor:
        frame = self.frame(rate)
        spectrum = stft(wave, frame, frame // 4)
        harmonic = istft(spectrum * self.mask(spectrum.abs()), frame, frame // 4, wave.shape[-1])
        return torch.stack([harmonic, wave - harmonic])

    def mask(self, magnitude: Tensor) -> Tensor:
        """Of the harmonic stem, [B, F, N]; one half where there is nothing."""
        half = self.width // 2
        H = pad(magnitude, (half, half), mode="replicate").unfold(2, self.width, 1).median(-1).values
        P = pad(magnitude, (0, 0, half, half), mode="reflect").unfold(1, self.width, 1).median(-1).values
        both = H.square() + P.square()
        return torch.where(both > 0, H.square() / both, 0.5)


@cache
def hybrid_demucs() -> nn.Module:
    """torchaudio's Hybrid Demucs (Défossez 2021), trained on MUSDB18-HQ's training tracks alone.

    Raises UserError where its weights (335 MB, by `torch.hub`) are neither there nor to be had.
    """
    from torchaudio.pipelines import HDEMUCS_HIGH_MUSDB

    try:
        return HDEMUCS_HIGH_MUSDB.get_model().requires_grad_(False)
    except (OSError, RuntimeError) as error:
        raise UserError(
            f"separator=demucs: its weights are not in {torch.hub.get_dir()}/torchaudio/models and could not "
            f"be downloaded ({error}); separator=harmonic_percussive needs none."
        ) from None


class Demucs(Separator):
    """Drums, bass, other instruments and vocals, by Hybrid Demucs at 44.1 kHz.

    It was trained on full-band stereo: here it hears both channels alike, without the lacking band. Its stems
    need not add up to the mixture. At most ten seconds at once, levelled by mean and standard deviation as in
    its authors' code, faded over one second into the next.
    """

    rate = 44_100  # Hz
    seconds, fade = 10, 1

    @property
    def net(self) -> nn.Module:
        """Loaded when it is first needed, so that a table without it can be run."""
        return hybrid_demucs()

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.net.sources)

    def cut(self, low: Recording) -> tuple[int, int, int]:
        """Segments of one length, so that none is mostly silence."""
        fade = round(self.fade * low.rate)
        samples = max(1, low.samples) + fade  # the last fades into nothing after the end
        count = ceil(samples / ((self.seconds - self.fade) * low.rate))
        return ceil(samples / count), 0, fade

    def separate(self, wave: Tensor, rate: Rate) -> Tensor:
        heard = resample(wave, rate, self.rate)
        mean, std = heard.mean(-1, keepdim=True), heard.std(-1, keepdim=True) + 1e-8
        both = self.net.to(wave.device)(((heard - mean) / std).expand(-1, 2, -1))  # [B, S, 2, T]
        stems = both.mean(2).transpose(0, 1)[:, :, None] * std + mean / len(self.names)
        raised = resample(stems.flatten(0, 1), self.rate, rate)[..., : wave.shape[-1]]
        return raised.unflatten(0, stems.shape[:2])


SEPARATORS = {"harmonic_percussive": HarmonicPercussive, "demucs": Demucs}


class SeparateThenEnhance(SuperResolver):
    """The sum of what `enhancer`, a trained method that keeps levels, makes of each stem.

    separator: a name in SEPARATORS. use: of the enhancer, such as its `overlap`. A stem is surveyed as a
    recording of its own (FmaUNet hears each at a peak of 1, and gives it its own back); where the band ends
    is asked of the mixture. Random numbers differ from stem to stem.
    """

    def __init__(
        self, rate: int, enhancer: SuperResolver, separator: str = "harmonic_percussive", **use: object
    ):
        super().__init__(rate)
        if separator not in SEPARATORS:
            raise UserError(f"unknown separator {separator}: one of {', '.join(SEPARATORS)}.")
        if enhancer.oracle:
            raise UserError(f"{type(enhancer).__name__} is an oracle: there is no reference of a stem.")
        if enhancer.rate != rate:
            raise UserError(f"{type(enhancer).__name__} is at {enhancer.rate} Hz, not at {rate} Hz.")
        enhancer.used(**use)
        self.enhancer, self.separator = enhancer, SEPARATORS[separator]()
        self.blind = enhancer.blind

    @property
    def window(self) -> int | None:
        return self.enhancer.window

    def pieces(
        self,
        low: Recording,
        cutoff: Tensor | None,
        seeds: Tensor,
        reference: Recording | None,
        window: int | None,
    ) -> Iterator[Tensor]:
        """Those of all stems, which are cut alike, added."""
        if cutoff is None:
            cutoff = self.enhancer.survey(low, None, seeds, None)["cutoff"]
        estimates = (
            self.enhancer.pieces(stem, cutoff, seeds + (place << 48), None, window)
            for place, stem in enumerate(self.separator(low))
        )
        for pieces in zip(*estimates, strict=True):
            yield torch.stack(pieces).sum(0)
