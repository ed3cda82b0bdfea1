"""The page of a record: it says everything, escapes everything, and its links lead somewhere."""

import copy
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest

from experiments.page import write_index, write_page
from experiments.records import write_json
from signals import versions

PROVENANCE = {
    "commit": "abc",
    "python": "3.11",
    "packages": {"torch": "2.11"},
    "machine": "x86_64, 2 cores",
    "finished": "2025-01-01T00:00:00Z",
}
RUN = {
    "kind": "run",
    "paper": "audiosr",
    "run": "vocoder",
    "id": "000000000001",
    "preset": "demo",
    "identity": {
        "stage": "audiosr.Vocoder",
        "training": {"steps": 10},
        "weights": {"mel": 45.0},
        "uses": {},
        "start": None,
        "seed": 0,
    },
    "parameters": 12345,
    "held_out": {"constant": 3.5, "trained": 1.25, "untrained": 4.5},
    "weights": "f00d",
    "seconds": 7200.5,
    "steps_per_second": 6.75,
    "memory": 3 * 2**29,
    "provenance": PROVENANCE,
}
ROW = {
    "kind": "score",
    "paper": "audiosr",
    "id": "000000000002",
    "system": "GT-<Mel>",
    "dataset": "vctk",
    "scale": None,
    "cutoff_hz": 4000,
    "loss": None,
    "preset": "demo",
    "changes": ["method.steps=5 & more"],
    "protocol": "published",
    "exact": True,
    "seed": 0,
    "runs": {"vocoder": RUN["id"]},
    "identity": {
        "method": "gt_mel",
        "rule": {"metrics": {"LSD": "lsd_nuwave"}, "bits": 16, "degradation": {"name": "stft_hard"}},
        "task": {"cutoff_hz": 4000},
        "rate": 48000,
        "recordings": "all",
        "versions": [1, versions.DEGRADATIONS, versions.METRICS],
        "seed": 0,
    },
    "stand_in": False,
    "expected": 2937,
    "files_used": 3,
    "average": "group",
    "mean": {"LSD": 1.5, "LSD-HF": 2.5},
    "std": {"LSD": 0.5, "LSD-HF": 0.25},
    "interval": {"LSD": [1.0, 2.0]},
    "not_finite": {"LSD-HF": ["p360/<3>"]},
    "files": {
        "p360/1 #a": {"LSD": 1.0625, "LSD-HF": 2.25, "group": "p360"},
        "p360/2": {"LSD": 2.125, "LSD-HF": 2.75, "group": "p360"},
        "p360/<3>": {"LSD": 1.3125, "LSD-HF": float("nan"), "group": "p360"},
    },
    "seconds": 2.0,
    "audio_seconds": 4.0,
    "real_time_factor": 0.5,
    "memory": 3 * 2**28,
    "provenance": PROVENANCE,
}


@pytest.fixture
def output(tmp_path) -> Path:
    """A run and the row that was made of it, with one recording kept."""
    for record in (RUN, ROW):
        folder = tmp_path / "runs" / "audiosr" / record["id"]
        folder.mkdir(parents=True)
        write_json(folder / "record.json", record)
        (folder / "config.yaml").write_text("note: <script>alert(1)</script>\n")
    for kind in ("input", "estimate", "reference"):
        (folder / "recordings" / kind).mkdir(parents=True)
        (folder / "recordings" / kind / "p360_1 #a.wav").touch()
    (folder / "recordings" / "p360_1 #a.png").touch()
    (folder.parent / RUN["id"] / "curves.png").touch()
    (folder.parent / RUN["id"] / "weights.safetensors").touch()
    return tmp_path / "runs"


class Reader(HTMLParser):
    """Links, tags and text of a page."""

    def __init__(self, path: Path):
        super().__init__()
        self.links, self.tags, self.words = [], [], []
        self.feed(path.read_text())

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [value for name, value in attrs if name in ("href", "src")]

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def page(output: Path, record: dict) -> Path:
    return output / "audiosr" / record["id"] / "index.html"


def test_a_row_s_page_says_everything(output):
    write_page(page(output, ROW).parent)
    text = Reader(page(output, ROW)).text
    for scores in ROW["files"].values():
        assert f"{scores['LSD']:.4g}" in text and f"{scores['LSD-HF']:.4g}" in text
    for id_ in ROW["files"]:
        assert id_ in text
    for word in ("GT-<Mel> on vctk, 4 kHz", "lsd_nuwave", "stft_hard", "as stored in 16 bits", "48,000 Hz"):
        assert word in text
    for word in ("1 … 2", "3 of 2,937", "2 of 2,937", "no finite LSD-HF: p360/<3>", "method.steps=5 & more"):
        assert word in text
    for word in ("demo: a small preset, not a result", "as NU-Wave", "the means of speakers", "abc"):
        assert word in text


def test_a_run_s_page_says_everything(output):
    write_page(page(output, RUN).parent)
    text = Reader(page(output, RUN)).text
    for word in ("run vocoder", "audiosr.Vocoder", "12,345 parameters", "steps 10", "45 mel", "f00d"):
        assert word in text
    assert text.index("1.25") < text.index("4.5") < text.index("3.5")  # trained, untrained, constant


