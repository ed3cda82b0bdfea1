"""The command line, end to end, on a corpus of one-second files at preset `smoke`."""

import contextlib
import csv
import io
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file

from callbacks import checkpoints
from callbacks.curves import read_curves
from experiments import compare, runs
from experiments.configuration import configure, duration
from experiments.run import main
from lightning_modules.audiosr.latent_diffusion import LatentDiffusion
from lightning_modules.audiosr.vae import VAE
from lightning_modules.audiosr.vocoder import Vocoder

VCTK_ONLY = ("datasets.esc50=null", "datasets.audiostock=null")
ROWS = ("--row", "AudioSR", "--row", "GT-Mel", "--row", "Unprocessed")


@dataclass
class Done:
    """A finished command, in its own current directory."""

    code: int
    out: str
    err: str
    folder: Path


@pytest.fixture(scope="module")
def command(tiny_corpus, tmp_path_factory):
    """Runs a command of AudioSR at `smoke`; all share their prepared stores."""
    stores = tmp_path_factory.mktemp("data")

    def done(*arguments: str, root: Path = tiny_corpus) -> Done:
        small = [f"data.root={root}", f"data.folder={stores}", "data.test_files=1", "pictures=1"]
        quick = ["data.workers=1", "trainer.threads=1"]  # more threads only wait for each other here
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main(["--paper", "audiosr", "--preset", "smoke", *small, *quick, *arguments])
        return Done(code, out.getvalue(), err.getvalue(), Path.cwd())

    return done


@pytest.fixture(scope="module")
def finished(command, tmp_path_factory) -> Done:
    """Three rows of Table 1, trained and tested."""
    with contextlib.chdir(tmp_path_factory.mktemp("finished")):
        return command(*ROWS)


@pytest.fixture
def afterwards(finished, workplace) -> Path:
    """A workplace where that was done before."""
    shutil.copytree(finished.folder / "runs", workplace / "runs")
    return workplace


def records(folder: Path) -> dict[Path, dict]:
    return {path.parent: json.loads(path.read_text()) for path in folder.glob("runs/audiosr/*/record.json")}


def trained(folder: Path, run: str) -> Path:
    """The folder of a run."""
    (found,) = (path for path, one in records(folder).items() if one.get("run") == run)
    return found


def scores(folder: Path, **wanted) -> list[dict]:
    return [
        one for one in records(folder).values() if one["kind"] == "score" and wanted.items() <= one.items()
    ]


def complaint(done: Done) -> str:
    """The only line on stderr."""
    (line,) = done.err.splitlines()
    return line


# What a run leaves ----------------------------------------------------------------------------------------


def test_rows_are_trained_and_tested(finished):
    assert (finished.code, finished.err.count("run.py")) == (0, 0)
    runs = [one["run"] for one in records(finished.folder).values() if one["kind"] == "run"]
    assert sorted(runs) == ["ldm", "vae", "vocoder"]
    cells = {(one["system"], one["dataset"], one["cutoff_hz"]) for one in scores(finished.folder)}
    columns = [("vctk", 4000), ("vctk", 8000), ("vctk", 12000)]
    columns += [(name, hertz) for name in ("audiostock", "esc50") for hertz in (4000, 8000, 16000)]
    assert cells == {
        (system, *column) for system in ("AudioSR", "GT-Mel", "Unprocessed") for column in columns
    }
    assert len(scores(finished.folder)) == 27


def test_a_run_leaves_weights_curves_configuration_and_record(finished):
    for run in ("vae", "ldm", "vocoder"):
        folder = trained(finished.folder, run)
        names = {path.name for path in folder.iterdir()}
        files = {"weights.safetensors", "curves.png", "curves.csv", "config.yaml", "record.json"}
        assert names == {*files, "index.html"}
        held_out = records(finished.folder)[folder]["held_out"]
        assert held_out["trained"] != held_out["untrained"]
        assert f"run {run} {folder.name}: held-out error trained {held_out['trained']:.4g}" in finished.out


