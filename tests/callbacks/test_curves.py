"""Loss curves of a run, interrupted or not."""

from pathlib import Path

import matplotlib.image
import pytest

from callbacks.curves import CurveLogger, by_check, draw_curves, draw_losses, read_curves


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


def test_points_are_averaged_from_one_check_to_the_next():
    points = [(0, 4.0), (4, 2.0), (5, 1.0), (9, 2.0), (12, 7.0)]
    assert by_check(points, checks=[4, 9]) == [(1, 3.0), (2, 1.5)]
    assert by_check([(4, 8.0), (9, 6.0)], checks=[4, 9]) == [(1, 8.0), (2, 6.0)]
    assert by_check(points, checks=[]) == []


def coloured(path: Path) -> int:
    """How many pixels are neither black, white nor grey."""
    picture = matplotlib.image.imread(path)[..., :3]
    return int((picture.max(axis=-1) - picture.min(axis=-1) > 0.3).sum())


def test_losses_are_drawn_with_published_points_in_their_colours(tmp_path):
    curves = {"train": [(1, 2.0), (2, 1.0)], "validation": [(1, 2.2), (2, 1.2)]}
    marks = {"train": [[1, 2.3], [69, 0.35]]}
    draw_losses(tmp_path / "plain.png", curves, {}, "losses", "epoch")
    draw_losses(tmp_path / "marked.png", {"train": curves["train"]}, marks, "losses", "epoch")
    draw_losses(tmp_path / "one.png", {"train": curves["train"]}, {}, "losses", "epoch")
    assert coloured(tmp_path / "plain.png") > coloured(tmp_path / "one.png") > 0
    hues = {
        tuple((255 * pixel).round())
        for pixel in matplotlib.image.imread(tmp_path / "marked.png").reshape(-1, 4)
    }
    assert (31, 119, 180, 255) in hues  # the first colour
    assert (255, 127, 14, 255) not in hues  # and no second one


def test_a_metric_may_have_a_comma_in_its_name(tmp_path):
    CurveLogger(tmp_path).log_metrics({"train/a,b": 0.5, "train/c": 1.5}, step=3)
    assert read_curves(tmp_path) == {"train/a,b": [(3, 0.5)], "train/c": [(3, 1.5)]}
