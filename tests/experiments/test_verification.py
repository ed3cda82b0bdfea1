"""Verification: a fresh record holds, and whatever is changed in its folder is named."""

import contextlib
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import save_file

from experiments.configuration import Column
from experiments.records import file_hash, identity_hash, write_json
from experiments.rows import band_edge
from experiments.run import main
from experiments.verification import close, pair_again
from signals.types import Signal


@pytest.fixture(scope="module")
def fresh(tiny_corpus, tmp_path_factory) -> Path:
    """Runs with the unprocessed input of VCTK at three cut-offs, of which one recording is kept each."""
    folder = tmp_path_factory.mktemp("fresh")
    settings = [f"data.root={tiny_corpus}", "data.test_files=2", "data.workers=1", "pictures=1"]
    only = ["datasets.esc50=null", "datasets.audiostock=null", "trainer.threads=1"]
    with contextlib.chdir(folder), contextlib.redirect_stdout(io.StringIO()):
        row = ["--paper", "audiosr", "--preset", "smoke", "--row", "Unprocessed"]
        assert main([*row, *settings, *only]) == 0
    return folder / "runs"


@pytest.fixture
def runs(fresh, workplace) -> Path:
    shutil.copytree(fresh, workplace / "runs")
    return Path("runs")


@pytest.fixture
def row(runs) -> Path:
    """The folder of one record."""
    return sorted(runs.glob("audiosr/*/record.json"))[0].parent


def verdict(capsys, place: Path, code: int) -> list[str]:
    assert main(["--verify", str(place)]) == code
    printed = capsys.readouterr()
    assert not printed.err
    return printed.out.splitlines()


def test_a_fresh_record_is_verified(capsys, runs, row):
    line, total = verdict(capsys, row, 0)
    assert line.startswith(f"{row} Unprocessed vctk, ") and ": verified, 1 of 2 files scored again" in line
    assert total.startswith("1 of 1 records verified")


@pytest.mark.parametrize("place", ["runs", "runs/audiosr"])
def test_all_records_below_a_folder_are_verified(capsys, runs, place):
    lines = verdict(capsys, Path(place), 0)
    assert len(lines) == 4 and lines[-1].startswith("3 of 3 records verified")


def rewrite(path: Path, change) -> None:
    wave, rate = soundfile.read(path, dtype="float32")
    soundfile.write(path, change(wave), rate, subtype="FLOAT")


def saved(row: Path, kind: str) -> Path:
    (path,) = row.glob(f"recordings/{kind}/*.wav")
    return path


def change_record(row: Path, change) -> None:
    record = json.loads((row / "record.json").read_text())
    change(record)
    write_json(row / "record.json", record)


def change_score(record: dict) -> None:
    """The kept recording's, and the mean with it: only scoring again tells."""
    first = sorted(record["files"])[0]
    record["files"][first]["SNR"] += 1
    record["mean"]["SNR"] += 1 / 2


def hum(samples: int) -> np.ndarray:
    return 3e-2 * np.cos(0.1 * np.arange(samples))


DAMAGE = {
    "another estimate": (
        lambda row: rewrite(saved(row, "estimate"), lambda wave: 0.99 * wave),
        "SNR is",
    ),
    "another reference": (
        lambda row: rewrite(saved(row, "reference"), lambda wave: wave + hum(len(wave))),
        "LSD-LF is",
    ),
    "a shorter estimate": (lambda row: rewrite(saved(row, "estimate"), lambda wave: wave[:-1]), "differ in"),
    "no estimate": (lambda row: saved(row, "estimate").unlink(), ".wav is missing"),
    "no recordings": (lambda row: shutil.rmtree(row / "recordings"), ".wav is missing"),
    "not audio": (lambda row: saved(row, "reference").write_text("no"), ".wav is damaged"),
    "no configuration": (lambda row: (row / "config.yaml").unlink(), "config.yaml is missing"),
    "not a record": (lambda row: (row / "record.json").write_text("{"), "record.json is damaged"),
    "another seed": (
        lambda row: change_record(row, lambda record: record["identity"].update(seed=1)),
        "its identity has the hash",
    ),
    "another name": (lambda row: row.rename(row.with_name("0123456789ab")), "its identity has the hash"),
    "another mean": (
        lambda row: change_record(row, lambda record: record["mean"].update(LSD=0.5)),
        "mean of files: LSD is",
    ),
    "another score": (lambda row: change_record(row, change_score), "SNR is"),
}