def test_weights_are_without_those_of_the_runs_it_uses(finished):
    assert not [
        name for name in load_file(trained(finished.folder, "ldm") / "weights.safetensors") if "vae" in name
    ]


def test_a_score_leaves_audio_pictures_and_scores_by_file(finished):
    for folder, record in records(finished.folder).items():
        if record["kind"] == "score":
            (id_,) = record["files"]
            names = {path.relative_to(folder).as_posix() for path in folder.glob("recordings/**/*.*")}
            name, kinds = id_.replace("/", "_"), ("input", "estimate", "reference")
            assert names == {f"recordings/{name}.png", *(f"recordings/{kind}/{name}.wav" for kind in kinds)}
            lsds = {f"{name}{band}" for name in ("LSD", "LSD-44.1k") for band in ("", "-LF", "-HF")}
            assert record["mean"].keys() == {*lsds, "SNR", "SI-SDR"}
            assert record["mean"]["LSD"] == record["files"][id_]["LSD"]


def test_the_oracle_does_not_depend_on_the_input(finished):
    oracle = scores(finished.folder, system="GT-Mel", dataset="vctk")
    assert len({one["mean"]["LSD"] for one in oracle}) == 1
    assert len({one["mean"]["LSD"] for one in scores(finished.folder, system="AudioSR", dataset="vctk")}) == 3


def test_corpora_are_counted_and_stand_ins_named(finished):
    assert "vctk test: 4 of 2,937 files, 2 groups" in finished.out
    assert "audiostock test: 1 of 100 files, 1 groups, stand-in" in finished.out
    assert "esc50 test: 2 of 400 files, 1 groups" in finished.out


def test_the_table_has_the_published_beside_the_measured(finished):
    (one,) = scores(finished.folder, system="Unprocessed", dataset="vctk", cutoff_hz=4000)
    assert f"5.15 / {one['mean']['LSD']:.2f}d" in finished.out
    (one,) = scores(finished.folder, system="Unprocessed", dataset="audiostock", cutoff_hz=4000)
    assert f"4.25 / {one['mean']['LSD']:.2f}s" in finished.out
    assert "vctk 1 of 2,937" in finished.out


def test_nothing_of_it_passes_for_a_result(finished, monkeypatch, capsys):
    monkeypatch.chdir(finished.folder)
    compare.main(["--format", "csv"])
    lines = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    # Other tables of the paper show the same records where they ask for the same.
    assert sum(bool(line["measured"]) for line in lines if line["table"] == "table1") == 27
    assert not [line for line in lines if line["reproduced"] or line["standing"] == "reproduction"]


# Again, interrupted, resumed ------------------------------------------------------------------------------


def test_the_same_command_again_does_nothing_and_says_so(command, afterwards):
    def dates() -> dict[Path, int]:
        """Of all but figures, which are drawn anew."""
        return {p: p.stat().st_mtime_ns for p in afterwards.rglob("*") if "figures" not in p.parts}

    before = dates()
    again = command(*ROWS)
    assert again.code == 0
    assert "27 cells were scored before, nothing to do for them" in again.out
    for run in ("vae", "ldm", "vocoder"):
        assert f"run {run} {trained(afterwards, run).name}: finished" in again.out
    assert dates() == before


