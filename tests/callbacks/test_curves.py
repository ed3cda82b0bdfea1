"""Loss curves of a run, interrupted or not."""

from pathlib import Path

import matplotlib.image
import pytest

from callbacks.curves import CurveLogger, draw_curves, read_curves


@pytest.fixture
def folder(tmp_path) -> Path:
    """A run that was interrupted after step 30 and went on from its checkpoint of step 20."""
    first = CurveLogger(tmp_path)
    first.log_metrics({"train/mel": 4.0, "epoch": 0}, 10)
    first.log_metrics({"held_out/model": 3.5, "epoch": 0}, 20)
    first.log_metrics({"train/mel": 9.0, "epoch": 1}, 30)
    second = CurveLogger(tmp_path)
    second.log_metrics({"train/mel": 2.0, "epoch": 1}, 30)
    second.log_metrics({"held_out/model": 2.5, "epoch": 1}, 40)
    return tmp_path


CURVES = {"train/mel": [(10, 4.0), (30, 2.0)], "held_out/model": [(20, 3.5), (40, 2.5)]}


def test_what_comes_later_replaces_what_it_repeats(folder):
    assert read_curves(folder) == CURVES


@pytest.mark.parametrize("cut", range(1, len("\n1234,train/mel,1.25e-05")))
def test_a_line_that_was_cut_off_spoils_no_other(tmp_path, cut):
    """It is of a step after the last checkpoint, which comes again."""
    logger = CurveLogger(tmp_path)
    logger.log_metrics({"train/mel": 4.0}, 10)
    with logger.path.open("a") as file:
        file.write("\n1234,train/mel,1.25e-05"[:cut])
    CurveLogger(tmp_path).log_metrics({"train/mel": 2.0, "held_out/model": 3.0}, 1234)
    assert read_curves(tmp_path) == {"train/mel": [(10, 4.0), (1234, 2.0)], "held_out/model": [(1234, 3.0)]}


def test_a_value_is_kept_to_its_last_bit(tmp_path):
    value = 1 / 3
    CurveLogger(tmp_path).log_metrics({"train/mel": value}, 0)
    assert read_curves(tmp_path) == {"train/mel": [(0, value)]}


def test_without_a_file_there_are_no_curves(tmp_path):
    assert read_curves(tmp_path) == {}


@pytest.mark.parametrize("values", ["positive", "negative", "none"])
def test_curves_are_drawn(folder, values):
    file = folder / "curves.csv"
    if values == "negative":  # no logarithmic axis
        file.write_text(file.read_text().replace(",4.0", ",-4.0"))
    if values == "none":
        file.unlink()
    draw_curves(folder, "a run")
    picture = matplotlib.image.imread(folder / "curves.png")[..., :3]
    coloured = picture.max(axis=-1) - picture.min(axis=-1) > 0.3
    assert coloured.any() == (values != "none")
