"""A person's own method and corpus, and methods that are one run per scale: data for `run.py`."""

import json
import re
from pathlib import Path

import pytest

from experiments.configuration import Column, Row, Table, configure, load_corpus, paper_names
from experiments.run import guest_row, main
from experiments.runs import count_parameters
from signals.errors import UserError

README = (Path(__file__).parents[2] / "README.md").read_text()
SMALL = [
    "data.test_files=1",
    "pictures=0",
    "data.workers=1",
    "datasets.esc50=null",
    "datasets.audiostock=null",
]


BROKEN = """
from lightning_modules.single_stage import SingleStage
from lightning_modules.super_resolver import SuperResolver

class Unbuilt(SuperResolver):
    def __init__(self, rate):
        raise KeyError("depth")

class Divides(SuperResolver):
    def resolve(self, low, cutoff, seeds, reference):
        return low.wave / (1 // 0)

class Typo(SingleStage):
    defaults = {"trainng": {"steps": 5}}
"""


def block(kind: str) -> str:
    """The first fenced block of the README of a language."""
    return re.search(rf"^```{kind}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)[1]


@pytest.fixture
def mine(workplace) -> Path:
    """The README's tutorial, as files."""
    (workplace / "mine.py").write_text(block("python"))
    (workplace / "mine.yaml").write_text(block("yaml"))
    return workplace


def records(folder: Path) -> list[dict]:
    return [json.loads(path.read_text()) for path in sorted(folder.glob("runs/audiosr/*/record.json"))]


def smoke(*arguments: str) -> int:
    return main(["--paper", "audiosr", "--preset", "smoke", *SMALL, *arguments])


# Methods --------------------------------------------------------------------------------------------------


def test_the_tutorials_method_is_short():
    assert len(block("python").splitlines()) <= 60


def test_a_method_of_ones_own_is_trained_and_tested(mine, tiny_corpus, capsys):
    root = f"data.root={tiny_corpus}"
    assert smoke("--method", "mine.py:Net", "--row", "Unprocessed", root) == 0
    (run,) = [record for record in records(mine) if record["kind"] == "run"]
    scores = [record for record in records(mine) if record["kind"] == "score"]
    mine_too = [record for record in scores if record["system"] == "Net"]
    assert run["identity"]["options"]["channels"] == 16
    assert [record["cutoff_hz"] for record in mine_too] and len(mine_too) == 3
    assert all(record["runs"] == {"itself": run["id"]} for record in mine_too)
    assert re.search(r"│ Net +│ +\d", capsys.readouterr().out)
    assert smoke("--method", "mine.py:Net", "--row", "Unprocessed", root) == 0
    assert "6 cells were scored before" in capsys.readouterr().out


def test_its_settings_are_keys_and_its_text_names_it(mine, tiny_corpus):
    arguments = ["--method", "mine.py:Net", f"data.root={tiny_corpus}", "runs.guest.options.channels=4"]
    assert smoke(*arguments) == 0
    (mine / "mine.py").write_text(block("python").replace("0.2", "0.1"))
    assert smoke(*arguments) == 0
    runs = [record for record in records(mine) if record["kind"] == "run"]
    assert [run["identity"]["options"]["channels"] for run in runs] == [4, 4]
    assert len({run["identity"]["source"] for run in runs}) == 2


def test_a_method_without_weights_is_only_tested(workplace, tiny_corpus):
    assert smoke("--method", "sinc", "--row", "Unprocessed", f"data.root={tiny_corpus}") == 0
    assert {record["system"] for record in records(workplace)} == {"Sinc", "Unprocessed"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--method", "nobody.py:Net"], "no file nobody.py"),
        (["--method", "mine.py:Nett"], "no class Nett"),
        (["--method", "mine.py:nn"], "no class nn"),
        (
            ["--method", "mine.py:Net", "runs.guest.options.chanels=4"],
            "did you mean runs.guest.options.channels",
        ),
        (["--row", "Unprocessed", "--corpus", "none.yaml"], "--corpus none.yaml"),
        (["--row", "Unprocessed", "--corpus", "text.yaml"], "keys are needed"),
        (["--row", "Unprocessed", "--corpus", "wrong.yaml"], "pth"),
        (["--row", "Unprocessed", "--corpus", "binary.yaml"], "--corpus binary.yaml"),
        (["--method", "broken.py:Unbuilt"], "Unbuilt cannot be built: KeyError: 'depth'"),
        (["--method", "broken.py:Typo"], "defaults.trainng (did you mean defaults.training?)"),
    ],
)
def test_what_a_user_did_wrong_is_one_line(mine, tiny_corpus, capsys, arguments, message):
    (mine / "text.yaml").write_text("just a text")
    (mine / "wrong.yaml").write_text("corpus: folder\npth: here\n")
    (mine / "binary.yaml").write_bytes(bytes(range(128, 256)))
    (mine / "broken.py").write_text(BROKEN)
    assert smoke(*arguments, f"data.root={tiny_corpus}") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_a_method_that_fails_blocks_its_own_cells_only(mine, tiny_corpus, capsys):
    (mine / "broken.py").write_text(BROKEN)
    assert smoke("--method", "broken.py:Divides", "--row", "Unprocessed", f"data.root={tiny_corpus}") == 1
    assert "no number for Divides: ZeroDivisionError" in capsys.readouterr().err
    assert {record["system"] for record in records(mine)} == {"Unprocessed"}


