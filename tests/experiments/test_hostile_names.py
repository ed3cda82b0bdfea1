"""A test set of hostile names through whole commands: each has its score, its recordings and its picture."""

import contextlib
import csv
import io
import json
import os
import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import numpy as np
import pytest
import soundfile

from experiments import compare, figures, listen
from experiments.ratings import COLUMNS, read_ratings
from experiments.run import main
from signals.names import file_names, one_line

pytestmark = pytest.mark.slow  # whole runs over 34 names

NAMES = [
    "!$first$ of_all$",
    "take_A$B_-_L$D",
    r"\frac{$x^{2$",
    "[red]x[bold]",
    "[link=x]",
    "<script>alert(1)<script>",
    "a & b &amp;",
    """it's "quoted" `so`""",
    "100%20 %s {0}",
    "a#b",
    "what?x=1",
    "*",
    "[a-z]*",
    "two\nlines",
    "a\ttab",
    "carriage\rreturn",
    "😀👩‍👩‍👧",
    "e\u0301te\u0301",
    "שלום \u202egnp",
    "-rf",
    "=1+1",
    "a,b;c|d",
    "end ",
    "a..b",
    "back\\slash",
    ":smile:",
    "\x1b[31m$red_{$",  # the first in order: that of the figure
    "x" * 251,
    "ö" * 125,
]
NESTED = ["[red]x[/]", "[/x]", "</b>", "a/b", "a_b"]  # of a corpus whose ids are paths
SPEAKERS = ["$p$", "[p]", "<b>p & q", "p,|\n"]
LOST = "caf\udce9.wav"


def write_wave(path: Path, seed: int) -> None:
    wave = np.random.default_rng(seed).standard_normal(14_400) * np.linspace(0.05, 0.2, 14_400)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:  # soundfile opens no name that is not UTF-8
        soundfile.write(file, wave, 48_000, "PCM_16", format="WAV")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("hostile")
    for seed, name in enumerate(NAMES):
        write_wave(root / "VCTK-Corpus" / "wav48" / SPEAKERS[seed % len(SPEAKERS)] / f"{name}.wav", seed)
    write_wave(root / "VCTK-Corpus" / "wav48" / "plain" / LOST, 100)
    for seed, name in enumerate(NESTED):
        write_wave(root / "AudioStock" / f"{name}.wav", 200 + seed)
    (root / "AudioStock" / "tracks.txt").write_text("".join(f"{name}.wav\n" for name in NESTED))
    return root


def done(*command: str) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(list(command))
    return code, out.getvalue(), err.getvalue()


@pytest.fixture(scope="module")
def ran(corpus, tmp_path_factory) -> tuple[Path, str, str]:
    """Where Spline was tested on all of them, and what was said."""
    folder = tmp_path_factory.mktemp("ran")
    settings = [
        "datasets.vctk.division=all",
        "datasets.vctk.release=0.80",
        "data.workers=1",
        f"data.root={corpus}",
    ]
    with contextlib.chdir(folder):
        command = ["--row", "Spline", "--preset", "smoke", *settings]
        more = ["--paper", "audiosr", "--cutoff", "4000", "pictures=100", "datasets.esc50=null"]
        code, out, err = done(*command, *more, "data.test_files=null")
        assert (code, [line for line in err.splitlines() if "run.py" in line]) == (0, [])
        more = ["--paper", "audioedsr", "--table", "table3", "--scale", "2", "pictures=1"]
        code, drawn, err = done(*command, *more, "data.test_files=null")
        assert (code, [line for line in err.splitlines() if "run.py" in line]) == (0, [])
    return folder, out, drawn


@pytest.fixture
def inside(ran, monkeypatch) -> Path:
    monkeypatch.chdir(ran[0])
    return ran[0]


def record_in(folder: Path, dataset: str = "vctk", paper: str = "audiosr") -> tuple[Path, dict]:
    records = (
        (path.parent, json.loads(path.read_text())) for path in folder.glob(f"runs/{paper}/*/record.json")
    )
    ((place, record),) = (found for found in records if found[1]["dataset"] == dataset)
    return place, record


def test_every_name_has_its_score(inside):
    _, record = record_in(inside)
    assert set(record["files"]) == set(NAMES)
    assert {scores["group"] for scores in record["files"].values()} == set(SPEAKERS)
    assert not record["not_finite"].get("LSD")
    assert set(record_in(inside, "audiostock")[1]["files"]) == set(NESTED)


def test_a_name_that_is_no_text_costs_itself_and_is_named(ran):
    _, out, _ = ran
    told = [line for line in out.splitlines() if line.startswith("left out")]
    assert len(told) == 1 and told[0].endswith(r"plain/caf\xe9.wav: its name is not UTF-8: rename it")
    assert "is not drawn" not in out


