"""What a row leaves on W&B, read back from what an offline run wrote."""

import json
import os
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

from experiments import run, tracking
from experiments.configuration import load_table

pytest.importorskip("wandb")
BLOCK, FULL, LAST = 32768, 1, 4  # of the log: https://github.com/google/leveldb/blob/main/doc/log_format.md


def read(path: Path) -> list:
    """The records of a `.wandb` file: after 7 bytes of its own, chunks in blocks, as LevelDB writes logs."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, at, whole, records = path.read_bytes(), 7, b"", []
    while at + 7 <= len(data):
        if (left := BLOCK - at % BLOCK) < 7:  # no room for a head
            at += left
            continue
        size, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        whole, at = whole + data[at + 7 : at + 7 + size], at + 7 + size
        if kind in (FULL, LAST):
            records.append(Record.FromString(whole))
            whole = b""
    return records


class Logged:
    """What one offline run wrote."""

    def __init__(self, folder: Path):
        (file,) = folder.glob("*.wandb")
        by_kind = defaultdict(list)
        for record in read(file):
            kind = record.WhichOneof("record_type")
            by_kind[kind].append(getattr(record, kind))
        (self.run,) = by_kind["run"]
        (self.end,) = by_kind["exit"]
        self.config = {each.key: json.loads(each.value_json) for each in self.run.config.update}
        self.history = [values(record.item) for record in by_kind["history"]]
        self.summary = {}
        for record in by_kind["summary"]:
            self.summary |= values(record.update)
        self.x = {metric.glob_name: metric.step_metric for metric in by_kind["metric"] if metric.glob_name}
        self.artifacts = {each.name: each for each in by_kind["artifact"]}
        self.files = {path.name: path for path in (folder / "files").rglob("*") if path.is_file()}

    def kept(self, start: str) -> list[Path]:
        return [path for name, path in sorted(self.files.items()) if name.startswith(start)]


def values(items) -> dict:
    return {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in items}


def logged() -> list[Logged]:
    import wandb

    wandb.teardown()  # which waits until all is written
    return [Logged(folder) for folder in sorted(Path("wandb-runs").glob("wandb/offline-run-*"))]


@pytest.fixture
def command(tiny_corpus, workplace, tmp_path_factory, monkeypatch):
    """Runs a command of AudioEDSR's table 3 at `smoke`, as a user who wants W&B offline."""
    import wandb

    wandb.teardown()  # which forgets what the environment was
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    for name in ("CACHE", "CONFIG", "DATA"):
        monkeypatch.setenv(f"WANDB_{name}_DIR", str(workplace / "own"))
    for name, value in {"MODE": "offline", "DIR": str(workplace / "wandb-runs"), "SILENT": "true"}.items():
        monkeypatch.setenv(f"WANDB_{name}", value)
    Path("wandb-runs").mkdir()
    small = [f"data.root={tiny_corpus}", f"data.folder={tmp_path_factory.getbasetemp() / 'tracking'}"]
    small += ["data.test_files=1", "data.workers=1", "trainer.threads=1"]

    def done(*arguments: str) -> int:
        return run.main([*done.first, *arguments])

    done.first = ["paper=audioedsr", "table=table3", "preset=smoke", *small]
    yield done
    wandb.teardown()


def records() -> dict[str, dict]:
    """By system or run."""
    found = [json.loads(path.read_text()) for path in Path("runs/audioedsr").glob("*/record.json")]
    return {record.get("system") or record["run"]: record for record in found}


