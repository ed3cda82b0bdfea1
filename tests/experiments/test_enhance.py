"""enhance.py: files and folders in, the same files at the full band out."""

import json
import os
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
import soundfile
import torch
from audiosr_file import CRITICS, MODELS, drawn, make_small
from safetensors.torch import save_file

from experiments import configuration, enhance, run
from experiments.enhance import main, newest
from experiments.records import read_record, write_json
from experiments.runs import load_weights
from signals.errors import UserError

RATE = 48_000


def write(path, wave, rate=16_000, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, wave, rate, **options)
    return path


def noise(samples: int, channels: int = 1, seed: int = 0) -> np.ndarray:
    return 0.1 * np.random.default_rng(seed).standard_normal((samples, channels))


@pytest.fixture
def folder(workplace):
    """Three recordings: mono, stereo in a subfolder, and one of another rate."""
    write(workplace / "in" / "mono.wav", noise(8_001))
    write(workplace / "in" / "deep" / "stereo.flac", noise(5_000, 2))
    write(workplace / "in" / "high.wav", noise(96_000), 96_000)
    return workplace


def test_files_and_folders_keep_names_channels_and_length(folder, capsys):
    assert main(["in", "--method", "spline", "--output", "out"]) == 0
    assert "3 of 3 recordings enhanced into out/" in capsys.readouterr().out
    for name, frames, channels in (("mono", 24_003, 1), ("deep/stereo", 15_000, 2), ("high", 48_000, 1)):
        info = soundfile.info(folder / "out" / f"{name}.wav")
        assert (info.samplerate, info.frames, info.channels) == (RATE, frames, channels)
        assert info.subtype == "FLOAT"
    assert not list(folder.glob("out/**/*.partial"))


def test_channels_stay_apart_and_in_their_place(workplace):
    wave = np.zeros((4000, 2))
    wave[1000, 0] = wave[3000, 1] = 0.5
    write(workplace / "a.wav", wave, subtype="FLOAT")
    assert main(["a.wav", "--method", "linear", "--output", "out"]) == 0
    out, _ = soundfile.read(workplace / "out" / "a.wav")
    assert np.abs(out).argmax(axis=0).tolist() == [3000, 9000]
    assert np.abs(out).max(axis=0) == pytest.approx([0.5, 0.5], abs=1e-6)


def test_results_that_are_there_are_not_made_again(folder, capsys):
    main(["in/mono.wav", "--method", "hold", "--output", "out"])
    made = (folder / "out" / "mono.wav").stat().st_mtime_ns
    capsys.readouterr()
    assert main(["in", "--method", "hold", "--output", "out"]) == 0
    assert "1 results were there before" in capsys.readouterr().out
    assert (folder / "out" / "mono.wav").stat().st_mtime_ns == made
    main(["in", "--method", "hold", "--output", "out", "--overwrite"])
    assert (folder / "out" / "mono.wav").stat().st_mtime_ns != made


def samples(path) -> np.ndarray:
    return soundfile.read(path)[0]


def test_two_inputs_of_one_name_both_have_a_result(folder):
    write(folder / "in" / "mono.flac", noise(4_000, seed=1))
    write(folder / "more" / "mono.wav", noise(5_000, seed=2))
    write(folder / "deep" / "more" / "mono.wav", noise(6_000, seed=3))
    inputs = ["in", "more", "deep/more", "in/mono.wav"]
    assert main([*inputs, "--method", "hold", "--output", "out"]) == 0
    made = {
        path.relative_to(folder / "out").as_posix(): len(samples(path))
        for path in folder.glob("out/**/*.wav")
    }
    assert made == {
        "mono.flac.wav": 12_000,
        "mono.wav.wav": 24_003,
        "more/mono.wav.wav": 15_000,
        "mono.wav-2.wav": 18_000,
        "deep/stereo.wav": 15_000,
        "high.wav": 48_000,
    }


