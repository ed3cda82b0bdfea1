"""The tables: what a measured number is worth, where it stands, and how it is printed."""

import csv
import dataclasses
import html
import io
from pathlib import Path

import pytest

from experiments.compare import cell as cell_of
from experiments.compare import main, render_html, table_sheet
from experiments.configuration import (
    LISTENER_METRICS,
    Column,
    Table,
    load_paper,
    load_table,
    paper_names,
)
from experiments.differences import TOTALS
from experiments.records import standing, write_json
from signals import versions

HEADER = (
    "paper,table,system,dataset,scale,cutoff_hz,loss,metric,published,"
    "reproduced,measured,standing,std,files,seeds,protocol,preset,run"
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
        if not any(one["system"] == "Unprocessed" for one in records):
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
        text = words(capsys.readouterr().out, form)
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
