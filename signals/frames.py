"""Signals cut into frames, for what is measured by Fourier transforms or by moments; padding never counts."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from signals.stretches import Sound, alike
from signals.types import Recording, Signal, valid

SAMPLES_AT_ONCE = {"cpu": 2**18}  # in all frames at work: what fits a CPU's cache
ELSEWHERE = 2**24


class Frames(NamedTuple):
    """How signals are cut into frames for the Fourier transform.

    outside: what lies beyond a signal's ends. `zeros` and `mirror`: frame n is centred on sample n * hop, as
    librosa's; `whole`: the same, with zeros until every sample is in two frames, as SciPy's, but without its
    last frame where that holds zeros only (one sample more than whole hops); `none`: frames begin at the
    first sample, and what does not fill one is left out. hann: with a periodic Hann window.
    double: transformed in double precision. The rounding of single is above the floor of a metric that has
    almost none: an empty band at 48 kHz scored up to 0.5 less than by librosa, which transforms in double.
    """

    n_fft: int
    hop: int
    outside: str
    hann: bool = True
    double: bool = False


def powers_of(estimate: Sound, reference: Sound, frames: Frames) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Power spectra of both [B, n, F] and which of the n frames count [B, n], a few frames at a time.

    What is made of a frame is much larger than the signal: so it stays in the cache, and memory is bounded.
    """
    both = alike(estimate, reference)
    window = torch.hann_window(frames.n_fft, dtype=torch.float64) if frames.hann else torch.ones(frames.n_fft)
    window = window.to(reference.lengths.device)
    for framed, counted in frames_of(both, frames, frames_at_once(both, frames)):
        spectrum = torch.fft.rfft(framed * window.to(torch.float64 if frames.double else framed.dtype))
        squares = torch.view_as_real(spectrum).square()  # much faster than real and imaginary parts apart
        power = (squares[..., 0] + squares[..., 1]).to(framed.dtype)
        yield *power.chunk(2), counted


def frames_at_once(several: Sequence[Sound], frames: Frames) -> int:
    lengths = several[0].lengths
    samples = SAMPLES_AT_ONCE.get(lengths.device.type, ELSEWHERE)
    return max(1, samples // (len(several) * len(lengths) * frames.n_fft))


def frames_of(
    several: Sequence[Sound], frames: Frames, at_once: int | None = None
) -> Iterator[tuple[Tensor, Tensor]]:
    """Frames of several [B of each, n, n_fft], one below the other, and which of the n count [B, n].

    at_once: how many frames (None: all of a Signal, few of a Recording). Padding of Signals is silent.
    """
    lengths = several[0].lengths
    counts = counts_of(lengths, frames)
    total = int(counts.max())
    if isinstance(several[0], Signal):
        waves = torch.cat([sound.wave for sound in several])[:, 0]
        whole, _ = in_frames(waves, lengths.repeat(len(several)), frames)
        at_once = at_once or max(1, total)
        stretches = (whole[:, first : first + at_once] for first in range(0, total, at_once))
    else:
        at_once = at_once or frames_at_once(several, frames)
        stretches = (
            torch.cat([_read_frames(sound, frames, first, min(at_once, total - first)) for sound in several])
            for first in range(0, total, at_once)
        )
    for place, stretch in enumerate(stretches):
        yield stretch, valid(counts - place * at_once, stretch.shape[1])


def _read_frames(recording: Recording, frames: Frames, first: int, count: int) -> Tensor:
    """[B, count, n_fft] from frame number `first` on, a view."""
    begin = first * frames.hop - (0 if frames.outside == "none" else frames.n_fft // 2)
    size = (count - 1) * frames.hop + frames.n_fft
    mirror = frames.outside == "mirror"
    wave = _read_mirrored(recording, begin, size) if mirror else recording.read(begin, size)
    return wave[:, 0].unfold(-1, frames.n_fft, frames.hop)


def _read_mirrored(recording: Recording, first: int, count: int) -> Tensor:
    """[B, 1, count], where `mirrored` is outside."""
    if first >= 0 and first + count <= recording.samples:
        return recording.read(first, count)
    at = _reflected(torch.arange(first, first + count), torch.tensor(recording.samples - 1))
    begin = int(at.min())
    wave = recording.read(begin, int(at.max()) + 1 - begin)
    return wave[..., (at - begin).to(wave.device)]


def in_frames(wave: Tensor, lengths: Tensor, frames: Frames) -> tuple[Tensor, Tensor]:
    """[B, T] -> its frames [B, N, n_fft], a view, and how many of them each item has [B]."""
    margin = frames.n_fft // 2
    if frames.outside == "mirror":
        wave = mirrored(wave, lengths, margin)
    elif frames.outside == "none":
        wave = pad(wave, (0, frames.n_fft))
    else:
        wave = pad(wave, (margin, margin + frames.hop))
    counts = counts_of(lengths, frames)
    return wave.unfold(-1, frames.n_fft, frames.hop)[:, : int(counts.max())], counts


def counts_of(lengths: Tensor, frames: Frames) -> Tensor:
    """[B] how many frames signals of `lengths` [B] have."""
    if frames.outside == "none":
        return (lengths - frames.n_fft) // frames.hop + 1
    if frames.outside == "whole":
        return 1 - (1 - lengths) // frames.hop
    return 1 + (lengths - frames.n_fft % 2) // frames.hop


def mirrored(wave: Tensor, lengths: Tensor, margin: int) -> Tensor:
    """[B, T] -> [B, margin + T + margin]: each item goes on as its own mirror image, before and after it."""
    at = torch.arange(-margin, wave.shape[-1] + margin, device=wave.device)
    return wave.gather(1, _reflected(at, lengths[:, None] - 1))


def _reflected(at: Tensor, last: Tensor) -> Tensor:
    """Places within 0 ... `last` for places anywhere."""
    return last - (last - at % (2 * last).clamp(min=1)).abs()


def mean_of(values: Tensor, counted: Tensor) -> Tensor:
    """The mean of `values` over the last axis where `counted`, which broadcasts; nan where nothing counts."""
    if counted.all():
        return values.mean(-1)
    return values.where(counted, 0).sum(-1) / counted.sum(-1)


def sounds(wave: Tensor) -> Tensor:
    """[B] whether there is anything but zeros in `wave` [B, ..., T]."""
    return wave.flatten(1).abs().amax(1) > 0
