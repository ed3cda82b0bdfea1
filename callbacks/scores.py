"""Scores of a test, file by file, and the recordings one wants to hear and see."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import lightning
import numpy as np
import torch

from signals.metrics import METRICS
from signals.types import Pair, Signal


def score(
    metrics: Mapping[str, str], estimate: Signal, reference: Signal, cutoff: torch.Tensor | None
) -> dict[str, torch.Tensor]:
    """Scores [B] by printed name. metrics: what computes each name, as `{"LSD": "lsd_nuwave"}`."""
    return {
        f"{name}{suffix}": values
        for name, metric in metrics.items()
        for suffix, values in METRICS[metric](estimate, reference, cutoff).items()
    }


class Scores(lightning.Callback):
    """Scores every estimate of a test: `files[id] = {name: value}`.

    metrics: what computes each printed name, as in `score`. bits: word length in which the estimate is stored
    before it is scored (None: float). Seconds of audio are counted for the real-time factor.
    """

    def __init__(self, metrics: Mapping[str, str], bits: int | None = None):
        self.metrics, self.bits = metrics, bits
        self.files: dict[str, dict[str, float]] = {}
        self.audio_seconds = 0.0

    def on_test_batch_end(self, trainer, module, estimate: Signal, pair: Pair, batch_idx, dataloader_idx=0):
        self.add(estimate, pair)

    def add(self, estimate: Signal, pair: Pair) -> None:
        if self.bits:
            steps = 2 ** (self.bits - 1)
            stored = (estimate.wave * steps).round().clamp(-steps, steps - 1) / steps
            estimate = estimate._replace(wave=stored)
        scores = score(self.metrics, estimate, pair.high, pair.cutoff)
        table = {name: values.tolist() for name, values in scores.items()}
        for row, id_ in enumerate(pair.ids):
            self.files[id_] = {name: values[row] for name, values in table.items()}
        self.audio_seconds += float(pair.high.lengths.sum()) / pair.high.rate


class Showcase(lightning.Callback):
    """Keeps audio and a picture of spectrograms of the recordings named in `ids`, below `folder`.

    In `input/`, `estimate/` and `reference/`, as WAV of 32-bit floats: nothing is clipped, what was scored
    can be scored again, and another system can run on the same inputs.
    """

    def __init__(self, folder: Path, ids: Sequence[str]):
        self.folder, self.ids = folder, set(ids)

    def on_test_batch_end(self, trainer, module, estimate: Signal, pair: Pair, batch_idx, dataloader_idx=0):
        for row, id_ in enumerate(pair.ids):
            if id_ in self.ids:
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
        return signal.wave[row, 0, : int(signal.lengths[row])].float().cpu().numpy(), signal.rate

    def keep(self, id_: str, waves: dict[str, tuple[np.ndarray, int]]) -> None:
        import soundfile

        name = id_.replace("/", "_")
        for kind, (wave, rate) in waves.items():
            (self.folder / kind).mkdir(parents=True, exist_ok=True)
            soundfile.write(self.folder / kind / f"{name}.wav", wave, rate, subtype="FLOAT")
        draw_spectrograms(self.folder / f"{name}.png", waves, id_)


def draw_spectrograms(path: Path, waves: dict[str, tuple[np.ndarray, int]], title: str) -> None:
    """One picture, a panel a signal, on one scale of time, frequency and level (80 dB from the loudest)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from scipy.signal import stft

    top = max(rate for _, rate in waves.values()) / 2000  # kHz
    levels = {}
    for kind, (wave, rate) in waves.items():
        size = 2 * round(512 * rate / (1000 * top) / 2)  # the same resolution in Hz at every rate
        hop = max(size // 4, len(wave) // 500)  # no more columns than pixels
        hertz, seconds, spectrum = stft(wave, rate, nperseg=size, noverlap=max(size - hop, 0))
        levels[kind] = hertz / 1000, seconds, 20 * np.log10(np.abs(spectrum) + 1e-10)
    loudest = max(level.max() for *_, level in levels.values())
    figure = Figure(figsize=(4 * len(waves) + 1, 3.6))
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, len(waves), sharey=True)
    figure.subplots_adjust(left=0.06, right=0.94, bottom=0.14, top=0.84, wspace=0.06)
    for axis, (kind, (hertz, seconds, level)) in zip(axes, levels.items(), strict=True):
        image = axis.imshow(
            level,
            origin="lower",
            aspect="auto",
            extent=(0, seconds[-1], hertz[0], hertz[-1]),
            cmap="magma",
            vmin=loudest - 80,
            vmax=loudest,
        )
        axis.set(title=kind, xlabel="s", ylim=(0, top))
    axes[0].set_ylabel("kHz")
    figure.colorbar(image, ax=axes, label="dB", pad=0.01, fraction=0.02)
    figure.suptitle(title, fontsize=9)
    figure.savefig(path, dpi=80)
