"""Loss curves over the attempts of a run."""

from pathlib import Path

import matplotlib.image
import pytest

from callbacks.curves import draw_curves, read_curves


@pytest.fixture
def folder(tmp_path) -> Path:
    """A run that was interrupted after step 30 and went on from its checkpoint of step 20."""
    attempts = [
        "epoch,step,train/mel,held_out/model\n0,10,4.0,\n0,20,,3.5\n1,30,9.0,\n",
        "epoch,held_out/model,step,train/mel\n1,,30,2.0\n1,2.5,40,\n",
    ]
    for number, text in enumerate(attempts):
        attempt = tmp_path / "curves" / f"attempt_{number:03d}"
        attempt.mkdir(parents=True)
        (attempt / "metrics.csv").write_text(text)
    return tmp_path


def test_a_later_attempt_replaces_what_it_repeats(folder):
    assert read_curves(folder) == {
        "train/mel": [(10, 4.0), (30, 2.0)],
        "held_out/model": [(20, 3.5), (40, 2.5)],
    }


def test_no_attempt_has_no_curves(tmp_path):
    assert read_curves(tmp_path) == {}


@pytest.mark.parametrize("values", ["positive", "negative", "none"])
def test_curves_are_drawn(folder, values):
    first = folder / "curves" / "attempt_000" / "metrics.csv"
    if values == "negative":  # no logarithmic axis
        first.write_text(first.read_text().replace("4.0", "-4.0"))
    if values == "none":
        for file in folder.glob("curves/*/metrics.csv"):
            file.unlink()
    draw_curves(folder, "a run")
    picture = matplotlib.image.imread(folder / "curves.png")[..., :3]
    coloured = picture.max(axis=-1) - picture.min(axis=-1) > 0.3
    assert coloured.any() == (values != "none")
