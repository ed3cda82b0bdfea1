"""Signals cut into frames, for what is measured by Fourier transforms or by moments; padding never counts."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from signals.types import Signal, aligned, valid

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


def powers_of(estimate: Signal, reference: Signal, frames: Frames) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Power spectra of both [B, n, F] and which of the n frames count [B, n], a few frames at a time.

    What is made of a frame is much larger than the signal: so it stays in the cache, and memory is bounded.
    """
    waves = torch.cat(aligned(estimate, reference))[:, 0]
    framed, counts = in_frames(waves, reference.lengths.repeat(2), frames)
    window = torch.hann_window(frames.n_fft, dtype=torch.float64) if frames.hann else torch.ones(frames.n_fft)
    window = window.to(waves.device, torch.float64 if frames.double else waves.dtype)
    at_once = max(1, SAMPLES_AT_ONCE.get(waves.device.type, ELSEWHERE) // (len(waves) * frames.n_fft))
    for first in range(0, framed.shape[1], at_once):
        spectrum = torch.fft.rfft(framed[:, first : first + at_once] * window)
        squares = torch.view_as_real(spectrum).square()  # much faster than real and imaginary parts apart
        power = (squares[..., 0] + squares[..., 1]).to(waves.dtype)
        counted = valid(counts - first, power.shape[1])
        yield *power.chunk(2), counted.chunk(2)[0]


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
    last = lengths[:, None] - 1
    at = torch.arange(-margin, wave.shape[-1] + margin, device=wave.device) % (2 * last).clamp(min=1)
    return wave.gather(1, (last - (last - at).abs()))


def mean_of(values: Tensor, counted: Tensor) -> Tensor:
    """The mean of `values` over the last axis where `counted`, which broadcasts; nan where nothing counts."""
    if counted.all():
        return values.mean(-1)
    return values.where(counted, 0).sum(-1) / counted.sum(-1)


def sounds(wave: Tensor) -> Tensor:
    """[B] whether there is anything but zeros in `wave` [B, ..., T]."""
    return wave.flatten(1).abs().amax(1) > 0
