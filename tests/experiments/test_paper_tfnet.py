"""The paper tfnet by its commands: open mixtures and cut-offs, rates that are not whole, blocks and LSDs."""

import json
import shutil
from pathlib import Path

import pytest

from experiments import compare, run
from experiments.configuration import configure, load_table
from experiments.runs import count_parameters

pytestmark = pytest.mark.slow  # whole runs of a paper's tables


@pytest.fixture(scope="session")
def root(tiny_corpus, tmp_path_factory) -> Path:
    """The tiny corpus, with a speaker who has enough to stand in for p225."""
    root = tmp_path_factory.mktemp("tfnet") / "corpora"
    shutil.copytree(tiny_corpus, root)
    speaker = next((root / "speech").iterdir())
    some = sorted(speaker.iterdir())[0]
    for take in range(6):
        shutil.copy(some, speaker / f"take{take}{some.suffix}")
    return root


@pytest.fixture
def command(root, workplace, tmp_path_factory):
    stores = tmp_path_factory.getbasetemp() / "tfnet"

    def done(*arguments: str) -> int:
        small = ["data.test_files=2", "data.workers=1", "trainer.threads=1", f"data.folder={stores}"]
        where = [] if any("data.root" in each for each in arguments) else [f"data.root={root}"]
        return run.main(["--paper", "tfnet", "--preset", "smoke", *small, *where, *arguments])

    return done


def records(kind: str) -> list[dict]:
    found = (json.loads(path.read_text()) for path in sorted(Path("runs/tfnet").glob("*/record.json")))
    return [record for record in found if record["kind"] == kind]


def rows_of(*systems: str) -> list[str]:
    return [argument for system in systems for argument in ("--row", system)]


def test_the_full_networks_have_the_published_parameters():
    full = configure("tfnet", "full")
    counts = {run: count_parameters(full, run)[0] for run in ("tfnet", "kuleshov", "tfilm", "li_x4")}
    assert counts == {"tfnet": 28_214_405, "kuleshov": 56_411_394, "tfilm": 68_221_186, "li_x4": 9_986_240}


def test_the_text_has_its_own_objective_rate_and_batch():
    code, text = (
        configure("tfnet", "full", [f"method.variant={v}"])["runs"]["tfnet"] for v in ("code", "text")
    )
    assert code["weights"] == {"mse": 1.0, "norm": 0.0, "decay": 0.0}
    assert text["weights"] == {"mse": 0.0, "norm": 1.0, "decay": 1e-7}
    assert (code["optimizer"]["lr"], text["optimizer"]["lr"]) == (1e-4, 3e-4)
    assert (code["training"]["batch"], text["training"]["batch"]) == (128, 64)
    assert code["optimizer"]["schedule"] == {
        "name": "polynomial",
        "power": 0.5,
        "last": 1e-6,
        "steps": 500_000,
    }


def test_a_system_learns_for_each_test_set_and_rate_and_again_for_no_protocol(command, capsys):
    systems = rows_of("Kuleshov et al.", "Li et al.", "Bicubic")
    some = ("datasets.vctk_p225=null",)
    assert command(*systems, *some) == 0
    trained = {r["id"]: r["identity"] for r in records("run")}
    learnt = sorted((run["stage"], round(run["data"]["degradation"]["cutoff"])) for run in trained.values())
    assert learnt == 2 * [("kuleshov_audiounet", 1333)] + 2 * [("kuleshov_audiounet", 2000)] + 2 * [
        ("li_dnn", 2000)
    ]
    assert len({str(run["data"]["mixture"]) for run in trained.values()}) == 2
    scored = [r for r in records("score") if r["system"] == "Kuleshov et al." and r["scale"] == 6]
    assert {r["dataset"] for r in scored} == {"vctk", "beethoven_piano"}
    assert all(abs(r["mean"]["SNR"]) < 60 for r in scored)
    for protocol in ("kuleshov", "aligned"):
        assert command(*systems, *some, "datasets.vctk=null", "--protocol", protocol) == 0
    assert {r["id"] for r in records("run")} == trained.keys()
    printed = {(r["protocol"], r["identity"]["rule"]["metrics"]["LSD"]) for r in records("score")}
    assert printed == {("published", "lsd_tfnet"), ("kuleshov", "lsd_kuleshov"), ("aligned", "lsd_nuwave")}


def test_a_table_without_a_corpus_has_empty_columns(command, root, workplace, capsys):
    some = workplace / "corpora"
    shutil.copytree(root, some, ignore=shutil.ignore_patterns("beethoven", "music"))
    assert command(*rows_of("Bicubic", "TFNet"), f"data.root={some}") == 0
    told = capsys.readouterr().out
    assert "beethoven_piano: left out: corpus " in told
    assert {r["dataset"] for r in records("score")} == {"vctk_p225", "vctk"}
    found = compare.lines(load_table("tfnet", "results"), Path("runs"), "smoke", "published")
    empty = {line["dataset"] for line in found if line["system"] == "TFNet" and not line["measured"]}
    assert empty == {"beethoven_piano"}
    assert command("--row", "Bicubic", f"data.root={some}", "--dry-run") == 0
    assert "beethoven_piano: left out" in capsys.readouterr().out


def test_without_any_corpus_nothing_is_run(command, workplace, capsys):
    (workplace / "empty").mkdir()
    assert command("--row", "Bicubic", f"data.root={workplace / 'empty'}") == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not records("score")


def test_an_lsd_without_window_finds_nothing_in_the_blocks_that_were_interpolated(command):
    """The published LSDs of interpolation: a matter of where blocks begin."""
    assert command("--table", "ablation", *rows_of("Fourier", "Fourier, blocks of 8,192")) == 0
    whole, blocks = sorted(records("score"), key=lambda r: len(r["system"]))
    assert blocks["mean"]["LSD"] > 2 * whole["mean"]["LSD"]
    assert blocks["mean"]["LSD_kuleshov"] == pytest.approx(whole["mean"]["LSD_kuleshov"], rel=0.2)


def test_overlap_is_no_matter_of_training(command):
    systems = rows_of("TFNet", "TFNet, blocks overlap by half")
    assert command("--table", "seams", *systems) == 0
    assert len(records("run")) == 1
    plain, overlapped = (r for s in ("TFNet", systems[-1]) for r in records("score") if r["system"] == s)
    assert plain["runs"] == overlapped["runs"]
    assert overlapped["mean"]["block_seam"] < plain["mean"]["block_seam"]
    assert command("--row", "TFNet", "method.overlap=9000") == 2


def test_the_true_phase_is_an_oracle_of_the_same_run(command):
    systems = rows_of("Li et al.", "Li et al., true phase")
    assert command("--table", "both_lsds", "datasets.vctk=null", *systems) == 0
    assert len(records("run")) == 1
    imaged, true = (r for s in ("Li et al.", systems[-1]) for r in records("score") if r["system"] == s)
    assert true["mean"]["LSD"] != imaged["mean"]["LSD"]
