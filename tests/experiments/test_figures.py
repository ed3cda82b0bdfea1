"""Figures drawn from records, by the real commands."""

import json
import shutil
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest

from callbacks.curves import read_curves
from experiments import figures, ratings, run
from experiments.configuration import configure, load_paper, load_table, paper_names
from experiments.figures import Curves, Figure, Ratings, draw, figure_names, load_figure
from experiments.generate import GENERATORS
from experiments.ratings import COLUMNS, Answer, Share, read_ratings, share
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
        if isinstance(figure, Ratings):
            assert set(figure.generators) == set(GENERATORS)
            continue
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


def test_all_kinds_are_told_apart():
    assert isinstance(load_figure("audiosr", "figure1"), Ratings)
    assert isinstance(load_figure("audioedsr", "figure4"), Figure)
    assert isinstance(load_figure("fma_unet", "figure1"), Curves)


def test_a_run_draws_the_losses_of_its_table(tiny_corpus, workplace, tmp_path_factory, capsys):
    where = [f"data.root={tiny_corpus}", f"data.folder={tmp_path_factory.getbasetemp() / 'fma_unet'}"]
    small = ["--preset", "smoke", "data.workers=1", "trainer.threads=1"]
    assert run.main(["--paper", "fma_unet", "--row", "U-Net", *small, *where]) == 0
    assert "figure1: runs/fma_unet/figures/figure1.png" in capsys.readouterr().out
    assert figures.main(["--paper", "fma_unet", "--figure", "figure3"]) == 2
    assert "fma_unet figure3: no records below runs yet" in capsys.readouterr().err


def test_a_run_draws_audiosr_s_spectrograms(tiny_corpus, workplace, tmp_path_factory, capsys):
    """Figure 3: input, the systems that are built, reference, of speech, music and effects."""
    where = [f"data.root={tiny_corpus}", f"data.folder={tmp_path_factory.getbasetemp() / 'audiosr'}"]
    small = ["--preset", "smoke", "data.test_files=1", "data.workers=1", "trainer.threads=1"]
    assert run.main(["--paper", "audiosr", "--row", "AudioSR", *small, *where]) == 0
    assert "figure3: runs/audiosr/figures/figure3.png" in capsys.readouterr().out
    assert figures.main(["--paper", "audiosr"]) == 0
    printed = capsys.readouterr().out
    assert "figure1 is not drawn: it needs --ratings" in printed
    assert "runs/audiosr/figures/figure3.png" in printed
    picture = matplotlib.image.imread("runs/audiosr/figures/figure3.png")
    assert picture.shape[1] > 1.5 * picture.shape[0]  # five panels for each of three corpora


# What listeners say ---------------------------------------------------------------------------------------


def write_ratings(path: str, lines: list[tuple]) -> Path:
    """lines: (listener, generator, item, before, after, preferred)."""
    rows = [",".join(COLUMNS)]
    for listener, generator, item, before, after, preferred in lines:
        for system, rating in (("after", after), ("before", before)):
            rows.append(f"{listener},{generator},{item},{system},{rating},{int(preferred == system)}")
    Path(path).write_text("\n".join(rows) + "\n")
    return Path(path)


def test_ratings_are_read_from_all_files(workplace):
    one = write_ratings(
        "one.csv", [("a", "musicgen", "001", 2, 4, "after"), ("a", "musicgen", "002", 3, 3, "")]
    )
    two = write_ratings("two.csv", [("b", "musicgen", "001", 5, 1, "before")])
    assert read_ratings([one, two]) == {
        ("a", "musicgen", "001"): Answer(2, 4, "after"),
        ("a", "musicgen", "002"): Answer(3, 3, ""),
        ("b", "musicgen", "001"): Answer(5, 1, "before"),
    }
    quoted = one.read_text().replace("a,musicgen", '"a","musicgen"')
    one.write_text("\ufeff" + quoted.replace("\n", "\r\n"))  # as a spreadsheet saves it
    assert len(read_ratings([one, two])) == 3


def test_the_interval_is_over_listeners_and_items():
    """Against two independent means: of listeners' and of items' offsets, whose variances add."""
    rng = np.random.default_rng(1)
    listeners, items = rng.standard_normal(40), rng.standard_normal(60)
    values = {(f"l{i}", f"i{j}"): 3 + u + v for i, u in enumerate(listeners) for j, v in enumerate(items)}
    found = share(values)
    assert found.mean == pytest.approx(3 + listeners.mean() + items.mean())
    expected = 2 * 1.96 * np.sqrt(listeners.var() / 40 + items.var() / 60)
    assert np.diff(found.interval)[0] == pytest.approx(expected, rel=0.06)
    assert share({("a", str(n)): 4.0 for n in range(5)}) == Share(4.0, (4.0, 4.0))
    assert share({("a", str(n)): 4.0 for n in range(4)}).interval is None  # of too few items
    some = {place: value for n, (place, value) in enumerate(values.items()) if n % 7 == 0}
    low, high = share(some).interval  # not everyone has heard everything
    assert low < share(some).mean < high