@pytest.mark.parametrize(
    "otherwise", [["--method", "hold"], ["--rate", "32000"], ["--cutoff", "3000"], ["--seed", "1"]]
)
def test_a_result_that_was_made_otherwise_is_made_again(folder, capsys, otherwise):
    usual = ["in", "--method", "linear", "--output", "out"]
    assert main(usual) == main(usual) == 0
    assert "3 results were there before" in capsys.readouterr().out
    before = (folder / "out" / "mono.wav").stat().st_mtime_ns
    assert main([*usual, *otherwise]) == 0
    assert "were there before" not in capsys.readouterr().out
    assert (folder / "out" / "mono.wav").stat().st_mtime_ns > before


def test_another_input_of_the_same_name_is_enhanced(folder, capsys):
    usual = ["in", "--method", "linear", "--output", "out", "--format", "flac"]
    assert main(usual) == 0
    write(folder / "in" / "mono.wav", noise(4_000, seed=9))
    capsys.readouterr()
    assert main(usual) == 0
    assert "2 results were there before" in capsys.readouterr().out
    assert len(samples(folder / "out" / "mono.flac")) == 12_000


def test_what_somebody_else_wrote_is_not_replaced(folder, capsys):
    theirs = write(folder / "out" / "mono.wav", noise(10, seed=5)).read_bytes()
    assert main(["in", "--method", "linear", "--output", "out"]) == 1
    told = capsys.readouterr()
    assert "out/mono.wav: is there, but does not say how it was made: --overwrite replaces it" in told.err
    assert "2 of 3 recordings enhanced" in told.out
    assert (folder / "out" / "mono.wav").read_bytes() == theirs
    assert main(["in", "--method", "linear", "--output", "out", "--overwrite"]) == 0
    assert len(samples(folder / "out" / "mono.wav")) == 24_003


def test_a_rate_above_the_method_s_is_said(folder, capsys):
    assert main(["in/high.wav", "--method", "linear", "--output", "out"]) == 0
    assert "in/high.wav: brought down from 96,000 to the method's 48,000 Hz" in capsys.readouterr().out


@pytest.mark.parametrize("form", ["MP3", "OGG", "FLAC"])
def test_long_recordings_are_those_that_were_decoded_first(workplace, form):
    """Windows of it are read forward: after a seek in an MP3 its samples are wrong for a while."""
    source = write(workplace / "in" / "a.x", noise(30 * 44_100, 2), 44_100, format=form)
    source = source.rename(source.with_suffix(f".{form.lower()}"))
    with soundfile.SoundFile(source) as file:
        write(workplace / "decoded" / "a.wav", file.read(dtype="float32"), 44_100, subtype="FLOAT")
    for inputs in ("in", "decoded"):
        assert main([inputs, "--method", "spline", "--output", f"from_{inputs}"]) == 0
    found, expected = (samples(workplace / place / "a.wav") for place in ("from_in", "from_decoded"))
    np.testing.assert_array_equal(found, expected)


def test_a_format_that_cannot_hold_it_is_said(workplace, capsys):
    write(workplace / "nine.wav", noise(1_000, 9))
    assert main(["nine.wav", "--method", "hold", "--output", "out", "--format", "flac"]) == 1
    assert "nine.wav: FLAC holds 8 channels at most, not 9: --format wav" in capsys.readouterr().err


def test_no_room_for_a_result_is_said(workplace, capsys):
    write(workplace / "a.wav", noise(1_000))
    (workplace / "out").write_text("a file in the place of the folder")
    assert main(["a.wav", "--method", "hold", "--output", "out"]) == 1
    assert "a.wav: its result cannot be written: File exists" in capsys.readouterr().err


def test_a_name_that_is_no_text_costs_no_other(workplace, capsys):
    write(workplace / "in" / "good.wav", noise(1_000))
    lost = workplace / "in" / os.fsdecode(b"caf\xe9.wav")
    lost.write_bytes((workplace / "in" / "good.wav").read_bytes())
    assert main(["in", "--method", "hold", "--output", "out"]) == 1
    told = capsys.readouterr()
    assert (workplace / "out" / "good.wav").is_file()
    assert "enhance.py: left out: in/caf\\xe9.wav: its name is not UTF-8: rename it" in told.err
    assert main([str(lost), "--method", "hold", "--output", "out"]) == 0  # where a person names it