def test_a_row_is_a_run_with_all_that_it_leaves(command):
    assert command("row=Spline", "row=AudioEDSR", "scale=4") == 0
    spline, edsr = sorted(logged(), key=lambda each: each.run.job_type)
    record, trained = records()["AudioEDSR"], records()["edsr_x4"]
    assert (spline.run.job_type, edsr.run.job_type) == ("test", "training")
    assert edsr.run.display_name == "AudioEDSR on vctk, x4 smoke seed 0"
    assert (edsr.run.project, edsr.run.run_group) == ("wideband", "audioedsr table3")
    assert {"audioedsr", "table3", "smoke", "published"} == set(edsr.run.tags)
    assert (spline.end.exit_code, edsr.end.exit_code) == (0, 0)
    # The configuration: resolved, with the place in the table.
    assert (edsr.config["row"], edsr.config["tasks"]) == ("AudioEDSR", ["vctk, x4"])
    assert (edsr.config["method"]["name"], edsr.config["method"]["variant"]) == ("audioedsr", "code")
    assert edsr.config["runs"]["edsr_x4"]["training"]["steps"] == 4
    cells = {"cells": {"vctk, x4": record["id"]}, "runs": {"edsr_x4": trained["id"]}}
    assert edsr.config["hashes"] == cells
    # Curves, over their own steps.
    assert edsr.x == {"edsr_x4/*": "edsr_x4/step"}
    losses = [line for line in edsr.history if "edsr_x4/train/l2" in line]
    checks = [line for line in edsr.history if "edsr_x4/held_out/model" in line]
    assert [line["edsr_x4/step"] for line in losses] == [0, 1, 2, 3]
    assert [line["edsr_x4/step"] for line in checks] == [1, 3]
    assert checks[-1]["edsr_x4/held_out/model"] == pytest.approx(trained["held_out"]["trained"])
    # Scores and the table.
    scores = {name: value for name, value in edsr.summary.items() if name.startswith("vctk, x4/")}
    assert {f"vctk, x4/{name}": value for name, value in record["mean"].items()}.items() <= scores.items()
    (sheet,) = edsr.kept("table_")
    table = json.loads(sheet.read_text())
    lines = [dict(zip(table["columns"], line, strict=True)) for line in table["data"]]
    published = load_table("audioedsr", "table3").row("AudioEDSR").published
    (lsd,) = (line for line in lines if line["system"] == "AudioEDSR" and line["metric"] == "LSD")
    assert (lsd["published"], lsd["run"]) == (published["x4_LSD"], record["id"])
    assert lsd["measured"] == pytest.approx(record["mean"]["LSD"], rel=1e-3)
    assert {line["system"] for line in lines} >= {"Spline", "AudioUNet"}
    # What is heard and seen.
    (id_,) = sorted(record["files"])
    for kind in ("input", "estimate", "reference"):
        (file,) = edsr.kept(f"{kind}_")
        ours = Path("runs/audioedsr", record["id"], "recordings", kind, f"{id_.replace('/', '_')}.wav")
        assert file.read_bytes() == ours.read_bytes()
        shown = {
            key: value
            for line in edsr.history
            for key, value in line.items()
            if key.startswith(f"vctk, x4/{kind}")
        }
        assert f"{id_}, {kind}: AudioEDSR on vctk, x4" in json.dumps(shown)
    assert len(edsr.kept("spectrograms_")) == len(edsr.kept("edsr_x4_")) == 1
    # The weights.
    assert not [name for name in spline.artifacts if name.startswith("audioedsr")]
    model = edsr.artifacts["audioedsr-edsr_x4"]
    assert (model.type, trained["id"] in model.aliases) == ("model", True)
    paths = {each.path: Path(each.local_path) for each in model.manifest.contents}
    assert paths.keys() == {"weights.safetensors", "record.json", "config.yaml"}
    folder = Path("runs/audioedsr", trained["id"]).resolve()
    assert {path.resolve().parent for path in paths.values()} == {folder}  # not copied
    metadata = json.loads(model.metadata)
    assert {key: metadata[key] for key in ("id", "preset", "held_out", "parameters")} == {
        key: trained[key] for key in ("id", "preset", "held_out", "parameters")
    }


def test_trainings_of_one_name_are_told_apart_by_their_hashes(monkeypatch):
    class Learnt:
        def __init__(self, hash_: str):
            self.hash = hash_

        def folder(self, name: str) -> Path:
            return Path("runs") / f"{name[0]}{self.hash}"

    one, other = Learnt("1"), Learnt("2")
    monkeypatch.setattr(tracking, "wanted_runs", lambda *_: [(one, "vae"), (one, "net"), (other, "net")])
    found = {name: folder.name for name, folder in tracking.trainings(None, None).items()}
    assert found == {"vae": "v1", "net n1": "n1", "net n2": "n2"}