@pytest.mark.parametrize(
    ("row", "run", "stage"),
    [("GT-Mel", "vocoder", Vocoder), ("AudioSR", "vae", VAE), ("AudioSR", "ldm", LatentDiffusion)],
)
def test_an_interrupted_training_goes_on_to_the_same_weights(
    command, afterwards, monkeypatch, row, run, stage
):
    folder = trained(afterwards, run)
    uninterrupted, curves = load_file(folder / "weights.safetensors"), read_curves(folder)
    shutil.rmtree(folder)
    step = stage.training_step

    def interrupted(self, pair, batch):
        if self.batches_seen == 3:  # in the middle of the second epoch of two
            raise KeyboardInterrupt
        return step(self, pair, batch)

    with monkeypatch.context() as patch:
        patch.setattr(stage, "training_step", interrupted)
        done = command("--row", row, *VCTK_ONLY, "trainer.save_every=0")
    assert done.code == 130
    assert (
        done.err.splitlines()[-1] == "run.py: interrupted; the same command goes on from the last checkpoint."
    )
    assert "Traceback" not in done.err
    assert not (folder / "record.json").exists()
    checkpoint = torch.load(folder / "last.ckpt", weights_only=True)
    assert checkpoint["state_dict"]["batches_seen"] == 3

    done = command("--row", row, *VCTK_ONLY)
    assert done.code == 0
    assert f"run {run} {folder.name}: goes on from its last checkpoint" in done.out
    resumed = load_file(folder / "weights.safetensors")
    assert resumed.keys() == uninterrupted.keys()
    assert not [name for name in resumed if not resumed[name].equal(uninterrupted[name])]
    assert read_curves(folder) == curves
    assert not (folder / "last.ckpt").exists()


def test_out_of_time_three_times_it_goes_on_to_the_same_weights(command, afterwards, monkeypatch):
    folder = trained(afterwards, "vocoder")
    uninterrupted = load_file(folder / "weights.safetensors")
    shutil.rmtree(folder)
    step, minutes = Vocoder.training_step, [0]  # a step takes one, and nothing else takes time

    def training_step(self, pair, batch):
        minutes[0] += 1
        return step(self, pair, batch)

    clock = SimpleNamespace(monotonic=lambda: 60 * minutes[0], perf_counter=lambda: 0.0)
    monkeypatch.setattr(Vocoder, "training_step", training_step)
    monkeypatch.setattr(runs, "time", clock)
    monkeypatch.setattr(checkpoints, "time", clock)
    for steps in (1, 2, 3):  # in the middle of an epoch, at its end, in the next
        done = command("--row", "GT-Mel", "--row", "Unprocessed", *VCTK_ONLY, "trainer.max_time=00:00:01:00")
        assert done.code == 1
        assert f"stopped by trainer.max_time after {steps} of 4 steps; the same command goes on" in done.err
        assert not (folder / "record.json").exists()
    done = command("--row", "GT-Mel", *VCTK_ONLY, "trainer.max_time=00:00:01:00")
    assert (done.code, done.err) == (0, "")
    resumed = load_file(folder / "weights.safetensors")
    assert not [name for name in resumed if not resumed[name].equal(uninterrupted[name])]


def test_no_run_is_begun_out_of_time(command, workplace):
    done = command("--row", "GT-Mel", *VCTK_ONLY, "trainer.max_time=00:00:00:00")
    assert done.code == 1
    assert "not begun: trainer.max_time is over; the same command goes on" in done.err
    assert not list(workplace.glob("runs/audiosr/*/last.ckpt"))


def test_a_duration_is_not_a_number_of_base_60():
    config = configure("audiosr", "smoke", ["trainer.max_time=10:00:00:00"])
    assert duration(config["trainer"]["max_time"]) == 10 * 24 * 3600
    assert duration("00:01:02:03") == 3723


def test_seeds_train_and_count(command, afterwards):
    done = command("--row", "GT-Mel", "--seeds", "2", *VCTK_ONLY)
    assert done.code == 0
    runs = [one["identity"] for one in records(afterwards).values() if one.get("run") == "vocoder"]
    assert sorted(identity["seed"] for identity in runs) == [0, 1]
    both = scores(afterwards, system="GT-Mel", dataset="vctk", cutoff_hz=4000)
    assert sorted(one["seed"] for one in both) == [0, 1]
    assert len({one["family"] for one in both}) == 1
    mean = sum(one["mean"]["LSD"] for one in both) / 2
    assert f"0.64 / {mean:.2f}" in done.out