def test_links_are_followed_and_what_leads_nowhere_is_named(folder, capsys):
    (folder / "in" / "link").symlink_to(folder / "in" / "deep")
    (folder / "in" / "deep" / "loop").symlink_to(folder / "in")
    (folder / "in" / "gone.wav").symlink_to(folder / "nowhere.wav")
    assert main(["in", "--method", "hold", "--output", "out"]) == 1
    told = capsys.readouterr()
    assert "4 of 4 recordings enhanced" in told.out
    assert (folder / "out" / "link" / "stereo.wav").is_file()
    assert "left out: in/gone.wav: a link that leads nowhere" in told.err
    assert "left out: in/deep/loop: a link to a folder that it is in itself" in told.err


def test_what_is_broken_is_left_out_by_name(folder, capsys):
    (folder / "in" / "broken.wav").write_text("not audio")
    write(folder / "in" / "empty.wav", np.zeros((0, 1)))
    write(folder / "in" / "bad.wav", np.full((100, 1), np.nan), subtype="FLOAT")
    assert main(["in", "--method", "hold", "--output", "out"]) == 1
    printed = capsys.readouterr()
    assert "3 of 6 recordings" in printed.out
    reasons = {
        name: line for line in printed.err.splitlines() for name in ("broken", "empty", "bad") if name in line
    }
    assert "undecodable" in reasons["broken"]
    assert reasons["empty"].endswith("empty")
    assert "NaN" in reasons["bad"]


def test_flac_says_what_it_clips(workplace, capsys):
    write(workplace / "loud.wav", np.full((1000, 1), 1.5), subtype="FLOAT")
    assert main(["loud.wav", "--method", "hold", "--output", "out", "--format", "flac"]) == 0
    assert "3000 samples clipped" in " ".join(capsys.readouterr().out.split())
    assert main(["loud.wav", "--method", "hold", "--output", "out"]) == 0
    assert soundfile.read(workplace / "out" / "loud.wav")[0].max() == pytest.approx(1.5)


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("CUDA out of memory")])
def test_what_fails_for_one_file_ends_no_other(folder, capsys, monkeypatch, error):
    whole = enhance.enhance_file

    def failing(method, source, *others):
        if source.name == "high.wav":
            raise error
        return whole(method, source, *others)

    monkeypatch.setattr(enhance, "enhance_file", failing)
    assert main(["in", "--method", "hold", "--output", "out"]) == 1
    printed = capsys.readouterr()
    assert "2 of 3 recordings" in printed.out
    assert f"left out: in/high.wav: {type(error).__name__}" in printed.err


def test_results_within_an_input_are_not_enhanced_again(folder, capsys):
    for form in ("wav", "flac"):
        assert main(["in", "--method", "hold", "--output", "in/out", "--format", form]) == 0
        assert "3 of 3 recordings" in capsys.readouterr().out
    assert not (folder / "in" / "out" / "out").exists()


def test_what_begins_with_a_dot_is_no_recording(folder):
    (folder / "in" / "._mono.wav").write_text("what a Mac leaves")
    assert main(["in", "--method", "hold", "--output", "out"]) == 0


def test_nothing_is_left_of_a_file_that_fails(workplace):
    """Its second half is not finite: by then, there is a partial result."""
    wave = np.zeros((2_000_000, 1), np.float32)
    wave[-1] = np.nan
    write(workplace / "bad.wav", wave, subtype="FLOAT")
    assert main(["bad.wav", "--method", "hold", "--output", "out"]) == 1
    assert list((workplace / "out").iterdir()) == []


