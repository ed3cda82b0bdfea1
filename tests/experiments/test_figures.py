"""Figures drawn from records, by the real commands."""

import json
import shutil
from pathlib import Path

import matplotlib.image
import pytest

from experiments import figures, run
from experiments.configuration import load_paper, paper_names
from experiments.figures import figure_names, load_figure

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
        assert set(figure.columns) <= {column.key for column in figure.table.columns}
        assert all(figure.table.row(system) for system in figure.rows)
        assert {*figure.before, *figure.after} <= {"input", "reference"}
        assert figure.table.name in load_paper(paper)["tables"]


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
