"""What was named and written before stays: identities of runs and cells, records, weights, printed tables.

A change that is meant to rename runs raises a version. Then `python tests/experiments/test_kept.py` writes
names and tables anew; the records and weights stay as they were written.
"""

import contextlib
import hashlib
import io
import json
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from datamodules.corpora.selection import Selection
from datamodules.store import Store
from experiments import compare, enhance
from experiments.configuration import configure, load_paper, load_table, paper_names
from experiments.records import identity_hash
from experiments.rows import Rows, tasks
from experiments.runs import Runs

KEPT = Path(__file__).parents[1] / "kept"
FORMATS = {"terminal": "txt", "markdown": "md", "csv": "csv", "html": "html"}
TABLES = [("audioedsr", "table2"), ("audioedsr", "table3"), ("audiosr", "table1"), ("audiosr", "unprocessed")]
RATE = 6000


class Named(Store):
    """A store without recordings, whose fingerprint says what was asked for."""

    @property
    def fingerprint(self) -> str:
        return str(self.folder)

    def spread(self, count: int | None) -> "Named":
        return self


class NamedLibrary:
    """Every split of every corpus, named by how it was asked for, as if all were there."""

    def select(self, split: str, **corpus) -> Selection:
        return Selection(corpus["corpus"], split, (), expected=100)

    def store(self, rate: int, split: str, *, resampling: str = "soxr", **corpus) -> tuple[Named, Selection]:
        asked = json.dumps([rate, split, resampling, corpus], sort_keys=True, default=str)
        return Named(Path(hashlib.sha256(asked.encode()).hexdigest()[:16]), rate), self.select(
            split, **corpus
        )

    def mixture(self, rate: int, split: str, parts: dict, resampling: str = "soxr") -> dict:
        found = {}
        for name, part in parts.items():
            if part["weight"] > 0:
                corpus = {key: value for key, value in part.items() if key != "weight"}
                found[name] = self.store(rate, split, resampling=resampling, **corpus)[0], part["weight"]
        return found


def names(paper: str, preset: str, protocol: str) -> Iterator[tuple[str, str]]:
    """Every cell of a paper, as `table: system on task`, with the hashes of itself and of its runs."""
    for name in load_paper(paper)["tables"]:
        table = load_table(paper, name)
        config = configure(paper, preset, table=table.config) | {
            "preset": preset,
            "changes": [],
            "corpus": None,
        }
        for run in config["runs"].values():
            run |= {"released": str(KEPT / "released")} if "released" in run else {}
        runs = Runs(paper, config, NamedLibrary(), print)
        rows = Rows(table, config, protocol, NamedLibrary(), runs, print)
        for row in table.rows:
            for task in tasks(table, row, config):
                parts = {}
                if task.dataset:
                    below = rows.runs_of(row, task)
                    parts = {part: below.folder(run).name for part, run in table.parts(row, task).items()}
                told = [
                    identity_hash(rows.identity(row, task)),
                    *(f"{part}={parts[part]}" for part in sorted(parts)),
                ]
                yield f"{name}: {row.system} on {task.key}", " ".join(told)


def cases() -> list[tuple[str, str, str]]:
    """Every paper at its least and its full size, and under its other protocols at the least."""
    found = []
    for paper in (paper for paper in paper_names() if "config" in load_paper(paper)):
        found += [(paper, preset, "published") for preset in ("smoke", "full")]
        found += [
            (paper, "smoke", other)
            for other in load_paper(paper)["config"]["protocols"]
            if other != "published"
        ]
    return found


def summary(paper: str, preset: str, protocol: str) -> dict:
    """How many cells there are, a hash over the names of all, and a few as they are."""
    found = dict(names(paper, preset, protocol))
    some = sorted(found)[:: max(1, len(found) // 3)]
    whole = hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()[:16]
    return {"cells": len(found), "all": whole, "some": {name: found[name] for name in some}}


def printed(paper: str, table: str, form: str) -> str:
    """The table as `compare.py` prints it from the records that are kept."""
    out = io.StringIO()
    arguments = ["--paper", paper, "--table", table, "--format", form, "--output", str(KEPT / "runs")]
    with contextlib.redirect_stdout(out):
        assert compare.main(arguments) == 0
    return out.getvalue()


@pytest.fixture
def wide(monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")


@pytest.mark.parametrize(("paper", "preset", "protocol"), cases())
def test_runs_and_cells_keep_their_names(paper, preset, protocol):
    kept = json.loads((KEPT / "names.json").read_text())[f"{paper} {preset} {protocol}"]
    found = summary(paper, preset, protocol)
    assert found["some"] == kept["some"]
    assert found == kept


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize(("paper", "table"), TABLES)
def test_tables_are_printed_as_before(paper, table, form, wide):
    kept = KEPT / "tables" / f"{paper}_{table}.{FORMATS[form]}"
    assert printed(paper, table, form) == kept.read_text()


def test_weights_of_before_enhance_as_before(workplace):
    wave = 0.1 * np.sin(np.arange(RATE) ** 1.5 / 400)
    soundfile.write(workplace / "a.wav", wave, RATE, "FLOAT")
    arguments = ["--checkpoint", str(KEPT / "runs" / "audioedsr"), "--row", "AudioEDSR"]
    assert enhance.main(["a.wav", *arguments, "--output", "out"]) == 0
    estimate, rate = soundfile.read(workplace / "out" / "a.wav", dtype="float32")
    expected = np.load(KEPT / "enhanced.npy")
    assert (rate, estimate.shape) == (2 * RATE, expected.shape)
    np.testing.assert_allclose(estimate, expected, rtol=0, atol=1e-6)


def write() -> None:
    """Names and tables as they are now."""
    told = {" ".join(case): summary(*case) for case in cases()}
    (KEPT / "names.json").write_text(json.dumps(told, indent=1, sort_keys=True) + "\n")
    os.environ["COLUMNS"] = "160"
    (KEPT / "tables").mkdir(exist_ok=True)
    for paper, table in TABLES:
        for form, suffix in FORMATS.items():
            (KEPT / "tables" / f"{paper}_{table}.{suffix}").write_text(printed(paper, table, form))


if __name__ == "__main__":
    write()