def test_another_training_is_another_number_not_another_seed(command, afterwards):
    command("--row", "GT-Mel", *VCTK_ONLY, "seed=1", "runs.vocoder.training.steps=2")
    both = scores(afterwards, system="GT-Mel", dataset="vctk", cutoff_hz=4000)
    assert len(both) == len({one["family"] for one in both}) == 2


def test_a_changed_setting_has_a_record_of_its_own(command, afterwards):
    """Otherwise the first command would say for ever what the number is worth."""
    only = ("--row", "Unprocessed", *VCTK_ONLY)
    assert command(*only, "method.steps=1").code == 0  # which it does not follow from
    assert len(scores(afterwards, system="Unprocessed", dataset="vctk", cutoff_hz=4000)) == 1
    assert command(*only, "data.test_files=3").code == 0
    found = scores(afterwards, system="Unprocessed", dataset="vctk", cutoff_hz=4000)
    assert sorted(one["changes"] for one in found) == [["data.test_files=1"], ["data.test_files=3"]]


def test_more_pictures_than_there_are_are_made(command, afterwards):
    only = ("--row", "Unprocessed", *VCTK_ONLY)
    (before,) = scores(afterwards, system="Unprocessed", dataset="vctk", cutoff_hz=4000)
    kept = list((afterwards / "runs" / "audiosr" / before["id"]).glob("recordings/input/*.wav"))
    assert command(*only, "pictures=1", "data.test_files=1").code == 0
    again = list((afterwards / "runs" / "audiosr" / before["id"]).glob("recordings/input/*.wav"))
    assert len(again) == 1 >= len(kept)


# Variants and protocols -----------------------------------------------------------------------------------


def test_the_variant_of_the_code_is_another_run(command, afterwards):
    done = command("--row", "AudioSR", "method.variant=code", *VCTK_ONLY)
    assert done.code == 0
    assert sum(one.get("run") == "ldm" for one in records(afterwards).values()) == 2
    assert sum(one.get("run") == "vae" for one in records(afterwards).values()) == 1
    text, code = (
        next(
            one
            for one in scores(afterwards, system="AudioSR", cutoff_hz=12000)
            if one["identity"]["settings"]["spacing"] == v
        )
        for v in ("trailing", "leading")
    )
    assert text["mean"] != code["mean"]


def test_the_aligned_protocol_tests_the_same_runs(command, afterwards):
    before = {path for path, one in records(afterwards).items() if one["kind"] == "run"}
    done = command("--row", "AudioSR", "--row", "Unprocessed", "--protocol", "aligned", *VCTK_ONLY)
    assert done.code == 0
    assert {path for path, one in records(afterwards).items() if one["kind"] == "run"} == before
    assert len(scores(afterwards, protocol="aligned")) == 6
    assert "protocol: aligned" in done.out


# What goes wrong ------------------------------------------------------------------------------------------


def test_broken_files_are_left_out_by_name(command, tiny_corpus, afterwards, tmp_path):
    root = tmp_path / "broken"
    shutil.copytree(tiny_corpus, root)
    for group in "abcdef":  # whichever is trained on
        folder = root / "speech" / f"speech_{group}"
        (folder / "text.flac").write_text("not audio")
        (folder / "empty.flac").touch()
        soundfile.write(folder / "silent.flac", np.zeros(48_000), 48_000)
    done = command("--row", "GT-Mel", *VCTK_ONLY, root=root)
    assert done.code == 0
    left_out = [line for line in done.out.splitlines() if line.startswith("left out: speech/")]
    for name, reason in (("text", "undecodable"), ("empty", "undecodable"), ("silent", "silent")):
        assert any(f"/{name}: {reason}" in line for line in left_out)
    assert (
        f"run vocoder {trained(afterwards, 'vocoder').name}: finished" in done.out
    )  # of the same recordings