def test_ratings_are_drawn_with_their_numbers(workplace, monkeypatch):
    lines = [(who, "musicgen", f"{n:03}", 2, 4, "after") for who in "ab" for n in range(6)]
    lines += [(who, "mine", f"{n:03}", 3, 3, "") for who in "ab" for n in range(3)]
    write_ratings("ratings.csv", lines)
    command = ["--paper", "audiosr", "--figure", "figure1", "--ratings", "ratings.csv"]
    assert figures.main(command) == 0
    assert matplotlib.image.imread("runs/audiosr/figures/figure1.png").shape[1] > 500
    drawn = {}
    monkeypatch.setattr(figures, "draw_ratings", lambda path, **what: (path.touch(), drawn.update(what)))
    assert figures.main(command) == 0
    assert list(drawn["lines"]) == ["MusicGen", "mine"]  # the paper's first, AudioLDM was not rated
    assert "listeners: 2;" in drawn["title"]
    seen = {}
    for kind in ("set_xticklabels", "text", "errorbar"):
        monkeypatch.setattr(
            f"matplotlib.axes.Axes.{kind}",
            lambda axis, *given, of=kind, **more: seen.setdefault(of, []).append(given),
        )
    ratings.draw_ratings(Path("figure.png"), **drawn)
    assert list(seen["set_xticklabels"][0][0]) == [
        "MusicGen\n6 items, 12 answers",
        "mine\n3 items, 6 answers",
    ]
    assert [given[2] for given in seen["text"]] == ["100 %", "100 %"]
    means = [given[1] for given in seen["errorbar"]]
    assert means == [100, 2, 4, 0, 3, 3]  # preferred after, rated before and after, of each
    assert {tuple(map(tuple, given[2])) for given in seen["errorbar"]} == {((0,), (0,))}  # all agree


def test_ratings_for_a_figure_without_any_are_refused(workplace, capsys):
    assert figures.main(["--paper", "audiosr", "--figure", "figure3", "--ratings", "ratings.csv"]) == 2
    assert "no figure of these is drawn from ratings" in capsys.readouterr().err


def test_without_ratings_it_says_where_they_come_from(workplace, capsys):
    assert figures.main(["--paper", "audiosr", "--figure", "figure1"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "audiosr figure1 is what listeners say: listen.py makes the page" in line


HEADER = ",".join(COLUMNS)
GOOD = "a,musicgen,001,before,3,0\na,musicgen,001,after,4,1\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("listener,rating\na,3\n", "line 1: the columns are not listener,generator"),
        (f"{HEADER}\n{GOOD}a,musicgen,002,before,6,0\n", "line 4: rating '6' is no whole number from 1 to 5"),
        (f"{HEADER}\n{GOOD}a,musicgen,002,before,2.5,0\n", "line 4: rating '2.5'"),
        (f"{HEADER}\n{GOOD}a,musicgen,002,during,3,0\n", "line 4: system 'during' is none of before, after"),
        (f"{HEADER}\n{GOOD}a,musicgen,002,before,3,yes\n", "line 4: preferred 'yes' is not 0 or 1"),
        (f"{HEADER}\n{GOOD}a,musicgen,002,before,3\n", "line 4: 5 cells, not 6"),
        (f"{HEADER}\n{GOOD},musicgen,002,before,3,0\n", "line 4: listener, generator or item is empty"),
        (f"{HEADER}\n{GOOD}{GOOD}", "line 4: a rates musicgen/001 before twice"),
        (f"{HEADER}\n{GOOD}a,musicgen,002,before,3,0\n", "line 4: a on musicgen/002: no rating of after"),
        (f"{HEADER}\n{GOOD.replace('3,0', '3,1')}", "line 3: a on musicgen/001: both are preferred"),
        (f"{HEADER}\n", "ratings.csv: no ratings"),
        ("", "line 1: the columns are not"),
        (b"\xff\xfe\x00", "ratings.csv: 'utf-8' codec"),
    ],
)
def test_broken_ratings_are_named_by_file_and_line(workplace, capsys, content, message):
    path = Path("ratings.csv")
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert figures.main(["--paper", "audiosr", "--figure", "figure1", "--ratings", "ratings.csv"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("figures.py: ratings.csv")
    assert message in line
    assert not Path("runs").exists()
