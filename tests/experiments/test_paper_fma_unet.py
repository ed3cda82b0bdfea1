"""The paper fma_unet by its commands: crops of peak 1, tables of their own segments, halves, seams, stops."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
from safetensors.torch import load_file

from callbacks import checkpoints
from callbacks.curves import read_curves
from experiments import compare, run, runs
from experiments.configuration import configure, load_table
from experiments.runs import count_parameters
from lightning_modules.fma_unet import FmaUNet
from signals.errors import UserError

pytestmark = pytest.mark.slow  # whole runs of a paper's tables

SHORT = ("segment=8192", "data.held_out_files=1")


@pytest.fixture
def command(tiny_corpus, workplace, tmp_path_factory):
    stores = tmp_path_factory.getbasetemp() / "fma_unet"

    def done(*arguments: str) -> int:
        small = ["data.test_files=1", "data.workers=1", "trainer.threads=1", *SHORT]
        where = [f"data.root={tiny_corpus}", f"data.folder={stores}"]
        return run.main(["--paper", "fma_unet", "--preset", "smoke", *small, *where, *arguments])

    return done


def records(kind: str) -> list[dict]:
    found = (json.loads(path.read_text()) for path in sorted(Path("runs/fma_unet").glob("*/record.json")))
    return [record for record in found if record["kind"] == kind]


def test_full_size_and_the_settings_of_both_tables():
    first, second = (
        configure("fma_unet", "full", table=load_table("fma_unet", table).config)
        for table in ("table1", "table2")
    )
    assert count_parameters(first, "unet")[0] == count_parameters(second, "unet")[0] == 5_995_457
    for config, segment, tracks in ((first, 65536, 2000), (second, 16384, 1000)):
        assert config["runs"]["unet"]["data"]["window"] == segment
        assert config["protocols"]["published"]["crop"] == config["method"]["window"] == segment
        assert config["datasets"]["fma_small"]["tracks"] == tracks
    assert first["runs"]["unet"]["options"]["resolutions"][0] == [512, 128]
    assert second["runs"]["unet"]["options"]["resolutions"] == [[1024, 120], [2048, 240], [512, 50]]
    code, text = (
        configure("fma_unet", "full", [f"method.variant={v}"])["runs"]["unet"] for v in ("code", "text")
    )
    assert code["weights"] == {"stft": 1.0, "stft_l1": 0.0, "l1": 0.0}
    assert text["weights"] == {"stft": 0.0, "stft_l1": 1.0, "l1": 0.0}


def test_what_is_scored_are_crops_of_peak_one(command):
    assert command("--row", "Unprocessed", "--row", "Silence") == 0
    unprocessed, silence = sorted(records("score"), key=lambda r: r["system"], reverse=True)
    folder = Path("runs/fma_unet") / unprocessed["id"] / "recordings"
    for kind in ("input", "reference"):
        (file,) = (folder / kind).glob("*.wav")
        wave, rate = soundfile.read(file)
        assert (rate, len(wave), np.abs(wave).max()) == (44100, 8192, pytest.approx(1))
    assert silence["mean"]["L1"] == pytest.approx(np.abs(wave).mean(), rel=1e-4)
    assert silence["mean"]["MSE"] == pytest.approx(np.square(wave).mean(), rel=1e-4)
    assert unprocessed["mean"]["L1"] < silence["mean"]["L1"]


def test_tables_have_records_of_their_own(command):
    for table in ("table1", "table2"):
        assert command("--table", table, "--row", "Silence") == 0
        assert len(records("score")) == (1 if table == "table1" else 2)
    shown = [
        next(
            line["run"]
            for line in compare.lines(load_table("fma_unet", table), Path("runs"))
            if line["system"] == "Silence"
        )
        for table in ("table1", "table2")
    ]
    assert len(set(shown)) == 2


def test_halves_are_of_the_seeds_that_ended_so(command, capsys):
    rows = ("--row", "STFT loss alone", "--row", "Unprocessed")
    assert command("--table", "polarity", *rows, "--seeds", "3") == 0
    assert "no finite" not in capsys.readouterr().out
    scored = [record for record in records("score") if record["system"] == "STFT loss alone"]
    signs = {r["seed"]: r["mean"]["flipped"] for r in scored}
    assert set(signs) == {0, 1, 2}
    for r in scored:
        half, other = ("-flipped", "-upright") if signs[r["seed"]] else ("-upright", "-flipped")
        assert r["mean"][f"L1{half}"] == r["mean"]["L1"]
        assert f"L1{other}" not in r["mean"]
    lines = {
        line["metric"]: line for line in compare.lines(load_table("fma_unet", "polarity"), Path("runs"))[:8]
    }
    assert float(lines["flipped"]["measured"]) == pytest.approx(np.mean(list(signs.values())), abs=1e-3)
    for half, sign in (("-flipped", 1), ("-upright", 0)):
        some = [r["mean"]["L1"] for r in scored if signs[r["seed"]] == sign]
        assert lines[f"L1{half}"]["seeds"] == (len(some) or "")


def test_all_cells_of_a_row_are_judged_by_what_is_learnt(command):
    """Not by L1, in which a faithful run may well be below its input."""
    assert command("--table", "corrected", "--row", "U-Net", "--row", "Unprocessed") == 0
    lines = compare.lines(load_table("fma_unet", "corrected"), Path("runs"))
    assert {line["standing"] for line in lines if line["system"] == "U-Net"} == {"untrained"}
    assert {line["standing"] for line in lines if line["system"] == "Unprocessed"} == {"demo"}
    table = load_table("fma_unet", "corrected")
    (unet,) = (r for r in records("score") if r["system"] == "U-Net")
    trained = unet | {"mean": unet["mean"] | {"STFT_loss": 0.0}}
    others = [r for r in records("score") if r["system"] != "U-Net"]
    cells = (compare.cell(table, table.row("U-Net"), column, [trained, *others]) for column in table.columns)
    assert {line["standing"] for line in cells} == {"demo"}


def test_without_demucs_the_other_rows_have_their_numbers(command, monkeypatch, capsys):
    from lightning_modules import separation

    def missing():
        raise UserError("separator=demucs: no weights")

    monkeypatch.setattr(separation, "hybrid_demucs", missing)
    assert command("--table", "tried") == 1
    assert "no number for U-Net, stems by demucs one by one: separator=demucs" in capsys.readouterr().err
    assert len({r["system"] for r in records("score")}) == 3


def test_windows_may_overlap_or_be_one(command):
    systems = ("U-Net", "U-Net, windows overlap by 8,192", "U-Net, whole at once")
    rows = [argument for system in systems for argument in ("--row", system)]
    assert command("--table", "seams", *rows, "segment=16384") == 0
    assert len(records("run")) == 1
    assert len({json.dumps(r["files"]) for r in records("score")}) == 3


def test_parts_are_enhanced_one_by_one(command, capsys):
    rows = (
        "--row",
        "U-Net, with the waveform's term",
        "--row",
        "U-Net, harmonic and percussive parts one by one",
        "--row",
        "Unprocessed",
    )
    assert command("--table", "tried", *rows) == 0
    assert len(records("run")) == 1
    assert {r["system"] for r in records("score")} == set(rows[1::2])


def test_three_stops_end_in_the_same_weights_rate_and_best_check(command, workplace, monkeypatch):
    settings = (
        "--row",
        "U-Net",
        "pictures=0",
        "training.steps=6",
        "optimizer.schedule.patience=0",
        "optimizer.lr=0.1",
    )
    assert command(*settings) == 0
    (record,) = records("run")
    folder = workplace / "runs/fma_unet" / record["id"]
    uninterrupted, curves = load_file(folder / "weights.safetensors"), read_curves(folder)
    checks = [value for _, value in curves["held_out/model"]]
    assert record["held_out"]["trained"] == pytest.approx(min(checks), rel=1e-4)
    shutil.rmtree(workplace / "runs")
    step, minutes = FmaUNet.training_step, [0]  # a step takes one, and nothing else takes time

    def training_step(self, pair, batch):
        minutes[0] += 1
        return step(self, pair, batch)

    clock = SimpleNamespace(monotonic=lambda: 60 * minutes[0], perf_counter=lambda: 0.0)
    with monkeypatch.context() as patch:
        patch.setattr(FmaUNet, "training_step", training_step)
        patch.setattr(runs, "time", clock)
        patch.setattr(checkpoints, "time", clock)
        for _ in range(3):
            assert command(*settings, "trainer.max_time=00:00:01:00") == 1
            assert not (folder / "record.json").exists()
        assert minutes == [3]
    assert command(*settings) == 0
    resumed = load_file(folder / "weights.safetensors")
    assert not [name for name in resumed if not resumed[name].equal(uninterrupted[name])]
    assert read_curves(folder)["held_out/model"] == curves["held_out/model"]
    assert sorted(path.name for path in folder.iterdir() if path.suffix == ".ckpt") == []
