"""Spectrograms side by side, on one scale of time, frequency and level."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from callbacks.pictures import blank, write_picture
from signals.names import label

RANGE = 80  # dB from the loudest of all panels down


class Level(NamedTuple):
    """A spectrogram in dB [F, N], its highest frequency in kHz and its length in seconds."""

    decibels: np.ndarray
    kilohertz: float
    seconds: float


def level_of(wave: np.ndarray, rate: int, top: float) -> Level:
    """The spectrogram of `wave` [T] at `rate` Hz. top: kHz of the picture, which sets the resolution."""
    from scipy.signal import stft

    size = 2 * round(512 * rate / (1000 * top) / 2)  # the same resolution in Hz at every rate
    hop = max(size // 4, len(wave) // 500)  # no more columns than pixels
    hertz, seconds, spectrum = stft(wave, rate, nperseg=size, noverlap=max(size - hop, 0))
    return Level(20 * np.log10(np.abs(spectrum) + 1e-10), hertz[-1] / 1000, seconds[-1])


def draw_spectrograms(
    path: Path, lines: Mapping[str, Mapping[str, tuple[np.ndarray, int] | None]], title: str
) -> None:
    """One picture; a line of panels for each of `lines`, by its name. None: an empty panel.

    lines: for each line, what its panels show, by their names: a wave [T] and its rate in Hz.
    """
    columns = list(dict.fromkeys(kind for line in lines.values() for kind in line))
    shown = {(name, kind): each for name, line in lines.items() for kind, each in line.items() if each}
    top = max((rate for _, rate in shown.values()), default=2) / 2000  # kHz
    levels = {place: level_of(*each, top) for place, each in shown.items()}
    loudest = max((level.decibels.max() for level in levels.values()), default=0)
    width, height = 3.2 * len(columns) + 1.8, 2.4 * len(lines) + 1.2
    figure = blank((width, height))
    axes = figure.subplots(len(lines), len(columns), sharey=True, sharex="row", squeeze=False)
    figure.subplots_adjust(
        *(0.9 / width, 0.5 / height, 1 - 0.9 / width, 1 - 0.7 / height), wspace=0.06, hspace=0.12
    )
    image = None
    for line, name in enumerate(lines):
        for column, kind in enumerate(columns):
            axis, level = axes[line, column], levels.get((name, kind))
            axis.set(title=label(kind) if line == 0 else "", ylim=(0, top))
            axis.label_outer()
            if level is None:
                axis.text(0.5, 0.5, "none", transform=axis.transAxes, ha="center", color="gray")
                continue
            image = axis.imshow(
                level.decibels,
                origin="lower",
                aspect="auto",
                extent=(0, level.seconds, 0, level.kilohertz),
                cmap="magma",
                vmin=loudest - RANGE,
                vmax=loudest,
            )
        axes[line, 0].set_ylabel(f"{label(name)}\nkHz" if name else "kHz")
    for axis in axes[-1]:
        axis.set_xlabel("s")
    if image:
        figure.colorbar(image, ax=axes, label="dB", pad=0.01, fraction=0.02, aspect=15 * len(lines))
    figure.suptitle(label(title), fontsize=9)
    write_picture(figure, path, dpi=80)
