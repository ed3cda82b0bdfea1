"""The tables: what a measured number is worth, where it stands, and how it is printed."""

import csv
import dataclasses
import html
import io
import re
from pathlib import Path

import pytest

from experiments.compare import Sheet, main, print_csv, print_sheets, render_html, table_sheet
from experiments.compare import cell as cell_of
from experiments.configuration import (
    LISTENER_METRICS,
    Column,
    Table,
    load_paper,
    load_table,
    paper_names,
)
from experiments.costs import rounded
from experiments.differences import TOTALS
from experiments.records import standing, write_json
from signals import versions

HEADER = (
    "paper,table,system,dataset,scale,cutoff_hz,loss,metric,published,"
    "reproduced,measured,standing,std,files,seeds,protocol,preset,run,"
    "hours,steps_per_second,memory_gib,real_time_factor"
)


def record(id_: str, lsd: float = 2.0, system: str = "AudioSR", **changed) -> dict:
    """A score of AudioSR on vctk at 4 kHz as a finished row leaves it: a reproduction, unless `changed`."""
    task = {"dataset": "vctk", "scale": None, "cutoff_hz": 4000, "loss": None}
    identity = {
        "method": system.lower(),
        "task": task,
        "rule": {"bits": None, "metrics": {"LSD": "lsd_ssr_eval", "SNR": "snr"}},
        "rate": 48000,
        "recordings": "all of them",
        "versions": [1, versions.DEGRADATIONS, versions.METRICS],
    }
    fields = {
        "kind": "score",
        "id": id_,
        "paper": "audiosr",
        "family": "one",
        "system": system,
        **task,
        "preset": "full",
        "changes": [],
        "protocol": "published",
        "seed": 0,
        "runs": {} if system == "Unprocessed" else {"vae": "0123"},
        "stand_in": False,
        "expected": 2937,
        "files_used": 2937,
        "not_finite": {},
        "exact": True,
        "mean": {"LSD": lsd},
        "std": {"LSD": 0.25},
        "identity": identity | changed.pop("identity", {}),
        "provenance": {"finished": changed.pop("finished", "2025-01-01T00:00:00Z")},
    }
    assert changed.keys() <= fields.keys()
    return fields | changed


def write(*records: dict) -> None:
    for one in records:
        folder = Path("runs/audiosr") / one["id"]
        folder.mkdir(parents=True)
        write_json(folder / "record.json", one)


def table_csv(capsys, *options: str) -> list[dict]:
    assert main(["--format", "csv", *options]) == 0
    text = capsys.readouterr().out
    assert text.splitlines()[0] == HEADER
    return list(csv.DictReader(io.StringIO(text)))


@pytest.fixture
def cell(capsys, workplace):
    """Writes records; the line of AudioSR on vctk at 4 kHz that follows from them.

    A bad score of the unprocessed input is among them where the test gives none: AudioSR is judged by it.
    """

    def line(*records: dict, options=(), system: str = "AudioSR") -> dict:
        write(*records)
        if not any(one.get("system") == "Unprocessed" for one in records):
            write(record("unprocessed", 10.0, "Unprocessed"))
        found = table_csv(capsys, "--paper", "audiosr", *options)
        wanted = {"system": system, "dataset": "vctk", "cutoff_hz": "4000", "table": "table1"}
        (only,) = (one for one in found if wanted.items() <= one.items())
        return only

    return line


def test_the_csv_holds_all_published_cells(capsys, workplace):
    found = table_csv(capsys)
    assert len([line for line in found if line["published"]]) == len(found) == 175
    assert not any(line["reproduced"] or line["measured"] for line in found)
    assert {line["standing"] for line in found} == {"", "needs a listening test"}


def test_a_whole_published_split_at_full_size_is_a_reproduction(cell):
    assert cell(record("a")) == {
        "paper": "audiosr",
        "table": "table1",
        "system": "AudioSR",
        "dataset": "vctk",
        "scale": "",
        "cutoff_hz": "4000",
        "loss": "",
        "metric": "LSD",
        "published": "1.3",
        "reproduced": "2",
        "measured": "",
        "standing": "reproduction",
        "std": "0.25",
        "files": "2,937 of 2,937",
        "seeds": "1",
        "protocol": "published",
        "preset": "full",
        "run": "a",
        "hours": "",
        "steps_per_second": "",
        "memory_gib": "",
        "real_time_factor": "",
    }


