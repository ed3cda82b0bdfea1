"""What must hold over whole tables: the demo corpus, identities, fine-tunings, and what is refused."""

import contextlib
import csv
import io
import itertools
import json
import os
import shutil
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from safetensors.torch import load_file

from experiments import compare
from experiments.configuration import changes, configure, load_paper, load_table, paper_names
from experiments.records import identity_hash, standing
from experiments.rows import Rows, tasks
from experiments.run import main
from experiments.runs import Runs

VCTK_ONLY = ("datasets.esc50=null", "datasets.audiostock=null")
QUICK = ("data.test_files=1", "pictures=0", "trainer.threads=1")


@dataclass
class Done:
    """A finished command."""

    code: int
    out: str
    err: str


def smoke(*arguments: str) -> Done:
    """Runs a command of AudioSR at `smoke` in the current directory."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(["--paper", "audiosr", "--preset", "smoke", *QUICK, *arguments])
    return Done(code, out.getvalue(), err.getvalue())


@pytest.fixture(scope="module")
def stores(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def command(tiny_corpus, stores):
    """Runs a command on the tiny corpus; all share their prepared stores."""

    def done(*arguments: str) -> Done:
        return smoke(f"data.root={tiny_corpus}", f"data.folder={stores}", "data.workers=1", *arguments)

    return done


def records(folder: Path, kind: str) -> list[dict]:
    found = (json.loads(path.read_text()) for path in folder.glob("runs/audiosr/*/record.json"))
    return [record for record in found if record["kind"] == kind]


def weights(folder: Path, run: str) -> dict:
    (record,) = (record for record in records(folder, "run") if record["run"] == run)
    return load_file(folder / "runs" / "audiosr" / record["id"] / "weights.safetensors")


# Without a corpus -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def on_the_demo(demo_corpus, tmp_path_factory) -> tuple[Path, Done]:
    """Where Table 1's rows without a diffusion were run on the demo corpus, and how that ended."""

    def linked(root: Path, workers: int) -> None:
        """In the place of what takes half a minute, and is done once for all tests."""
        shutil.copytree(demo_corpus, root, copy_function=os.link)

    folder = tmp_path_factory.mktemp("demo")
    with contextlib.chdir(folder), pytest.MonkeyPatch.context() as patch:
        patch.setattr("datamodules.library.write_demo_corpus", linked)
        return folder, smoke("--row", "GT-Mel", "--row", "Unprocessed", *VCTK_ONLY)


def test_without_a_corpus_the_demo_corpus_is_made(on_the_demo):
    folder, done = on_the_demo
    assert (done.code, done.err.count("run.py")) == (0, 0)
    parts = {path.name for path in (folder / "data" / "demo").iterdir() if path.is_dir()}
    assert {"VCTK-Corpus-0.92", "speech", "music", "effects", "ESC-50"} <= parts
    assert len(records(folder, "score")) == 6


def test_of_the_demo_corpus_nothing_is_a_result(on_the_demo, monkeypatch, capsys):
    folder, done = on_the_demo
    assert all(record["stand_in"] for record in records(folder, "score"))
    monkeypatch.chdir(folder)
    assert compare.main(["--paper", "audiosr", "--table", "table1", "--format", "csv"]) == 0
    lines = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert not [line for line in lines if line["reproduced"]]
    measured = [line for line in lines if line["measured"]]
    assert Counter(line["system"] for line in measured) == {"GT-Mel": 3, "Unprocessed": 3}
    assert {line["standing"] for line in measured if line["system"] == "Unprocessed"} == {"stand-in"}
    assert {line["standing"] for line in measured} <= {"stand-in", "untrained"}  # after four steps
    for line in measured:
        mark = compare.MARKS[line["standing"]]
        assert f"{line['published']} / {float(line['measured']):.2f}{mark}" in done.out