NVSR = "NVSR, released weights"
NO_EDGES = ("-1", "0.2", "nan", "inf", "300000")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.wav", "--method", "hold"], "no such file"),
        (["in", "--method", "audiosr"], "needs weights"),
        (["in", "--method", "splin"], "unknown method splin"),
        (["in", "--checkpoint", "nowhere"], "no such folder"),
        (["in", "--checkpoint", "nowhere", "--paper", "audiosr"], "--checkpoint nowhere: no such file"),
        (["in", "--checkpoint", "in/mono.wav", "--paper", "audiosr"], "mono.wav holds no tensors by name"),
        (["in", "--checkpoint", "in/mono.wav", "--paper", "tfnet"], "no row of its first table has released"),
        (
            ["in", "--checkpoint", "a", "--paper", "audiosr", "--row", "AudioSR"],
            '"AudioSR, released weights"',
        ),
        (
            ["in", "--checkpoint", "a", "--paper", "audiosr", "--set", "seed=1"],
            "--set seed=1: a key of the method",
        ),
        (
            ["in", "--checkpoint", "a", "--paper", "audiosr", "--set", "method.step=1"],
            "did you mean method.steps",
        ),
        (["in", "--checkpoint", "a", "--set", "method.steps=1"], "--set with --paper"),
        (
            ["in", "--checkpoint", "a", "--paper", "audiosr", "--row", NVSR, "--set", "method.steps=5"],
            "--set method.steps: NVSR, released weights is used as it is",
        ),
        (
            ["in", "--checkpoint", "in/mono.wav", "--paper", "audiosr", "--row", NVSR],
            "mono.wav holds no tensors by name",
        ),
        (["in", "--method", "hold", "--paper", "audiosr"], "--paper goes with --checkpoint"),
        (["in", "--checkpoint", "in"], "no tested system"),
        *((["in", "--method", "hold", "--cutoff", edge], "from 100 to 200,000 Hz") for edge in NO_EDGES),
        (["in", "--method", "hold", "--rate", "1000000"], "from 1,000 to 400,000 Hz"),
        (["in", "--method", "hold", "--device", "abacus"], "--device abacus"),
        (["in/deep", "--method", "hold", "--output", "in/deep", "--format", "flac"], "replace its own input"),
    ],
)
def test_what_a_user_did_wrong_is_one_line(folder, capsys, arguments, message):
    output = [] if "--output" in arguments else ["--output", "out"]
    assert main([*arguments, *output]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("enhance.py: ")
    assert message in line


@pytest.fixture(scope="module")
def trained(tiny_corpus, tmp_path_factory):
    """A workplace with a tested row of AudioSR's vocoder, an oracle, and of AudioSR itself."""
    place = tmp_path_factory.mktemp("trained")
    settings = ["data.test_files=1", "pictures=0", "datasets.esc50=null", "datasets.audiostock=null"]
    settings += [
        f"data.root={tiny_corpus}",
        f"data.folder={place}/data",
        f"output={place}/runs",
        "data.workers=1",
    ]
    assert (
        run.main(
            ["--paper", "audiosr", "--preset", "smoke", "--row", "AudioSR", "--row", "GT-Mel", *settings]
        )
        == 0
    )
    return place


def keep(folder: Path, number: int, **changes) -> None:
    record = {"kind": "score", "system": "NuWave", "runs": {"itself": "a"}, "cutoff_hz": 4000, "seed": 0}
    record |= {"paper": "audiosr", "preset": "demo", "protocol": "published", "dataset": "vctk"}
    record |= {"provenance": {"finished": f"2026-01-0{number}"}} | changes
    place = folder / "audiosr" / str(number)
    place.mkdir(parents=True)
    (place / "record.json").write_text(json.dumps(record))


def test_of_several_networks_that_of_the_nearest_cutoff_is_used(tmp_path):
    """An older seed's does not count."""
    keep(tmp_path, 1, runs={"itself": "old"}, seed=1, cutoff_hz=7000)
    keep(tmp_path, 2)
    assert newest(tmp_path, "NuWave").name == "2"
    keep(tmp_path, 3, runs={"itself": "b"}, cutoff_hz=8000)
    with pytest.raises(UserError, match=r"choose one by --cutoff \(4,000, 8,000 Hz\)"):
        newest(tmp_path, "NuWave")
    assert newest(tmp_path, "NuWave", 4500).name == "2"
    assert newest(tmp_path, "NuWave", 7000).name == "3"
    keep(tmp_path, 4, runs={"itself": "c"}, cutoff_hz=None, system="TFNet")
    keep(tmp_path, 5, runs={"itself": "d"}, cutoff_hz=None, system="TFNet")
    with pytest.raises(UserError, match="several networks of TFNet: name the folder of one"):
        newest(tmp_path, "TFNet", 4000)


def test_a_tested_row_enhances(trained, folder):
    runs = trained / "runs"
    assert (
        main(
            ["in/deep", "--checkpoint", str(runs), "--row", "AudioSR", "--output", "out", "--cutoff", "4000"]
        )
        == 0
    )
    out, rate = soundfile.read(folder / "out" / "stereo.wav")
    assert (out.shape, rate) == ((15_000, 2), RATE)
    assert np.isfinite(out).all()
    record = newest(runs, "AudioSR")
    assert main(["in/deep", "--checkpoint", str(record), "--output", "again", "--cutoff", "4000"]) == 0
    assert np.array_equal(out, soundfile.read(folder / "again" / "stereo.wav")[0])


def test_what_cannot_enhance_says_why(trained, folder, capsys):
    runs = trained / "runs"
    one_run = next(path for path in runs.glob("audiosr/*") if (read_record(path) or {}).get("kind") == "run")
    for arguments, message in (
        (["--checkpoint", str(runs)], "AudioSR, GT-Mel: choose one by --row"),
        (["--checkpoint", str(runs), "--row", "GT-Mel"], "is an oracle"),
        (["--checkpoint", str(runs), "--row", "NuWave"], "choose one by --row"),
        (["--checkpoint", str(one_run / "weights.safetensors")], "one part of a method"),
    ):
        assert main(["in", *arguments, "--output", "out"]) == 2
        assert message in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["run", "score"])
