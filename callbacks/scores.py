"""Scores of a test, file by file, and the recordings one wants to hear and see."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import lightning
import numpy as np
import torch

from callbacks.pictures import spared
from callbacks.spectrograms import draw_spectrograms
from signals.metrics import METRICS
from signals.names import file_names
from signals.stretches import Sound
from signals.types import Pair, Signal


def score(
    metrics: Mapping[str, str], estimate: Sound, reference: Sound, cutoff: torch.Tensor | None
) -> dict[str, torch.Tensor]:
    """Scores [B] by printed name. metrics: what computes each name, as `{"LSD": "lsd_nuwave"}`."""
    return {
        f"{name}{suffix}": values
        for name, metric in metrics.items()
        for suffix, values in METRICS[metric](estimate, reference, cutoff).items()
    }


def in_bits(wave: torch.Tensor, bits: int | None) -> torch.Tensor:
    """Samples as they are once they were stored in words of so many bits (None: in floats)."""
    if not bits:
        return wave
    steps = 2 ** (bits - 1)
    return (wave * steps).round().clamp(-steps, steps - 1) / steps


def synchronise() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


class Found(NamedTuple):
    """What a test found, or the share of one process in it. See `Scores`; memory: bytes at its peak."""

    files: Mapping[str, Mapping[str, float]]
    measured: set[str]
    seconds: float
    audio_seconds: float
    memory: int | None = None

    @classmethod
    def joined(cls, shares: Sequence["Found"]) -> "Found":
        """Of several processes, each with files of its own."""
        return cls(
            {id_: scores for share in shares for id_, scores in share.files.items()},
            set().union(*(share.measured for share in shares)),
            sum(share.seconds for share in shares),
            sum(share.audio_seconds for share in shares),
            max((share.memory for share in shares if share.memory), default=None),
        )


class Scores(lightning.Callback):
    """Scores every estimate of a test: `files[id] = {name: value}`.

    metrics: what computes each printed name, as in `score`. bits: word length in which the estimate is stored
    before it is scored (None: float). Seconds of audio are counted for the real-time factor.
    """

    def __init__(self, metrics: Mapping[str, str], bits: int | None = None):
        self.metrics, self.bits = metrics, bits
        self.files: dict[str, dict[str, float]] = {}
        self.measured: set[str] = set()  # names of what the method measured itself, which no waveform shows
        self.audio_seconds = 0.0
        self.seconds = 0.0  # that the method took; not the making of its input, and not scoring

    @property
    def found(self) -> "Found":
        return Found(self.files, self.measured, self.seconds, self.audio_seconds)

    def on_test_batch_start(self, trainer, module, pair: Pair, batch_idx, dataloader_idx=0):
        synchronise()  # what is still under way is the input's
        self.started = time.perf_counter()

    def on_test_batch_end(self, trainer, module, estimate: Signal, pair: Pair, batch_idx, dataloader_idx=0):
        synchronise()
        self.seconds += time.perf_counter() - self.started
        self.add(estimate, pair, module.measured(pair))

    def add(self, estimate: Signal, pair: Pair, measured: Mapping[str, torch.Tensor] | None = None) -> None:
        """measured: scores [B] by name that the method gives itself."""
        measured = dict(measured or {})
        self.measured |= measured.keys()
        estimate = estimate._replace(wave=in_bits(estimate.wave, self.bits))
        scores = score(self.metrics, estimate, pair.high, pair.cutoff) | measured
        table = {name: values.tolist() for name, values in scores.items()}
        for row, id_ in enumerate(pair.ids):
            self.files[id_] = {name: values[row] for name, values in table.items()}
        self.audio_seconds += float(pair.high.lengths.sum()) / pair.high.rate


class Showcase(lightning.Callback):
    """Keeps audio and a picture of spectrograms of the recordings named in `ids`, below `folder`.

    In `input/`, `estimate/` and `reference/`, as WAV of 32-bit floats: nothing is clipped, what was scored
    can be scored again, and another system can run on the same inputs. report: told of a picture that cannot
    be drawn, which costs no score.
    """

    def __init__(self, folder: Path, ids: Iterable[str], report: Callable[[str], None] = print):
        self.folder, self.names, self.report = folder, file_names(ids), report

    def on_test_batch_end(self, trainer, module, estimate: Signal, pair: Pair, batch_idx, dataloader_idx=0):
        for row, id_ in enumerate(pair.ids):
            if id_ in self.names:
                self.keep(
                    id_,
                    {
                        "input": self.item(pair.low, row),
                        "estimate": self.item(estimate, row),
                        "reference": self.item(pair.high, row),
                    },
                )

    @staticmethod
    def item(signal: Signal, row: int) -> tuple[np.ndarray, int]:
        """A wave and the rate that a file can state, which is whole."""
        wave = signal.wave[row, 0, : int(signal.lengths[row])].float().cpu().numpy()
        return wave, round(signal.rate)

    def keep(self, id_: str, waves: dict[str, tuple[np.ndarray, int]]) -> None:
        import soundfile

        name = self.names[id_]
        for kind, (wave, rate) in waves.items():
            (self.folder / kind).mkdir(parents=True, exist_ok=True)
            soundfile.write(self.folder / kind / f"{name}.wav", wave, rate, subtype="FLOAT")
        with spared(f"the picture of {id_}", self.report):
            draw_spectrograms(self.folder / f"{name}.png", {"": waves}, id_)