@pytest.mark.parametrize(("damage", "reason"), DAMAGE.values(), ids=DAMAGE)
def test_what_was_changed_is_named(capsys, runs, row, damage, reason):
    damage(row)
    lines = verdict(capsys, runs, 1)
    assert len(lines) == 4 and lines[-1].startswith("2 of 3 records verified")
    (line,) = (line for line in lines if "NOT verified" in line)
    assert reason in line


def test_a_record_without_recordings_is_not_verified(capsys, runs, row):
    config = row / "config.yaml"
    config.write_text(config.read_text().replace("pictures: 1", "pictures: 0"))
    assert "no recordings were saved (pictures=0)" in verdict(capsys, row, 1)[0]


@pytest.fixture
def run_folder(workplace) -> Path:
    """A finished run, as far as verification looks at it."""
    identity = {"stage": "audiosr.VAE", "seed": 0}
    folder = Path("runs/audiosr") / identity_hash(identity)
    folder.mkdir(parents=True)
    save_file({"weight": torch.ones(3)}, folder / "weights.safetensors")
    weights = file_hash(folder / "weights.safetensors")
    record = {"kind": "run", "run": "vae", "id": folder.name, "identity": identity, "weights": weights}
    write_json(folder / "record.json", record)
    return folder


def test_weights_are_those_of_the_record(capsys, run_folder):
    assert "run vae: verified, weights are" in verdict(capsys, run_folder, 0)[0]
    save_file({"weight": torch.zeros(3)}, run_folder / "weights.safetensors")
    assert "NOT verified: weights.safetensors is not what was trained" in verdict(capsys, run_folder, 1)[0]
    (run_folder / "weights.safetensors").unlink()
    assert "weights.safetensors is missing" in verdict(capsys, run_folder, 1)[0]


def test_an_old_record_does_not_say_its_weights(capsys, run_folder):
    change_record(run_folder, lambda record: record.pop("weights"))
    assert "does not say the hash of its weights" in verdict(capsys, run_folder, 1)[0]


def test_a_place_without_records_is_one_line(capsys, workplace):
    assert main(["--verify", "nowhere"]) == 2
    assert capsys.readouterr().err == "run.py: nowhere: no record.json there or below.\n"


@pytest.mark.parametrize(
    ("value", "other", "same"),
    [
        (1.0, 1.00005, True),
        (1.0, 1.0002, False),
        (100.0, 100.005, True),
        (0.0, 5e-5, True),
        (float("nan"), float("nan"), True),
        (float("inf"), float("inf"), True),
        (float("nan"), 1.0, False),
        (float("inf"), float("-inf"), False),
    ],
)
def test_scores_agree_to_the_tolerance(value, other, same):
    assert close(value, other) == close(other, value) == same


@pytest.mark.parametrize("name", ["stft_hard", "polyphase"])
@pytest.mark.parametrize("task", [{"cutoff_hz": 4000, "scale": None}, {"cutoff_hz": None, "scale": 3}])
def test_the_band_edge_is_the_task_s(name, task):
    task |= {"dataset": "vctk", "loss": None}
    identity = {"task": task, "rate": 48000, "seed": 0, "rule": {"degradation": {"name": name}}}
    pair = pair_again(Signal.of(torch.randn(1, 1, 9600), 48000), "p360_001", identity)
    edge = band_edge(Column("", metric="LSD", **task), 48000)
    assert pair.cutoff.tolist() == [edge] == [4000 if task["cutoff_hz"] else 8000]