def test_a_run_that_fails_blocks_its_rows_only(command, workplace, monkeypatch):
    def out_of_memory(self, pair):
        raise RuntimeError("out of memory\nand more about it")

    monkeypatch.setattr(VAE, "generate", out_of_memory)
    monkeypatch.setattr(Vocoder, "generate", out_of_memory)
    done = command(*ROWS, *VCTK_ONLY)
    assert done.code == 1
    cause = "failed: RuntimeError: out of memory"
    assert [line for line in done.err.splitlines() if line.startswith("run.py")] == [
        f"run.py: no number for AudioSR: run vae {cause}",
        f"run.py: no number for GT-Mel: run vocoder {cause}",
    ]
    assert {one["system"] for one in records(workplace).values()} == {"Unprocessed"}
    assert len(scores(workplace)) == 3


def test_the_weights_of_another_stage_are_refused(command, afterwards):
    vae, vocoder = (trained(afterwards, run) / "weights.safetensors" for run in ("vae", "vocoder"))
    shutil.copy(vae, vocoder)
    done = command("--row", "GT-Mel", *VCTK_ONLY)
    assert done.code == 1
    line = complaint(done)
    assert "no number for GT-Mel: run vocoder failed" in line
    assert "vocoder" in line and "holds lightning_modules.audiosr.vae.VAE, not" in line


def test_damaged_weights_are_one_line(command, afterwards):
    weights = trained(afterwards, "vocoder") / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    done = command("--row", "GT-Mel", *VCTK_ONLY)
    assert done.code == 1
    assert f"{weights.relative_to(afterwards)} is damaged" in complaint(done)


@pytest.mark.parametrize("name", ["last.ckpt", "best.ckpt"])
def test_a_damaged_checkpoint_is_one_line_and_blocks_its_rows_only(command, afterwards, name):
    folder = trained(afterwards, "vocoder")
    (folder / "record.json").unlink()
    (folder / name).write_bytes(b"")
    done = command("--row", "GT-Mel", "--row", "Unprocessed", *VCTK_ONLY)
    assert done.code == 1
    relative = folder.relative_to(afterwards)
    told = f"{relative / name} is damaged: remove {relative} to begin the run anew."
    assert complaint(done) == f"run.py: no number for GT-Mel: run vocoder failed: {told}"
    assert "Unprocessed" in done.out
    shutil.rmtree(folder)
    assert command("--row", "GT-Mel", *VCTK_ONLY).code == 0


@pytest.mark.parametrize(
    "setting", ["method.variant=cod", "method.paste=inptu", "method.steps=3", "method.overlap=64"]
)
def test_what_a_method_refuses_is_said_before_training(command, workplace, setting):
    done = command("--row", "AudioSR", setting, *VCTK_ONLY)
    assert done.code == 2
    assert setting in complaint(done)
    assert not (workplace / "runs").exists()


@pytest.mark.parametrize(
    ("present", "row", "missing"),
    [
        ((), "Unprocessed", "vctk"),
        (("VCTK-Corpus-0.92",), "GT-Mel", "speech"),
        (("VCTK-Corpus-0.92", "speech"), "GT-Mel", "music"),
    ],
)
def test_a_missing_corpus_is_one_line(command, tiny_corpus, workplace, present, row, missing):
    root = workplace / "corpora"
    root.mkdir()
    for part in present:
        shutil.copytree(tiny_corpus / part, root / part)
    done = command("--row", row, *VCTK_ONLY, root=root)
    assert done.code == 2
    assert complaint(done).startswith(f"run.py: corpus {missing}: no folder {root}")
    assert "data.root" in done.err
    assert not (workplace / "runs").exists()