LESS = {
    "another protocol": ({"protocol": "aligned"}, "partial"),
    "a row's own protocol": ({"exact": False}, "partial"),
    "files without a score": ({"not_finite": {"LSD": ["p360_001"]}}, "partial"),
    "no fixed number of files": ({"expected": None}, "partial"),
    "fewer files": ({"files_used": 20}, "partial"),
    "changed settings": ({"changes": ["method.steps=5"]}, "partial"),
    "another corpus": ({"stand_in": True}, "stand-in"),
    "demo": ({"preset": "demo"}, "demo"),
    "smoke": ({"preset": "smoke"}, "demo"),
    "stand-in at demo": ({"preset": "demo", "stand_in": True}, "stand-in"),
}


@pytest.mark.parametrize(("changed", "standing"), LESS.values(), ids=LESS)
def test_anything_less_is_only_measured(cell, changed, standing):
    options = ["--protocol", changed.get("protocol", "published")]
    line = cell(record("a", **changed), options=options)
    assert (line["standing"], line["measured"], line["reproduced"]) == (standing, "2", "")


@pytest.mark.parametrize("preset", ["full", "demo", "smoke"])
def test_worse_than_the_unprocessed_input_is_untrained(cell, preset):
    line = cell(record("a", 2.0, preset=preset), record("u", 1.5, "Unprocessed"))
    assert (line["standing"], line["measured"], line["reproduced"]) == ("untrained", "2", "")


def test_better_than_the_unprocessed_input_is_not_untrained(cell):
    assert cell(record("a", 2.0), record("u", 2.5, "Unprocessed"))["standing"] == "reproduction"


@pytest.mark.parametrize(
    "other",
    [
        {"recordings": "others"},
        {"rule": {"bits": 16}},
        {"task": {"dataset": "vctk", "scale": None, "cutoff_hz": 8000, "loss": None}},
    ],
    ids=["recordings", "rule", "task"],
)
def test_only_the_same_input_is_a_yardstick(cell, other):
    unprocessed = record("u", 1.5, "Unprocessed", identity=other)
    assert cell(record("a"), unprocessed)["standing"] == "partial"


@pytest.mark.parametrize(
    ("value", "lower_is_better", "expected"),
    [
        (8.0, True, "reproduction"),
        (8.0, False, "untrained"),
        (9.5, True, "untrained"),
        (9.5, False, "reproduction"),
    ],
)
def test_worse_is_lower_for_some_metrics(value, lower_is_better, expected):
    assert standing(record("a", value), 9.0, lower_is_better, "LSD") == expected


def test_higher_snr_is_better():
    column = Column("SNR", "vctk", None, 4000, None, "SNR")
    row = dataclasses.replace(load_table("audiosr", "table1").row("AudioSR"), published={})
    table = Table("audiosr", "table1", "", (column,), (row,))
    pair = [record("a", mean={"SNR": 5.0}, std={"SNR": 0}), record("u", 0, "Unprocessed", mean={"SNR": 9.0})]
    assert cell_of(table, row, column, pair)["standing"] == "untrained"
    pair[0]["mean"]["SNR"] = 9.5
    assert cell_of(table, row, column, pair)["standing"] == "reproduction"


def test_a_baseline_is_never_untrained(cell):
    spline = record("s", 9.0, "Unprocessed", identity={"method": "spline"})
    line = cell(spline, record("u", 1.0, "Unprocessed", finished="2024"), system="Unprocessed")
    assert (line["run"], line["standing"]) == ("s", "reproduction")


def test_seeds_are_averaged_and_counted(cell):
    line = cell(record("a", 2.0), record("b", 3.0, seed=1))
    assert (line["reproduced"], line["seeds"], line["std"]) == ("2.5", "2", "0.5")


def test_seeds_are_worth_what_the_worst_of_them_is(cell):
    line = cell(record("a", 1.0), record("b", 3.0, seed=1), record("u", 2.5, "Unprocessed"))
    assert (line["standing"], line["measured"], line["seeds"]) == ("untrained", "2", "2")