def test_a_method_of_ones_own_that_was_changed_is_refused(folder, capsys, kind):
    """Its new text on its old weights would be neither."""
    (folder / "mine.py").write_text("raise RuntimeError('not to be run')")
    identity = {"source": "0123456789abcdef", "stage": "mine.py:Net", "method": "mine.py:Net", "uses": {}}
    (folder / "runs").mkdir()
    write_json(folder / "runs" / "record.json", {"kind": kind, "identity": identity})
    assert main(["in", "--checkpoint", "runs", "--method", "mine.py:Net", "--output", "out"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "mine.py:Net was changed since runs was made" in line


def test_weights_of_another_shape_are_one_line(tmp_path):
    path, stage = tmp_path / "weights.safetensors", torch.nn.Linear(2, 3)
    weights = {"weight": torch.zeros(5, 2), "bias": torch.zeros(3)}
    save_file(weights, path, {"stage": "torch.nn.modules.linear.Linear"})
    with pytest.raises(
        UserError, match=r"does not fit torch.nn.modules.linear.Linear .*: size mismatch"
    ) as e:
        load_weights(stage, path)
    assert "\n" not in str(e.value)
    path.unlink()
    with pytest.raises(UserError, match="is damaged or missing"):
        load_weights(stage, path)


# Released weights -----------------------------------------------------------------------------------------

SETTINGS = {"method.steps": 2, "method.window": 64, "method.overlap": 0, "method.guidance": 2.0}
USE = [f"{key}={value}" for key, value in SETTINGS.items()]
SMALL = [f"runs.{part}_basic.options.model.{key}={v}" for part in MODELS for key, v in MODELS[part].items()]
SMALL += [f"runs.vae_basic.options.critic.{key}={value}" for key, value in CRITICS["vae"].items()]
SMALL += [
    f"runs.vocoder_basic.options.critic.{key}.channels={v['channels']}"
    for key, v in CRITICS["vocoder"].items()
]


@pytest.fixture
def weights(monkeypatch, folder):
    """A file of a released AudioSR of a few channels."""
    make_small(monkeypatch)
    torch.save({"state_dict": drawn()}, folder / "audiosr.bin")
    return folder / "audiosr.bin"


@pytest.fixture
def small_paper(monkeypatch):
    """The paper's released runs are as small, where no command line can say so."""
    whole = configuration.configure
    small = lambda paper, preset, changes: whole(paper, preset, [*SMALL, *changes])  # noqa: E731
    monkeypatch.setattr(configuration, "configure", small)


def by_file(checkpoint: str, output: str, *more: str) -> np.ndarray:
    uses = [word for text in USE for word in ("--set", text)]
    place = ["--paper", "audiosr", "--checkpoint", checkpoint, "--cutoff", "4000", "--output", output]
    assert main(["in/deep", *place, *uses, *more]) == 0
    return soundfile.read(f"{output}/stereo.wav")[0]


def test_a_released_file_enhances_and_nothing_else_is_written(weights, small_paper, folder):
    before = {path for path in folder.rglob("*") if path.is_file()}
    out = by_file("audiosr.bin", "out")
    assert out.shape == (15_000, 2)
    assert np.isfinite(out).all()
    assert np.abs(out).max() > 0.01
    assert {path for path in folder.rglob("*") if path.is_file()} - before == {folder / "out" / "stereo.wav"}
    kept = by_file("audiosr.bin", "other", "--set", "method.variant=text", "--set", "method.seam=1.0")
    assert not np.allclose(out, kept)


def test_in_half_precision_nearly_the_same_comes_out(weights, small_paper, folder):
    out, half = by_file("audiosr.bin", "out"), by_file("audiosr.bin", "half", "--precision", "bf16")
    assert not np.array_equal(out, half)
    assert np.sqrt(np.mean((out - half) ** 2)) < 0.1 * np.sqrt(np.mean(out**2))


def test_a_file_enhances_as_the_run_that_it_becomes(weights, small_paper, tiny_corpus, capsys):
    where = [
        f"data.root={tiny_corpus}",
        "data.workers=1",
        "data.test_files=1",
        "pictures=0",
        "trainer.threads=1",
    ]
    row = ["--row", "AudioSR, released weights", "released.basic=audiosr.bin"]
    vctk = ["datasets.esc50=null", "datasets.audiostock=null"]
    command = ["--paper", "audiosr", "--preset", "smoke", *row, *where, *vctk, *SMALL, *USE]
    assert run.main(command) == 0
    assert capsys.readouterr().out.count("converted from audiosr.bin") == 3
    records = [read_record(path.parent) for path in Path("runs").rglob("record.json")]
    runs = {record["run"]: record for record in records if record["kind"] == "run"}
    assert set(runs) == {"vae_basic", "ldm_basic", "vocoder_basic"}
    assert runs["ldm_basic"]["identity"]["uses"] == {"vae": runs["vae_basic"]["id"]}
    settings = [record["identity"]["settings"] for record in records if record["kind"] == "score"]
    assert [use["null_condition"] for use in settings] == [-11.4981] * 3  # as in their code
    assert run.main(command) == 0
    assert "3 cells were scored before" in capsys.readouterr().out
    assert main(["in/deep", "--checkpoint", "runs", "--cutoff", "4000", "--output", "by_run"]) == 0
    assert np.array_equal(by_file("audiosr.bin", "out"), soundfile.read("by_run/stereo.wav")[0])


def test_the_hub_is_asked_for_a_repository_or_its_file(weights, small_paper, monkeypatch, capsys):
    asked = []

    def stand_in(repository: str, file: str) -> str:
        asked.append((repository, file))
        if repository == "owner/gone":
            raise FileNotFoundError("the hub cannot be reached\nand more")
        return str(weights)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", stand_in)
    by_file("hf://haoheliu/audiosr_basic", "out")
    by_file("hf://owner/name/deep/model.safetensors", "again")
    assert asked == [
        ("haoheliu/audiosr_basic", "pytorch_model.bin"),
        ("owner/name", "deep/model.safetensors"),
    ]
    assert main(["in", "--paper", "audiosr", "--checkpoint", "hf://owner/gone", "--output", "out"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(
        "enhance.py: --checkpoint hf://owner/gone: FileNotFoundError: the hub cannot be reached"
    )


def test_released_weights_are_left_out_with_a_line(tiny_corpus, workplace, capsys):
    arguments = ["--paper", "audiosr", "--preset", "smoke", "--dry-run", f"data.root={tiny_corpus}"]
    assert run.main(arguments) == 0
    printed = capsys.readouterr().out
    for system, key in (("AudioSR", "released.basic"), ("AudioSR-Speech", "released.speech")):
        assert (
            f"{system}, released weights: left out, since its weights are its authors': set {key}" in printed
        )
    assert run.main([*arguments, "--row", "AudioSR-Speech, released weights"]) == 2
    assert "_speech is its authors' weights: set released.speech to their file." in capsys.readouterr().err
    assert run.main([*arguments, "--row", "AudioSR, released weights", "released.basic=gone.bin"]) == 2
    assert "released.basic=gone.bin: no such file" in capsys.readouterr().err