@pytest.mark.parametrize("dataset", ["vctk", "audiostock"])
def test_every_name_has_its_recordings_and_its_picture(inside, dataset):
    folder, record = record_in(inside, dataset)
    names = set(file_names(record["files"]).values())
    assert len(names) == len(record["files"])
    assert {path.name.removesuffix(".png") for path in folder.glob("recordings/*.png")} == names
    for kind in ("input", "estimate", "reference"):
        assert {path.name.removesuffix(".wav") for path in folder.glob(f"recordings/{kind}/*")} == names


def test_every_name_is_verified(inside):
    code, out, _ = done("--verify", "runs/audiosr")
    assert code == 0 and "2 of 2 records verified" in out
    for names in (NAMES, NESTED):
        assert f"{len(names)} of {len(names)} files scored again" in out


class Page(HTMLParser):
    def __init__(self, path: Path):
        super().__init__()
        self.tags, self.addresses, self.text, self.data = [], [], "", []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        given = dict(attrs)
        self.addresses += [given[key] for key in ("src", "href") if key in given]
        self.data += [given] if given.get("class") == "pair" else []

    def handle_data(self, data):
        self.text += data


@pytest.mark.parametrize(("dataset", "names"), [("vctk", NAMES), ("audiostock", NESTED)])
def test_the_page_of_a_record_shows_and_plays_all(inside, dataset, names):
    folder, _ = record_in(inside, dataset)
    page = Page(folder / "index.html")
    assert page.tags.count("script") == 1
    assert page.tags.count("audio") == 3 * len(names) and page.tags.count("img") == len(names)
    for address in page.addresses:
        parts = urlsplit(address)
        assert not (parts.query or parts.fragment or parts.scheme)
        assert (folder / unquote(parts.path)).exists(), address
    for name in names:
        assert one_line(name, keep="\n\t") in page.text


@pytest.mark.parametrize("form", ["terminal", "markdown", "csv", "html"])
def test_the_table_is_printed(inside, form, capsys):
    assert compare.main(["--paper", "audiosr", "--table", "table1", "--format", form]) == 0
    assert "Spline" in capsys.readouterr().out


@pytest.mark.parametrize("form", ["terminal", "markdown", "csv", "html"])
def test_two_sets_of_them_are_compared(inside, form, capsys):
    folder, _ = record_in(inside)
    assert compare.main([str(folder), str(folder), "--format", form]) == 0
    assert str(len(NAMES)) in capsys.readouterr().out


def test_the_figure_is_drawn(inside, recwarn):
    (recording,) = record_in(inside, paper="audioedsr")[0].glob("recordings/*.png")
    assert "$" in recording.name  # and so in the title of the figure
    assert figures.main(["--paper", "audioedsr", "--figure", "figure4"]) == 0
    assert Path("runs/audioedsr/figures/figure4.png").stat().st_size > 10_000
    assert not recwarn.list


def test_a_name_that_began_a_pattern_finds_no_other(inside):
    """`*.wav` is one recording of them, not all."""
    folder, _ = record_in(inside)
    assert (folder / "recordings" / "estimate" / "*.wav").is_file()


def test_listeners_hear_all(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for side in ("before", "after"):
        for seed, name in enumerate(NAMES):
            write_wave(tmp_path / side / SPEAKERS[seed % len(SPEAKERS)] / f"{name}.wav", seed)
    write_wave(tmp_path / "before" / SPEAKERS[0] / LOST, 1)
    assert listen.main(["before", "after", "--output", "pages/page.html"]) == 1  # for the lost one
    assert f"{len(NAMES)} pairs" in capsys.readouterr().out
    page = Page(tmp_path / "pages" / "page.html")
    assert page.tags.count("script") == 2  # of the page and of the test
    assert len(page.addresses) == 2 * len(NAMES)
    for address in page.addresses:
        assert (tmp_path / "pages" / unquote(urlsplit(address).path)).is_file(), address
    items = {(pair["data-generator"], pair["data-item"]) for pair in page.data}
    wanted = {(SPEAKERS[seed % len(SPEAKERS)], name) for seed, name in enumerate(NAMES)}
    assert items == {tuple(one_line(text, keep="\n\t") for text in pair) for pair in wanted}
    with open("ratings.csv", "w", newline="") as file:  # as the page's script quotes cells
        table = csv.writer(file, quoting=csv.QUOTE_ALL, lineterminator="\n")
        table.writerow(COLUMNS)
        for generator, item in items:
            for system, better in (("before", 0), ("after", 1)):
                table.writerow(["ann", generator, item, system, 3, better])
    assert {(generator, item) for _, generator, item in read_ratings([Path("ratings.csv")])} == items
    assert figures.main(["--paper", "audiosr", "--figure", "figure1", "--ratings", "ratings.csv"]) == 0


def test_no_line_of_a_command_is_spoilt(ran):
    for said in ran[1:]:
        assert not re.search("[\x00-\x09\x0b-\x1f\u202e\ud800-\udfff]", said)
        said.encode()
    assert os.fsencode(LOST) == b"caf\xe9.wav"