def test_seeds_of_another_family_are_not_averaged(cell):
    line = cell(record("a", 2.0), record("b", 3.0, seed=1, family="another", files_used=20))
    assert (line["reproduced"], line["seeds"], line["run"]) == ("2", "1", "a")


def test_the_best_standing_is_shown_then_the_newest(cell):
    line = cell(
        record("old", 2.0, finished="2025-01-01T00:00:00Z"),
        record("new", 3.0, finished="2025-01-02T00:00:00Z"),
        record("partial", 1.0, finished="2025-01-03T00:00:00Z", files_used=20, family="two"),
        record("demo", 1.0, finished="2025-01-04T00:00:00Z", preset="demo", family="three"),
    )
    assert (line["run"], line["reproduced"], line["seeds"]) == ("new", "3", "1")


def test_a_failed_full_run_does_not_hide_behind_a_demo(cell):
    full, demo = record("full", 3.0), record("demo", 2.0, preset="demo")
    line = cell(full, demo, record("u", 2.5, "Unprocessed"))
    assert (line["run"], line["standing"]) == ("full", "untrained")


@pytest.mark.parametrize(
    ("options", "run"),
    [
        ((), "a"),
        (("--preset", "demo"), "b"),
        (("--protocol", "aligned"), "c"),
        (("--output", "elsewhere"), ""),
    ],
)
def test_records_can_be_chosen(cell, options, run):
    records = [record("a"), record("b", preset="demo"), record("c", protocol="aligned")]
    assert cell(*records, options=options)["run"] == run


def words(text: str, form: str) -> str:
    """What a page says; in a terminal, where cells are folded, the first column first and then the rest."""
    if form == "terminal":
        lines = text.splitlines()
        first = [line.split("│")[1] for line in lines if line.startswith("│")]
        text = " ".join([*first, *(line for line in lines if not line.startswith("│"))])
    return " ".join(html.unescape(text).split())


@pytest.mark.parametrize("form", ["terminal", "markdown", "html"])
@pytest.mark.parametrize("paper", paper_names())
def test_every_row_is_printed(capsys, workplace, paper, form):
    for name in load_paper(paper)["tables"]:
        table = load_table(paper, name)
        assert main(["--paper", paper, "--table", name, "--format", form]) == 0
        printed = capsys.readouterr().out
        assert all(line.endswith("│") for line in printed.splitlines() if line.startswith("│"))  # not cropped
        text = words(printed, form)
        assert table.title in text
        for row in table.rows:
            assert row.system in text
        listeners = any(column.metric in LISTENER_METRICS for column in table.columns)
        assert ("needs a listening test" in text) == listeners


@pytest.mark.parametrize("form", ["terminal", "markdown", "html"])
def test_ours_stands_beside_the_published_with_its_mark(capsys, workplace, form):
    write(record("a", 2.0), record("b", 1.2345, cutoff_hz=8000, preset="demo", files_used=20))
    assert main(["--paper", "audiosr", "--table", "table1", "--format", form]) == 0
    text = capsys.readouterr().out
    assert "1.3 / 2.00" in text
    assert "1.3 / 2.00d" not in text
    assert "1.11 / 1.23d" in text
    assert "20 of 2,937" in text
    assert "not a result" in text


def test_no_records_yet_is_a_note(capsys, workplace):
    assert main(["--paper", "audiosr", "--output", "elsewhere"]) == 0
    assert capsys.readouterr().err == "compare.py: no records below elsewhere yet\n"
    write(record("a"))
    assert main(["--paper", "audiosr"]) == 0
    assert not capsys.readouterr().err


def test_html_is_escaped():
    column = Column("a<b", "vctk", None, 4000, None, "LSD")
    like = load_table("audiosr", "table1").row("Unprocessed")
    changed = {"system": "<i>&", "published": {"a<b": 1.5}, "notes": {"a<b": "<script>"}}
    row = dataclasses.replace(like, **changed)
    table = Table("audiosr", "table1", "A & B <b>", (column,), (row,))
    line = {"dataset": "vctk", "scale": "", "cutoff_hz": 4000, "loss": "", "metric": "LSD", "system": "<i>&"}
    line |= {"published": 1.5, "reproduced": "", "measured": "", "standing": "", "run": ""}
    line["records"] = []
    page = render_html(table_sheet(table, [line]))
    assert "A &amp; B &lt;b&gt;" in page
    assert "<td>&lt;i&gt;&amp;</td>" in page
    assert "<th>a&lt;b</th>" in page
    assert not {"<i>", "<script>", "<b>"} & {page[i : i + n] for n in (3, 8) for i in range(len(page))}


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--table", "table1"], "--table needs --paper"),
        (["--paper", "audiosrr"], "did you mean audiosr"),
        (["--paper", "audiosr", "--table", "tabel1"], "did you mean table1"),
    ],
)
def test_a_wrong_name_is_one_line(capsys, workplace, argv, message):
    assert main(argv) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


