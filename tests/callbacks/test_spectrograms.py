"""Spectrograms side by side."""

import matplotlib.image
import numpy as np

from callbacks.spectrograms import draw_spectrograms, level_of


def sine(hertz: float, rate: int, amplitude: float = 1.0) -> np.ndarray:
    return amplitude * np.sin(2 * np.pi * hertz * np.arange(2 * rate) / rate)


def test_a_tone_is_where_and_as_loud_as_it_is():
    for rate in (12_000, 48_000):
        level = level_of(sine(3000, rate, 0.1), rate, top=24)
        middle = level.decibels[:, level.decibels.shape[1] // 2]
        assert level.kilohertz == rate / 2000
        assert abs(level.seconds - 2) < 0.1
        assert abs(middle.argmax() * level.kilohertz / (len(middle) - 1) - 3) < 0.1
        assert abs(middle.max() - 20 * np.log10(0.1 / 2)) < 0.2  # SciPy's scale: half of a sine's amplitude


def test_a_line_a_task_and_an_empty_panel_where_there_is_nothing(tmp_path):
    lines = {
        "x2": {"input": (sine(500, 6000), 6000), "A": None},
        "x4": {"input": (sine(500, 3000), 3000), "A": (sine(500, 12_000), 12_000)},
    }
    draw_spectrograms(tmp_path / "two", lines, "title")
    draw_spectrograms(tmp_path / "one", {"x4": lines["x4"]}, "title")
    two, one = (matplotlib.image.imread(tmp_path / name, format="png") for name in ("two", "one"))
    assert two.shape[1] == one.shape[1]
    assert two.shape[0] > 1.5 * one.shape[0]
    right, half = two[:, two.shape[1] // 2 : -150], two.shape[0] // 2
    upper, lower = (np.unique(part.reshape(-1, 4), axis=0) for part in (right[:half], right[half:]))
    assert len(upper) < 260 < len(lower)  # grays only, and a picture