@pytest.mark.parametrize(
    ("row", "change", "message"),
    [
        (
            "AudioSR-Speech",
            "runs.speech.uses.vae=vocoder",
            "speech starts from ldm, which has learnt with vae: set runs.speech.uses.vae=vae",
        ),
        ("AudioSR", "runs.ldm.uses.vae=vocoder", "AudioSR: ldm has learnt with vocoder, but its vae is vae"),
    ],
)
def test_parts_that_have_not_learnt_together_are_one_line(command, workplace, row, change, message):
    done = command("--row", row, change)
    assert done.code == 2
    assert message in complaint(done)
    assert not (workplace / "runs").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "which paper?"),
        (["--paper", "audiosrr"], "did you mean audiosr?"),
        (["--paper", "audiosr", "--table", "tabel1"], "did you mean table1?"),
        (["--paper", "audiosr", "--row", "AudioSr"], "did you mean AudioSR?"),
        (["--paper", "tfnet", "--method", "gt_mel"], "method gt_mel has parts that are trained apart"),
        (["--paper", "audiosr", "--protocol", "alined"], "did you mean aligned?"),
        (["--paper", "audiosr", "--seeds", "0"], "--seeds"),
        (["--paper", "audiosr", "method.stpes=3"], "did you mean method.steps?"),
        (["--paper", "audiosr", "method.steps=few"], "a number is needed"),
        (["--paper", "audiosr", "steps"], "settings are key=value"),
        (
            ["--paper", "audiosr", "trainer.max_time=8:00"],
            "trainer.max_time=8:00: days:hours:minutes:seconds",
        ),
        (["--paper", "audiosr", "trainer.max_time=3600"], "as in 00:08:00:00"),
        (["--paper", "audiosr", "trainer.save_every=-1"], "minutes, 0 or more, or null"),
        (["--paper", "audiosr", "trainer.save_every=often"], "a number is needed"),
        (["--paper", "audiosr", "data.root=nowhere"], "data.root=nowhere: no such folder"),
        (["--paper", "audiosr", "data.root=2024"], "data.root=2024: no such folder"),
        (["--paper", "audiosr", "data.root={a: 1}"], "data.root={a: 1}: no such folder"),
    ],
)
@pytest.mark.parametrize("dry", [[], ["--dry-run"]], ids=["run", "dry"])
def test_a_wrong_command_is_one_line(workplace, capsys, arguments, message, dry):
    assert main([*arguments, *dry]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("run.py: ")
    assert message in line
    assert not list(workplace.iterdir())


@pytest.mark.parametrize("arguments", [["--preset", "bogus"], ["--bogus"]])
def test_a_wrong_option_is_an_error_of_usage(capsys, arguments):
    with pytest.raises(SystemExit) as end:
        main(["--paper", "audiosr", *arguments])
    assert end.value.code == 2
    assert "bogus" in capsys.readouterr().err


# Without doing it -----------------------------------------------------------------------------------------


def test_the_list_names_papers_tables_and_rows(workplace, capsys):
    assert main(["--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for paper in ("audioedsr: ", "audiosr: ", "fma_unet: ", "qista: ", "tfnet: "):
        assert any(line.startswith(paper) for line in lines)
    assert any(line.startswith("  table1: Table 1") for line in lines)
    assert "    AudioSR" in lines
    assert "    NuWave" in lines


def test_a_dry_run_says_everything_and_does_nothing(command, workplace):
    done = command("--preset", "full", "--dry-run", "method.steps=25", "--seeds", "2")
    assert (done.code, done.err) == (0, "")
    assert "steps: 25" in done.out
    assert "rate: 48000" in done.out
    assert "vctk test: 4 of 2,937 files" in done.out
    assert "all/music train: 4 of any number files" in done.out
    assert "run vae: audiosr.VAE, 223,535,569 parameters, 485,000 steps of 4" in done.out
    assert "run ldm: audiosr.LatentDiffusion, 258,195,088 parameters" in done.out
    assert "run vocoder: audiosr.Vocoder, 190,281,889 parameters" in done.out
    assert "row AudioSR-Speech: audiosr of" in done.out
    last = done.out.splitlines()[-1]
    assert all(cost in last for cost in ("of training at", "GiB of memory", "GiB of disk"))
    assert not (workplace / "runs").exists()