# What it cost ---------------------------------------------------------------------------------------------

COSTS = ("hours", "steps_per_second", "memory_gib", "real_time_factor")
NOTE = "train h, steps/s, GiB, RTF: as measured on "


def trained(id_: str, hours: float, steps: int, gib: float, uses=(), start=None, **changed) -> dict:
    """A finished run; `uses` are ids."""
    identity = {"uses": {other: other for other in uses}, "start": start}
    fields = {"kind": "run", "id": id_, "identity": identity, "provenance": {"machine": "a GPU"}}
    fields |= {"seconds": 3600 * hours, "steps_per_second": steps / (3600 * hours), "memory": gib * 2**30}
    return fields | changed


def timed(id_: str, seconds: float, audio: float, gib: float, *runs: str, **changed) -> dict:
    """A score that stands on `runs`."""
    one = record(id_, runs={run: run for run in runs}, **changed)
    one["provenance"]["machine"] = "two cores"
    return one | {"seconds": seconds, "audio_seconds": audio, "memory": gib * 2**30}


def without(one: dict, *keys: str) -> dict:
    return {key: value for key, value in one.items() if key not in keys}


VAE, LDM = trained("vae", 2.0, 7200, 1.5), trained("ldm", 6.0, 7200, 3.0, uses=["vae"], start="base")
BASE, OTHER = trained("base", 2.0, 14400, 1.0, uses=["vae"]), trained("other", 99.0, 1, 99.0)


def costs(line: dict) -> list[float | None]:
    return [float(line[key]) if line[key] else None for key in COSTS]


def test_a_number_costs_what_its_runs_and_its_test_do(cell):
    line = cell(VAE, LDM, BASE, OTHER, timed("a", 5.0, 20.0, 2.0, "ldm", "vae"))
    assert costs(line) == [10, 0.8, 3, 0.25]  # 28,800 steps in 36,000 s; each run once


def test_a_baseline_costs_its_test(cell):
    line = cell(OTHER, timed("u", 5.0, 20.0, 2.0, system="Unprocessed"), system="Unprocessed")
    assert costs(line) == [None, None, 2, 0.25]


def test_seeds_cost_all_that_they_took(cell):
    again = trained("again", 2.0, 14400, 1.0)
    line = cell(VAE, again, timed("a", 5.0, 20.0, 2.0, "vae"), timed("b", 7.0, 20.0, 0.5, "again", seed=1))
    assert (line["seeds"], costs(line)) == ("2", [4, 1.5, 2, 0.3])


def test_only_what_is_shown_counts(cell):
    newer = timed("b", 9.0, 9.0, 0.5, finished="2025-01-02T00:00:00Z")
    assert costs(cell(VAE, timed("a", 5.0, 20.0, 2.0, "vae"), newer)) == [None, None, 0.5, 1]


@pytest.mark.parametrize(
    ("runs", "expected"),
    [
        ([LDM, VAE], [None, None, None, 0.25]),  # what it started from is gone
        ([LDM, BASE, without(VAE, "steps_per_second", "memory")], [None, None, None, 0.25]),
        ([LDM, BASE, VAE | {"steps_per_second": None}], [None, None, 3, 0.25]),
    ],
    ids=["a missing run", "an older run", "no rate"],
)
def test_what_a_record_does_not_say_is_not_guessed(cell, runs, expected):
    assert costs(cell(*runs, timed("a", 5.0, 20.0, 2.0, "ldm"))) == expected


def test_an_older_score_has_no_cost(cell):
    older = without(timed("a", 5.0, 20.0, 2.0, "vae"), "audio_seconds", "memory")
    assert costs(cell(VAE, older)) == [2, 1, None, None]