# The table of degradations --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def degradations(command, tmp_path_factory) -> Path:
    """Where Table 1's Unprocessed, then the table of degradations, were run under both protocols."""
    folder = tmp_path_factory.mktemp("degradations")
    with contextlib.chdir(folder):
        for protocol, table in itertools.product(("published", "aligned"), ("table1", "unprocessed")):
            rows = ("--row", "Unprocessed") if table == "table1" else ()
            done = command("--table", table, *rows, "--protocol", protocol, *VCTK_ONLY)
            assert (done.code, done.err.count("run.py")) == (0, 0)
            assert "scored before" not in done.out
    return folder


@pytest.mark.parametrize("protocol", ["published", "aligned"])
def test_every_cell_of_the_degradations_is_filled(degradations, protocol):
    table = load_table("audiosr", "unprocessed")
    lines = compare.lines(table, degradations / "runs", "smoke", protocol)
    assert Counter(line["system"] for line in lines) == {row.system: 4 for row in table.rows}
    assert not [line for line in lines if not line["measured"] or line["protocol"] != protocol]
    assert {line["standing"] for line in lines} == {"demo"}


def test_records_of_tables_and_protocols_do_not_collide(degradations):
    cells = Counter((record["system"], record["protocol"]) for record in records(degradations, "score"))
    systems = {row.system: 4 for row in load_table("audiosr", "unprocessed").rows} | {"Unprocessed": 3}
    assert cells == {(system, p): n for system, n in systems.items() for p in ("published", "aligned")}


def test_a_row_is_scored_under_its_own_rule(degradations):
    """Whatever the protocol's is; and where both say the same, the numbers are the same."""
    means = {
        (record["system"], record["protocol"], record["cutoff_hz"]): record["mean"]["LSD"]
        for record in records(degradations, "score")
    }
    for row in load_table("audiosr", "unprocessed").rows:
        for hertz in (4000, 6000, 8000, 12000):
            both = {means[row.system, protocol, hertz] for protocol in ("published", "aligned")}
            assert len(both) == 1
    assert (
        len({means[row.system, "published", 4000] for row in load_table("audiosr", "unprocessed").rows}) > 4
    )
    for hertz in (4000, 8000, 12000):
        for protocol, rule in (("published", "stft_hard"), ("aligned", "polyphase")):
            row = f"{rule}, 48 kHz, float"
            assert means["Unprocessed", protocol, hertz] == means[row, protocol, hertz]


def test_a_changed_protocol_is_never_a_reproduction(degradations):
    """Records as they are, as if a full run had scored the whole split."""
    for record in records(degradations, "score"):
        whole = record | {"preset": "full", "changes": [], "expected": record["files_used"]}
        exact = record["system"] == "Unprocessed"
        assert whole["exact"] == exact
        reproduced = exact and record["protocol"] == "published"
        assert standing(whole, None, True, "LSD") == ("reproduction" if reproduced else "partial")
        assert standing(whole | {"exact": False}, None, True, "LSD") == "partial"


# Identities -----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_no_two_numbers_have_one_identity(tiny_corpus, stores, workplace):
    from datamodules.library import Library

    library = Library(str(tiny_corpus), str(stores), workers=1, report=lambda line: None)
    meanings: dict[str, set] = {}
    for paper in filter(compare.built, paper_names()):
        protocols = configure(paper, "smoke")["protocols"]
        for name, protocol in itertools.product(load_paper(paper)["tables"], protocols):
            table = load_table(paper, name)
            config = configure(paper, "smoke", table=table.config) | {"preset": "smoke", "changes": []}
            for run in config["runs"].values():
                run |= {"released": __file__} if "released" in run else {}
            runs = Runs(paper, config, library, print)
            rows = Rows(table, config, protocol, library, runs, print)
            for row in table.rows:
                for task in (task for task in tasks(table, row, config) if task.dataset):
                    what = (row.method, table.parts(row, task), row.settings, row.data, row.protocol)
                    where = (paper, table.config, protocol, replace(task, key="", metric=""))
                    hash_ = identity_hash(rows.identity(row, task))
                    meanings.setdefault(hash_, set()).add(str((row.system, what, where)))
    assert len(meanings) >= 2 * (3 * 9 + 3 + 5 * 9 + 9 * 4)  # AudioSR's alone
    assert [found for found in meanings.values() if len(found) > 1] == []
    assert not list(workplace.iterdir())