def test_pages_say_what_it_cost(output):
    write_index(output)
    run, row = (Reader(page(output, record)).text for record in (RUN, ROW))
    assert "7,200 s, 6.75 steps per second" in run and "1.50 GiB at its peak" in run
    assert "2.00 s, 0.5 times the audio's" in row and "0.750 GiB at its peak" in row
    assert "training 2.00 hours, 6.75 steps per second" in row


def test_older_records_say_no_more_than_they_know(output):
    older = {key: value for key, value in RUN.items() if key not in ("steps_per_second", "memory")}
    write_json(output / "audiosr" / RUN["id"] / "record.json", older)
    write_index(output)
    run, row = (Reader(page(output, record)).text for record in (RUN, ROW))
    assert "7,200.5 s since it was last resumed" in run and "GiB" not in run
    assert "0.750 GiB" in row and "hours" not in row


def test_converted_weights_took_no_training(output):
    converted = copy.deepcopy(RUN) | {"steps_per_second": None, "memory": None, "held_out": {}}
    converted["identity"] |= {"training": {}, "weights": {}, "released": "beef"}
    write_json(output / "audiosr" / RUN["id"] / "record.json", converted)
    write_index(output)
    run, row = (Reader(page(output, record)).text for record in (RUN, ROW))
    assert "beef" in run
    for word in ("GiB", "per second"):
        assert word not in run
    assert "hours" not in row


def test_everything_is_escaped(output):
    write_index(output)
    for path in output.rglob("index.html"):
        text = path.read_text()
        assert "GT-&lt;Mel&gt;" in text
        assert "GT-<Mel>" not in text and "<3>" not in text and "alert(1)</script>" not in text
        assert Reader(path).tags.count("script") == 1


def test_all_links_lead_to_files_of_ours(output):
    write_index(output)
    pages = list(output.rglob("index.html"))
    assert len(pages) == 3
    for path in pages:
        links = Reader(path).links
        assert links
        assert [link for link in links if not (path.parent / unquote(link)).is_file()] == []
    row = Reader(page(output, ROW)).links
    assert len([link for link in row if link.startswith("recordings/")]) == 4
    assert f"../{RUN['id']}/index.html" in row
    assert f"../{ROW['id']}/index.html" in Reader(page(output, RUN)).links


def test_a_page_stands_alone(output):
    write_index(output)
    for path in output.rglob("index.html"):
        text = path.read_text()
        assert "http" not in text.replace("http-equiv", "") and "@import" not in text
        assert text.startswith("<!doctype html>") and text.rstrip().endswith("</html>")


def test_a_run_names_who_uses_it_once_they_are_there(output):
    row = json.loads((output / "audiosr" / ROW["id"] / "record.json").read_text())
    write_page(page(output, RUN).parent, [RUN])
    assert "used by" not in Reader(page(output, RUN)).text
    write_page(page(output, RUN).parent, [RUN, row])
    assert "used by GT-<Mel> on vctk, 4 kHz" in Reader(page(output, RUN)).text


def test_a_run_names_what_it_stands_on(output):
    upper = copy.deepcopy(RUN) | {"id": "000000000003", "run": "ldm"}
    upper["identity"] |= {"uses": {"vae": RUN["id"]}, "start": "000000000004"}
    folder = output / "audiosr" / upper["id"]
    folder.mkdir()
    write_json(folder / "record.json", upper)
    write_index(output)
    assert "made of run vocoder (vae) demo, seed 0" in Reader(page(output, upper)).text
    assert "used by GT-<Mel> on vctk, 4 kHz demo, seed 0 run ldm" in Reader(page(output, RUN)).text


def test_worse_than_the_unprocessed_input_is_said(output):
    write_index(output)
    assert "untrained" not in Reader(page(output, ROW)).text
    below = copy.deepcopy(ROW) | {"id": "000000000005", "system": "Unprocessed", "mean": {"LSD": 1.0}}
    below["identity"]["method"], below["runs"] = "unprocessed", {}
    folder = output / "audiosr" / below["id"]
    folder.mkdir()
    write_json(folder / "record.json", below)
    write_index(output)
    assert "untrained: worse than the unprocessed input" in Reader(page(output, ROW)).text
    assert "untrained" in Reader(output / "index.html").text


def test_the_index_has_a_line_a_record(output):
    write_index(output)
    text = Reader(output / "index.html").text
    for word in ("run vocoder", "held-out error 1.25", "GT-<Mel> on vctk, 4 kHz", "LSD 1.5", RUN["id"]):
        assert word in text
    assert "LSD-HF" not in text


def test_nothing_but_pages_is_written(output):
    before = {path for path in output.rglob("*") if path.is_file()}
    write_index(output)
    after = {path for path in output.rglob("*") if path.is_file()}
    assert {path.name for path in after - before} == {"index.html"}


def test_the_same_pages_are_left_alone(output):
    write_index(output)
    dates = {path: path.stat().st_mtime_ns for path in output.rglob("*")}
    write_index(output)
    assert {path: path.stat().st_mtime_ns for path in output.rglob("*")} == dates


def test_numbers_sort_by_their_value(output):
    write_page(page(output, ROW).parent)
    values = re.findall(r'data-value="([^"]*)"', page(output, ROW).read_text())
    assert {"1.0625", "2.125", "nan"} <= set(values)