def test_weights_of_others_were_not_trained_here(cell):
    released = trained("vae", 0.1, 0, 0, steps_per_second=None, memory=None)
    released["identity"] |= {"released": "f00d"}
    assert costs(cell(released, timed("a", 5.0, 20.0, 2.0, "vae"))) == [None, None, 2, 0.25]


def costly_table(capsys, form: str) -> str:
    assert main(["--paper", "audiosr", "--table", "table1", "--format", form]) == 0
    return capsys.readouterr().out


def test_a_row_costs_what_all_its_cells_do(capsys, workplace):
    write(VAE, LDM, BASE, timed("a", 5.0, 20.0, 2.0, "ldm"))
    write(timed("b", 5.0, 5.0, 4.0, "ldm", cutoff_hz=8000))  # of the same runs, which were trained once
    write(timed("u", 0.5, 20.0, 0.25, system="Unprocessed"), record("s", system="GT-Mel"))
    text = costly_table(capsys, "markdown")
    header, rows = text.splitlines()[2], text.splitlines()[4:]
    assert header.endswith("| train h | steps/s | GiB | RTF |")
    ends = {row.split(" | ")[0].strip("| "): row.split(" | ")[-4:] for row in rows if row.startswith("|")}
    assert ends["AudioSR"] == ["10.0", "0.800", "4.00", "0.400 |"]
    assert ends["Unprocessed"] == ["", "", "0.250", "0.0250 |"]
    assert ends["GT-Mel"] == ["", "", "", " |"]  # its record is an older one
    assert {len(row.split(" | ")) for row in [header, *rows] if row.startswith("|")} == {
        header.count("|") - 1
    }
    (note,) = (line for line in text.splitlines() if "as measured on" in line)
    assert note.removeprefix(f"- {NOTE}").split("; ") == ["two cores", "a GPU"]


@pytest.mark.parametrize("form", ["terminal", "html"])
def test_every_format_ends_with_the_cost(capsys, workplace, form):
    write(VAE, timed("a", 5.0, 20.0, 2.0, "vae"))
    text = words(costly_table(capsys, form), form)
    assert f"{NOTE}two cores; a GPU" in text
    if form == "html":
        assert "<th>train h</th><th>steps/s</th><th>GiB</th><th>RTF</th></tr>" in text
        assert "<td>2.00</td><td>1.00</td><td>2.00</td><td>0.250</td></tr>" in text


def test_what_no_row_has_is_left_out(capsys, workplace):
    write(record("a"))
    text = costly_table(capsys, "markdown")
    assert "train h" not in text and "RTF" not in text
    write(timed("u", 0.5, 20.0, 0.25, system="Unprocessed"))
    text = costly_table(capsys, "markdown")
    assert text.splitlines()[2].endswith("| GiB | RTF |") and "steps/s" not in text
    assert "- GiB, RTF: as measured on two cores" in text


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, ""), (0, "0"), (0.00004, "0.0000"), (0.01234, "0.0123"), (9.876, "9.88"), (54321.4, "54,321")],
)
def test_costs_have_three_digits(value, text):
    assert rounded(value) == text


# Two sets beside each other -------------------------------------------------------------------------------

FILES = {f"f{n}": {"LSD": 1.0 + n / 10, "LSD-LF": 0.5, "group": "s"} for n in range(8)}


def scored(id_: str, shift: float = 0.0, files=FILES, **changed) -> dict:
    """A record with scores by file, `shift` above FILES."""
    identity = {"rule": {"metrics": {"LSD": "lsd_nuwave"}, "bits": None, "degradation": {"name": "sinc"}}}
    identity |= changed.pop("identity", {})
    one = record(id_, identity=identity, **changed)
    shifted = {name: {**scores, "LSD": scores["LSD"] + shift} for name, scores in files.items()}
    return one | {"paper": "audiosr", "average": "file", "files": shifted}


def compared(capsys, a: str, b: str, *options: str) -> list[dict]:
    assert main([a, b, "--format", "csv", *options]) == 0
    return list(csv.DictReader(io.StringIO(capsys.readouterr().out)))


def write_to(output: str, *records: dict) -> None:
    for one in records:
        folder = Path(output) / "audiosr" / one["id"]
        folder.mkdir(parents=True)
        write_json(folder / "record.json", one)