# Fine-tuning ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fine_tuned(command, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("speech")
    with contextlib.chdir(folder):
        done = command("--row", "AudioSR-Speech", *VCTK_ONLY)
        assert (done.code, done.err.count("run.py")) == (0, 0)
    return folder


def test_a_fine_tuning_is_judged_by_its_start(fine_tuned):
    runs = {record["run"]: record for record in records(fine_tuned, "run")}
    assert runs.keys() == {"vae", "ldm", "vocoder", "speech"}
    assert runs["speech"]["identity"]["start"] == runs["ldm"]["id"]
    assert {run for run, record in runs.items() if "start" in record["held_out"]} == {"speech"}
    held_out = runs["speech"]["held_out"]
    assert len({held_out[kind] for kind in ("start", "trained", "untrained")}) == 3
    assert {record["runs"]["ldm"] for record in records(fine_tuned, "score")} == {runs["speech"]["id"]}


def test_a_fine_tuning_counts_its_own_batches(fine_tuned):
    seen = {run: int(weights(fine_tuned, run)["batches_seen"]) for run in ("ldm", "speech")}
    assert seen == {"ldm": 4, "speech": 2}


def test_a_fine_tuning_that_learns_nothing_is_its_start(fine_tuned, command, workplace):
    """So it starts from those weights, and keeps the scale of their latents."""
    for record in records(fine_tuned, "run"):
        if record["run"] != "speech":
            folder = Path("runs", "audiosr", record["id"])
            shutil.copytree(fine_tuned / folder, workplace / folder)
    done = command("--row", "AudioSR-Speech", "runs.speech.optimizer.lr=0.0", *VCTK_ONLY)
    assert (done.code, done.err.count("run.py")) == (0, 0)
    start, tuned = (weights(workplace, run) for run in ("ldm", "speech"))
    assert start.keys() == tuned.keys()
    changed = {name for name in start if not start[name].equal(tuned[name])}
    averaged = {name for name in changed if name.startswith("averaged.")}  # moves on to what it averages
    assert changed - averaged == {"batches_seen"}
    assert "latent_sums" in start


# What is refused ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "setting", "message"),
    [
        ("GT-Mel", "runs.vocoder.training.steps=3", "runs.vocoder.training.steps must be a multiple"),
        ("AudioSR", "runs.vae.start=vae", "run vae stands on itself"),
        ("AudioSR-Speech", "mixtures.vctk.vctk.weight=0", "a weight above 0"),
        ("Unprocessed", "seed=-1", "a whole number from 0 on"),
        ("AudioSR", "method.eta=abc", "method.eta=abc"),
        ("Unprocessed", "data.test_files=abc", "data.test_files=abc: a number"),
        ("GT-Mel", "runs.vocoder.options.model.channels=100", "channels"),
        ("Unprocessed", "protocols.published.metrics.SNR=pesq", "unknown metric pesq"),
    ],
)
@pytest.mark.usefixtures("fine_tuned")  # the stores are prepared: their bars are on stderr, too
def test_what_cannot_be_run_is_one_line(command, workplace, row, setting, message):
    done = command("--row", row, setting, *VCTK_ONLY)
    assert done.code == 2
    (line,) = done.err.splitlines()
    assert line.startswith("run.py: ")
    assert message in line
    assert not (workplace / "runs").exists()


# What counts as a change ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("method.steps=2", []),
        ("method.eta=null", []),
        ("runs.vae.optimizer.lr=1e-3", []),
        ("runs.vae.options.model.channels=[8,8,16,16]", []),
        ("trainer.precision=32-true", []),
        ("method.steps=4", ["method.steps=4"]),
        ("trainer.precision=bf16-mixed", ["trainer.precision=bf16-mixed"]),
        ("trainer.accelerator=cpu", []),
        ("data.root=elsewhere", []),
        ("data.test_files=1", ["data.test_files=1"]),
        ("seed=3", []),
    ],
)
def test_what_counts_as_a_change(override, expected):
    assert changes(configure("audiosr", "smoke", [override]), configure("audiosr", "smoke")) == expected
