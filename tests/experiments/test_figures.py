"""Figures drawn from records, by the real commands."""

import json
import shutil
from pathlib import Path

import matplotlib.image
import pytest

from callbacks.curves import read_curves
from experiments import figures, run
from experiments.configuration import configure, load_paper, load_table, paper_names
from experiments.figures import Curves, Figure, draw, figure_names, load_figure
from signals.errors import UserError

DRAWN = Path("runs/audioedsr/figures")


@pytest.fixture
def command(tiny_corpus, workplace, tmp_path_factory):
    stores = tmp_path_factory.getbasetemp() / "audioedsr"

    def done(*arguments: str) -> int:
        small = ["data.test_files=1", "data.workers=1", "trainer.threads=1"]
        where = [f"data.root={tiny_corpus}", f"data.folder={stores}"]
        return run.main(["--paper", "audioedsr", "--preset", "smoke", *small, *where, *arguments])

    return done


@pytest.mark.parametrize("paper", [paper for paper in paper_names() if figure_names(paper)])
def test_every_figure_names_rows_and_columns_of_its_table(paper):
    for name in figure_names(paper):
        figure = load_figure(paper, name)
        assert figure.table.name in load_paper(paper)["tables"]
        if isinstance(figure, Curves):
            (trained,) = figure.table.row(figure.row).runs.values()
            weights = configure(paper, "full", table=figure.table.config)["runs"][trained]["weights"]
            learnt = {f"train/{term}" for term, weight in weights.items() if weight}
            assert set(figure.curves.values()) <= {*learnt, "held_out/model", "held_out/constant"}
            assert set(figure.published) <= set(figure.curves)
            assert figure.x in ("step", "epoch")
        else:
            assert set(figure.columns) <= {column.key for column in figure.table.columns}
            assert all(figure.table.row(system) for system in figure.rows)
            assert {*figure.before, *figure.after} <= {"input", "reference"}


def test_a_run_draws_the_figures_of_its_table(command, capsys):
    assert command("--row", "Spline", "--row", "AudioEDSR") == 0
    assert f"figure4: {DRAWN / 'figure4.png'}" in capsys.readouterr().out
    assert not (DRAWN / "figure5.png").exists()
    picture = matplotlib.image.imread(DRAWN / "figure4.png")
    assert picture.shape[1] > 2 * picture.shape[0]  # six panels for each of three scales
    assert "audioedsr/figures/figure4.png" in Path("runs/index.html").read_text()


def test_an_empty_input_is_empty_and_its_output_is_scored(command):
    assert command("--table", "tones", "--row", "AudioEDSR", "--row", "Spline") == 0
    found = [json.loads(path.read_text()) for path in Path("runs/audioedsr").glob("*/record.json")]
    tones = {r["system"]: r["mean"] for r in found if r["kind"] == "score" and r["dataset"] == "empty"}
    assert tones["Spline"] == {"tone": -240}
    assert tones["AudioEDSR"]["tone"] > -200  # biases
    assert figures.main(["--paper", "audioedsr", "--figure", "figure5"]) == 0
    assert (DRAWN / "figure5.png").exists()


def test_without_records_or_recordings_it_says_so(command, capsys):
    assert figures.main(["--paper", "audioedsr"]) == 2
    assert "figures.py: audioedsr figure4: no records below runs yet" in capsys.readouterr().err
    assert figures.main(["--paper", "audioedsr", "--figure", "figure6"]) == 2
    assert "has no figure figure6 (did you mean figure" in capsys.readouterr().err
    assert command("--row", "Spline", "pictures=0") == 0
    assert "figure4 is not drawn: Spline kept no recording in common" in capsys.readouterr().out


def test_a_damaged_recording_is_named(command, capsys):
    assert command("--row", "Spline") == 0
    for path in Path("runs/audioedsr").glob("*/recordings/estimate/*.wav"):
        path.write_bytes(b"RIFF")
    shutil.rmtree(DRAWN)
    capsys.readouterr()
    assert figures.main(["--paper", "audioedsr", "--figure", "figure4"]) == 2
    assert ".wav is damaged: remove " in capsys.readouterr().err


# Losses ---------------------------------------------------------------------------------------------------

LOSSES = {"train": "train/l2", "validation": "held_out/model"}


def losses(**changes) -> Curves:
    own = {"title": "Losses", "row": "AudioEDSR", "curves": LOSSES, "x": "epoch", **changes}
    return Curves("audioedsr", "losses", table=load_table("audioedsr", "table3"), **own)


def test_the_losses_of_a_row_are_those_of_the_run_behind_it(command, monkeypatch):
    assert command("--row", "AudioEDSR") == 0
    drawn = {}
    monkeypatch.setattr(figures, "draw_losses", lambda path, **what: (path.touch(), drawn.update(what)))
    assert draw(losses(published={"train": [[1, 2.3]]}), Path("runs")) == DRAWN / "losses.png"
    scored = [json.loads(path.read_text()) for path in Path("runs/audioedsr").glob("*/record.json")]
    columns = losses().table.columns
    row = next(r for r in scored if r["kind"] == "score" and r["scale"] == columns[0].scale)
    (run_,) = row["runs"].values()
    kept = read_curves(Path("runs/audioedsr") / run_)
    assert drawn["curves"]["validation"] == [
        (n, value) for n, (_, value) in enumerate(kept[LOSSES["validation"]], 1)
    ]
    assert [epoch for epoch, _ in drawn["curves"]["train"]] == [1, 2]  # of two steps each
    assert drawn["marks"] == {"train": [[1, 2.3]]}
    assert drawn["x"] == "epoch"
    assert f"run {run_}; preset smoke, protocol published" in drawn["title"]
    draw(losses(x="step"), Path("runs"))
    assert drawn["curves"] == {name: kept[curve] for name, curve in LOSSES.items()}


def test_losses_that_are_not_there_are_one_line(command):
    with pytest.raises(UserError, match=r"no records below runs yet: run.py --paper audioedsr --table"):
        draw(losses(), Path("runs"))
    assert command("--row", "Spline", "--row", "AudioEDSR") == 0
    with pytest.raises(UserError, match=r"kept no curve train/mel .it kept: train/l2, held_out/model"):
        draw(losses(curves={"train": "train/mel"}), Path("runs"))
    with pytest.raises(UserError, match="Spline has no run"):
        draw(losses(row="Spline"), Path("runs"))
    for path in Path("runs/audioedsr").glob("*/curves.csv"):
        path.unlink()
    with pytest.raises(UserError, match=r"kept no curve train/l2 .it kept: none"):
        draw(losses(), Path("runs"))
    assert not (DRAWN / "losses.png").exists()


def test_both_kinds_are_told_apart():
    assert isinstance(load_figure("audioedsr", "figure4"), Figure)
    assert isinstance(load_figure("fma_unet", "figure1"), Curves)


def test_a_run_draws_the_losses_of_its_table(tiny_corpus, workplace, tmp_path_factory, capsys):
    where = [f"data.root={tiny_corpus}", f"data.folder={tmp_path_factory.getbasetemp() / 'fma_unet'}"]
    small = ["--preset", "smoke", "data.workers=1", "trainer.threads=1"]
    assert run.main(["--paper", "fma_unet", "--row", "U-Net", *small, *where]) == 0
    assert "figure1: runs/fma_unet/figures/figure1.png" in capsys.readouterr().out
    assert figures.main(["--paper", "fma_unet", "--figure", "figure3"]) == 2
    assert "fma_unet figure3: no records below runs yet" in capsys.readouterr().err