def test_two_records_differ_by_what_they_do(capsys, workplace):
    write_to("runs", scored("a", system="AudioSR"), scored("b", 0.25, system="GT-Mel"))
    line, low = compared(capsys, "runs/audiosr/a", "runs/audiosr/b")
    assert (line["system"], line["metric"], line["files"]) == ("AudioSR - GT-Mel", "LSD", "8")
    assert (line["record_a"], line["record_b"], line["dataset"]) == ("a", "b", "vctk")
    numbers = [float(line[key]) for key in ("a", "b", "difference", "low", "high")]
    assert numbers == pytest.approx([1.35, 1.6, -0.25, -0.25, -0.25])
    assert float(line["p"]) < 0.02
    assert (low["metric"], float(low["difference"]), float(low["p"])) == ("LSD-LF", 0, 1)


def test_sets_are_compared_row_by_row(capsys, workplace):
    write_to("old", scored("a"), scored("b", cutoff_hz=8000), scored("only", system="GT-Mel"))
    write_to("new", scored("c", 0.1), scored("d", 0.2, cutoff_hz=8000), scored("e", 0.3, seed=1))
    lines = [line for line in compared(capsys, "old", "new") if line["metric"] == "LSD"]
    assert [(line["record_a"], line["record_b"]) for line in lines] == [("a", "c"), ("b", "d")]
    assert [float(line["difference"]) for line in lines] == pytest.approx([-0.1, -0.2])


def test_of_a_set_the_largest_and_newest_counts(capsys, workplace):
    write_to("old", scored("a"))
    demo = scored("demo", 0.3, preset="demo", finished="2025-02-01T00:00:00Z")
    newer = scored("newer", 0.1, finished="2025-01-02T00:00:00Z")
    write_to("new", demo, newer, scored("older", 0.2))
    assert compared(capsys, "old", "new")[0]["record_b"] == "newer"
    assert compared(capsys, "old", "new", "--preset", "full")[0]["record_b"] == "newer"
    assert main(["old", "new"]) == 0
    assert "2 records of B stand aside" in capsys.readouterr().out


def test_only_files_of_both_count(capsys, workplace):
    fewer = {name: FILES[name] for name in ("f0", "f1", "f2")}
    write_to("runs", scored("a"), scored("b", 0.5, files=fewer))
    line, _ = compared(capsys, "runs/audiosr/a", "runs/audiosr/b")
    assert (line["files"], float(line["a"]), float(line["b"])) == (
        "3",
        pytest.approx(1.1),
        pytest.approx(1.6),
    )
    assert main(["runs/audiosr/a", "runs/audiosr/b"]) == 0
    assert "5 files are in one set only" in capsys.readouterr().out


def test_of_one_file_nothing_is_known_but_the_difference(capsys, workplace):
    write_to("runs", scored("a"), scored("b", 0.5, files={"f0": FILES["f0"]}))
    line, _ = compared(capsys, "runs/audiosr/a", "runs/audiosr/b")
    assert (float(line["difference"]), line["low"], line["high"], line["p"]) == (-0.5, "", "", "")


RULE = {"metrics": {"LSD": "lsd_nuwave"}, "bits": None, "degradation": {"name": "sinc"}}
UNLIKE = {
    "task": ({"cutoff_hz": 8000}, "tested on audiosr vctk, 4 kHz and audiosr vctk, 8 kHz"),
    "protocol": ({"protocol": "aligned"}, "protocol published and aligned"),
    "metric": (
        {"identity": {"rule": RULE | {"metrics": {"LSD": "lsd_tfnet"}}}},
        "LSD by lsd_nuwave and lsd_tfnet",
    ),
    "bits": ({"identity": {"rule": RULE | {"bits": 16}}}, "stored in bits None and 16"),
    "degradation": ({"identity": {"rule": RULE | {"degradation": {"name": "iir"}}}}, "degradation"),
    "rate": ({"identity": {"rate": 16000}}, "rate 48000 and 16000"),
}