def test_a_row_that_is_finished_has_no_run_but_under_a_sweep(command, monkeypatch):
    import wandb

    assert command("row=Spline", "scale=2") == 0
    (before,) = logged()
    assert command("row=Spline", "scale=2") == 0
    assert len(logged()) == 1
    monkeypatch.setenv("WANDB_SWEEP_ID", "sweep123")
    monkeypatch.setenv("WANDB_RUN_ID", "of_the_agent")
    wandb.teardown()
    assert command("row=Spline", "scale=2") == 0
    swept = next(each for each in logged() if each.run.run_id != before.run.run_id)
    assert (swept.run.run_id, swept.run.sweep_id) == ("of_the_agent", "sweep123")
    assert swept.summary["vctk, x2/LSD"] == before.summary["vctk, x2/LSD"]


def test_an_interrupted_row_goes_on_under_its_id(command, monkeypatch):
    from lightning_modules.audioedsr import AudioEDSR

    step, steps = AudioEDSR.training_step, []

    def interrupted(self, *arguments):
        steps.append(len(steps))
        if len(steps) == 4:
            raise KeyboardInterrupt
        return step(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(AudioEDSR, "training_step", interrupted)
        assert command("row=AudioEDSR", "scale=4") == 130
    assert command("row=AudioEDSR", "scale=4") == 0
    first, second = sorted(logged(), key=lambda each: -each.end.exit_code)
    assert (first.end.exit_code, second.end.exit_code) == (255, 0)
    assert first.run.run_id == second.run.run_id
    assert first.run.resumed is second.run.resumed is False  # which only the server knows
    told = [
        line["edsr_x4/step"] for each in (first, second) for line in each.history if "edsr_x4/step" in line
    ]
    assert sorted(set(told)) == [0, 1, 2, 3]
    assert "vctk, x4/LSD" not in first.summary


def test_a_row_without_a_number_ends_as_failed(command, monkeypatch):
    from experiments.rows import Rows

    monkeypatch.setattr(Rows, "score", lambda *arguments: 1 / 0)
    assert command("row=Spline", "scale=2") == 1
    (failed,) = logged()
    assert failed.end.exit_code == 1


def test_without_an_account_nothing_is_written(command, monkeypatch, workplace):
    monkeypatch.delenv("WANDB_MODE")
    monkeypatch.setenv("NETRC", str(workplace / "none"))
    assert tracking.wandb_mode() is None
    assert command("row=Spline", "scale=2") == 0
    assert not list(Path("wandb-runs").iterdir())


def test_a_wrong_key_is_said_once_and_costs_no_number(command, monkeypatch, capfd):
    monkeypatch.delenv("WANDB_MODE")
    monkeypatch.setenv("WANDB_API_KEY", "short")
    assert tracking.wandb_mode() == "online"
    assert command("row=Spline", "row=Unprocessed", "scale=2") == 0
    said = [line for line in capfd.readouterr().out.splitlines() if "W&B" in line]
    assert len(said) == 1 and said[0].startswith("Spline: W&B failed") and "40+ characters" in said[0]
    assert records().keys() == {"Spline", "Unprocessed"}


KILLED = """
import os, signal, subprocess, sys
from experiments import run
from lightning_modules.audioedsr import AudioEDSR

step = AudioEDSR.training_step

def deadly(self, *arguments):
    if int(self.batches_seen) == 1:
        found = subprocess.check_output(["pgrep", "-P", str(os.getpid()), "wandb-core"])
        os.kill(int(found), signal.SIGKILL)
    return step(self, *arguments)

AudioEDSR.training_step = deadly
code = run.main(sys.argv[1:])
print("ended", code, flush=True)
os._exit(0)
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="pgrep")
def test_a_training_outlives_the_process_of_wandb(command):
    arguments = [*command.first, "row=AudioEDSR", "row=Spline", "scale=4"]
    house = {"PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, "-c", KILLED, *arguments],
        env=os.environ | house,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert "ended 0" in done.stdout, done.stderr
    assert "run edsr_x4: W&B has no more of its curves" in done.stdout
    assert "AudioEDSR: W&B failed, and is left out from here on" in done.stdout
    assert {"AudioEDSR", "edsr_x4", "Spline"} <= records().keys()