def test_a_stage_that_is_no_method_is_refused():
    with pytest.raises(UserError, match="unknown method"):
        guest_row("vae")


# Corpora --------------------------------------------------------------------------------------------------


def test_a_corpus_of_ones_own_takes_all_places(mine, tiny_corpus):
    (mine / "recordings").symlink_to(tiny_corpus / "speech")
    assert smoke("--method", "mine.py:Net", "--corpus", "mine.yaml") == 0
    run, *scores = sorted(records(mine), key=lambda record: record["kind"])
    assert all(record["stand_in"] for record in scores)
    ids = {id_ for record in scores for id_ in record["files"]}
    assert ids <= {f"speech_{group}/1" for group in "abcdef"}
    assert run["identity"]["data"]["mixture"]


def test_a_corpus_file_speaks_of_its_own_place(mine):
    deep = mine / "deep" / "mine.yaml"
    deep.parent.mkdir()
    deep.write_text("root: ../there\npath: here\n")
    corpus = load_corpus(deep)
    assert corpus["corpus"] == "folder"
    assert Path(corpus["root"]).resolve() == mine / "there"
    config = configure("audiosr", "smoke", corpus=corpus)
    assert {part["path"] for mixture in config["mixtures"].values() for part in mixture.values()} == {"here"}
    assert {dataset["average"] for dataset in config["datasets"].values()} == {"file"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("root: 5", "root=5: text is needed"),
        ("root: null", "root=None: text is needed"),
        ("path: 2024", 'path=2024: text is needed; "quotes" make it so'),
        ("weight: x", "weight=x: a number from 0 on"),
        ("weight: -1", "weight=-1: a number from 0 on"),
        ("weight: .nan", "weight=nan: a number from 0 on"),
        ("min_bandwidth: [1]", "min_bandwidth=.1.: a number from 0 on"),
    ],
)
def test_a_corpus_file_with_values_of_another_kind_is_one_line(workplace, text, message):
    (workplace / "mine.yaml").write_text(text)
    with pytest.raises(UserError, match=message):
        load_corpus(workplace / "mine.yaml")


# One run for each scale -----------------------------------------------------------------------------------


def row_of(**changes) -> Row:
    empty = {"parts": {}, "by": None, "runs": {}, "settings": {}, "data": {}, "protocol": {}}
    return Row("System", "method", **{**empty, **changes}, published={}, std={}, notes={})


def column_of(**coordinates) -> Column:
    return Column(
        **(dict.fromkeys(("dataset", "scale", "cutoff_hz", "loss")) | coordinates), key="c", metric="LSD"
    )


def test_a_row_may_have_one_run_for_each_scale():
    row = row_of(by="scale", runs={2: "net_x2", 4: "net_x4"})
    table = Table("paper", "table", "", (), (row,))
    assert table.parts(row, column_of(scale=4)) == {"itself": "net_x4"}
    with pytest.raises(UserError, match="no run for scale 3"):
        table.parts(row, column_of(scale=3))
    assert table.parts(row_of(runs={None: "net"}), column_of(scale=3)) == {"itself": "net"}
    assert table.parts(row_of(parts={"vae": "vae"}), column_of()) == {"vae": "vae"}


@pytest.mark.parametrize("paper", paper_names())
def test_a_method_of_parts_is_a_guest_with_a_run_for_each(paper):
    row, guests = guest_row("nvsr")
    assert row.parts == {"mel": "guest_mel", "vocoder": "guest_vocoder"}
    config = configure(paper, "full", ["runs.guest_mel.training.batch=3"], guests=guests)
    assert config["runs"]["guest_mel"]["training"]["batch"] == 3
    assert [count_parameters(config, run)[0] for run in row.parts.values()] == [591_494, 33_165_185]


def test_a_method_of_parts_that_says_nothing_of_them_is_none():
    with pytest.raises(UserError, match="method audiosr has parts that are trained apart"):
        guest_row("audiosr")