@pytest.mark.parametrize(("changed", "reason"), UNLIKE.values(), ids=UNLIKE)
def test_numbers_of_another_meaning_are_refused(capsys, workplace, changed, reason):
    write_to("runs", scored("a"), scored("b", **changed))
    assert main(["runs/audiosr/a", "runs/audiosr/b"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("compare.py: a and b cannot be compared: ") and reason in line


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["runs"], "two sets to compare"),
        (["runs", "runs", "--paper", "audiosr", "--table", "table1"], "without --table"),
        (["runs", "nowhere"], "no such folder or file: nowhere"),
        (["runs", "runs/audiosr/run"], "is the run vae"),
        (["runs", "other"], "no row in common"),
        (["runs", "runs", "--preset", "demo"], "no scored row of demo"),
        (["runs/audiosr/a", "notes.csv"], "notes.csv is not a CSV of evaluate.py"),
        (["runs/audiosr/a", "binary.csv"], "binary.csv is not a CSV of evaluate.py"),
        (["runs/audiosr/a", "numbers.csv"], "numbers.csv is not a CSV of evaluate.py"),
        (["runs/audiosr/count", "runs/audiosr/a"], "counts the parameters of AudioSR"),
        (["damaged", "runs"], "record.json is damaged"),
        (["runs", "runs", "--protocol", "alligned"], "unknown protocol alligned: one of "),
        (["--protocol", "alligned"], "unknown protocol alligned: one of aligned, kuleshov, published"),
        (["--paper", "audiosr", "--output", "damaged"], "record.json is damaged"),
    ],
)
def test_nothing_to_compare_is_one_line(capsys, workplace, argv, message):
    write_to("runs", scored("a"), {"kind": "run", "id": "run", "run": "vae", "paper": "audiosr"})
    write_to("other", scored("b", system="GT-Mel"))
    write_to("runs", {"kind": "count", "id": "count", "system": "AudioSR"})
    Path("notes.csv").write_text("a,b\n1,2\n")
    Path("binary.csv").write_bytes(bytes(range(256)))
    totals = "\n".join(f"{name},x,{{}}" for name in TOTALS)
    Path("numbers.csv").write_text(f"file,snr,rule\na,x,\n{totals}\n")
    Path("damaged/audiosr/a").mkdir(parents=True)
    Path("damaged/audiosr/a/record.json").write_text("{")
    assert main(argv) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("compare.py: ") and message in line


@pytest.mark.parametrize("form", ["terminal", "markdown", "html"])
def test_differences_are_printed_in_every_format(capsys, workplace, form):
    write_to("runs", scored("a"), scored("b", 0.25, system="GT-Mel"))
    assert main(["runs/audiosr/a", "runs/audiosr/b", "--format", form]) == 0
    text = html.unescape(capsys.readouterr().out)
    for word in ("AudioSR - GT-Mel", "-0.25", "-0.25 ... -0.25", "LSD", "full, published"):
        assert word in text


HOSTILE = [
    "[red]x[/]",
    "[/x] :smile:",
    "a|b\\|c",
    "<script>alert(1)</script>",
    "&amp;",
    '"q"',
    "*x*",
    "a\nb",
    "$A$",
]


@pytest.mark.parametrize("form", ["terminal", "markdown", "html"])
def test_names_of_systems_are_text(form, capsys):
    """Of a table with hostile titles, headers, cells and notes, every name is printed as it is."""
    body = [[name, name] for name in HOSTILE]
    print_sheets([Sheet("[/t] <t>", ["system", "[/h]"], body, ["[/n] <n>"])], form)
    shown = capsys.readouterr().out
    if form == "html":
        assert "<script" not in shown and "<n>" not in shown
        shown = html.unescape(shown)
    if form == "markdown":
        assert [line.count(" | ") for line in shown.splitlines() if line.startswith("|")] == [1] * 11
        shown = re.sub(r"\\([\\|`*\[\]<&_])", r"\1", shown)
    for name in ("[/t] <t>", "[/h]", "[/n] <n>"):
        assert name in shown
    for name in HOSTILE:
        told = name if form == "html" else name.replace("\n", r"\n")
        assert shown.count(told) >= 2, name


def test_names_of_systems_are_cells_of_a_csv(capsys):
    print_csv(["system", "n"], [{"system": name, "n": 1} for name in [*HOSTILE, "a,b", "a\rb", "=1"]])
    lines = list(csv.DictReader(io.StringIO(capsys.readouterr().out, newline="")))
    assert [line["system"] for line in lines] == [*HOSTILE, "a,b", "a\rb", "=1"]
