"""Other people's audio, scored: closed forms, what is left out and why, and tables that can be read again."""

import csv
import io
import json
import math
import os
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch

from experiments import compare, evaluate
from experiments.averages import averages
from signals import frames, stretches
from signals.audio_files import AudioFile
from signals.errors import UserError
from signals.metrics import METRICS
from signals.stretches import takes_stretches
from signals.types import Signal

RATE = 16_000
RECORDING_OF, SCORE_BATCH = evaluate.recording_of, evaluate.score_batch


def noise(seed: int, samples: int = RATE, channels: int = 1) -> np.ndarray:
    return 0.1 * np.random.default_rng(seed).standard_normal((samples, channels)).astype(np.float32)


def write(path: str, wave: np.ndarray, rate: int = RATE) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, wave, rate, subtype="FLOAT")


@pytest.fixture
def folders(workplace) -> Path:
    """Three references of two speakers, of different lengths; the estimates are their own."""
    for seed, (name, samples) in enumerate({"a/1": 9000, "a/2": 12000, "b/1": 16000}.items()):
        for kind in ("reference", "estimate"):
            write(f"{kind}/{name}.wav", noise(seed, samples))
    return workplace


def command(*options: str) -> int:
    return evaluate.main(["--reference", "reference", "--estimate", "estimate", *options])


def scores(capsys, *options: str, code: int = 0) -> tuple[dict[str, dict[str, str]], list[str]]:
    """The lines of the CSV by file, and those on stderr."""
    assert command("--format", "csv", *options) == code
    printed = capsys.readouterr()
    return {line["file"]: line for line in csv.DictReader(io.StringIO(printed.out))}, printed.err.splitlines()


def test_identical_folders_have_no_distance(capsys, folders):
    found, errors = scores(capsys, "--metrics", "lsd_nuwave,l1")
    assert list(found) == ["a/1", "a/2", "b/1", "mean", "std", "n", "interval low", "interval high"]
    for name in ("a/1", "a/2", "b/1"):
        assert [float(found[name][column]) for column in ("lsd_nuwave", "l1", "lag", "level")] == [0] * 4
    assert (float(found["mean"]["l1"]), float(found["n"]["l1"])) == (0, 3)
    assert not errors


def test_a_known_error_has_its_snr(capsys, folders):
    """An estimate of 0.9 times the reference: 20 log10(1 / 0.1) = 20 dB, and a level of -0.92 dB."""
    write("estimate/a/1.wav", 0.9 * noise(0, 9000))
    found, errors = scores(capsys, "--metrics", "snr")
    assert float(found["a/1"]["snr"]) == pytest.approx(20, abs=1e-3)
    assert float(found["a/1"]["level"]) == pytest.approx(20 * math.log10(0.9), abs=1e-4)
    assert [line for line in errors if "a/1" in line and "level" in line] == []


@pytest.mark.parametrize("shift", [1, -3, 700])
def test_a_shift_is_told_and_leaves_the_lsd_as_it_is(capsys, folders, shift):
    wave = noise(5, 16000)
    write("reference/b/1.wav", wave[1000:15000])
    write("estimate/b/1.wav", wave[1000 - shift : 15000 - shift])  # late by `shift` samples
    found, errors = scores(capsys, "--metrics", "lsd_nuwave,snr")
    assert float(found["b/1"]["lag"]) == shift
    assert float(found["a/1"]["lag"]) == 0
    (line,) = errors
    assert f"not aligned with the reference: b/1 ({shift:+d} samples)" in line
    if shift == 1:
        assert float(found["b/1"]["lsd_nuwave"]) < 0.3
        assert float(found["b/1"]["snr"]) < 0  # of white noise, nothing is left


def test_a_lag_is_looked_for_in_50_ms_only():
    wave = torch.from_numpy(noise(6, 4000)).T[None]
    late = torch.roll(wave, 30, -1)
    three = torch.cat([late, -late, -wave, 0 * wave])  # upside down is not late
    lags, polarities = evaluate.lag_and_polarity(three, wave.expand(4, -1, -1), 40)
    assert lags.tolist() == [30, 30, 0, 0]
    assert polarities.tolist() == [1, -1, -1, 0]
    lags, _ = evaluate.lag_and_polarity(late, wave, 20)
    assert abs(int(lags)) <= 20


def test_an_estimate_upside_down_is_told(capsys, folders):
    write("estimate/a/1.wav", -noise(0, 9000))
    found, (line,) = scores(capsys, "--metrics", "snr,si_sdr")
    assert line == "evaluate.py: upside down against the reference (reversed polarity): a/1"
    assert [int(found[name]["polarity"]) for name in ("a/1", "a/2")] == [-1, 1]
    assert float(found["a/1"]["snr"]) == pytest.approx(-6.02, abs=0.01)
    assert float(found["a/1"]["si_sdr"]) > 60


def test_several_rates_in_one_mean_are_told(capsys, folders):
    for kind in ("reference", "estimate"):
        write(f"{kind}/a/1.wav", noise(0, 9000), 8000)
    _, errors = scores(capsys, "--metrics", "l1")
    assert errors == ["evaluate.py: files of several rates are in one mean: 1 at 8,000 Hz, 2 at 16,000 Hz"]
    assert command("--metrics", "l1") == 0
    assert "rate: 8,000, 16,000 Hz" in capsys.readouterr().out


def test_another_rate_than_the_protocol_s_is_told(capsys, folders):
    _, errors = scores(capsys, "--protocol", "audioedsr/published")
    assert "evaluate.py: the protocol's rate is 12,000 Hz, but there are 3 at 16,000 Hz" in errors
    for kind in ("reference", "estimate"):
        for seed, name in enumerate(("a/1", "a/2", "b/1")):
            write(f"{kind}/{name}.wav", noise(seed, 9000), 12_000)
    assert not [line for line in scores(capsys, "--protocol", "audioedsr/published")[1] if "rate" in line]


def test_what_begins_with_a_dot_is_no_recording(capsys, folders):
    write("estimate/a/._1.wav", noise(0, 100))
    assert scores(capsys, "--metrics", "l1")[1] == []


@pytest.mark.parametrize("place", ["nowhere/scores.csv", "reference"])
def test_where_nothing_can_be_written_nothing_is_scored(capsys, folders, monkeypatch, place):
    monkeypatch.setattr(evaluate, "score_all", lambda *_: pytest.fail("scored"))
    assert command("--output", place) == 2
    assert capsys.readouterr().err == f"evaluate.py: --output {place}: no file can be written there.\n"


def test_a_loud_estimate_is_told_and_scored_as_it_is(capsys, folders):
    write("estimate/a/2.wav", 2 * noise(1, 12000))
    found, (line,) = scores(capsys, "--metrics", "snr,si_sdr")
    assert "not at the level of the reference: a/2 (+6.0 dB)" in line
    assert float(found["a/2"]["snr"]) == pytest.approx(0, abs=1e-3)
    assert float(found["a/2"]["si_sdr"]) > 60


def test_files_together_score_as_alone(capsys, folders):
    """A batch changes nothing: not the padding of the shorter files, not their order."""
    rng = np.random.default_rng(7)
    for path in Path("estimate").rglob("*.wav"):
        wave, _ = soundfile.read(path, dtype="float32")
        write(str(path), wave + 0.01 * rng.standard_normal(len(wave)).astype(np.float32))
    together, _ = scores(capsys, "--cutoff", "4000")
    for name in ("a/1", "b/1"):
        for kind in ("reference", "estimate"):
            wave, _ = soundfile.read(f"{kind}/{name}.wav")
            write(f"alone/{kind}/{name}.wav", wave)
        folder = ["--reference", "alone/reference", "--estimate", "alone/estimate"]
        assert evaluate.main([*folder, "--format", "csv", "--cutoff", "4000"]) == 0
        (line, *_) = [
            one for one in csv.DictReader(io.StringIO(capsys.readouterr().out)) if one["file"] == name
        ]
        columns = ["lsd_ssr_eval", "lsd_ssr_eval-LF", "lsd_ssr_eval-HF", "lsd_nuwave", "snr", "si_sdr"]
        for column in columns:
            assert float(line[column]) == pytest.approx(float(together[name][column]), rel=1e-5)


def test_batches_are_bounded(monkeypatch):
    monkeypatch.setattr(evaluate, "SECONDS_AT_ONCE", 10)
    sizes = [(1, 16000, 1), (2, 16000, 1), (3, 16000, 1), (20, 16000, 1), (2, 16000, 2), (2, 8000, 1)]
    items = [
        evaluate.Item(str(n), Path(), Path(), rate, seconds * rate, channels)
        for n, (seconds, rate, channels) in enumerate(sizes)
    ]
    found = [[item.id for item in batch] for batch in evaluate.batches(items)]
    assert sorted(found) == [["0", "1", "2"], ["3"], ["4"], ["5"]]


def test_a_file_of_two_channels_has_the_mean_of_their_scores(capsys, workplace):
    wave = noise(8, 9000, channels=2)
    write("reference/1.wav", wave)
    write("estimate/1.wav", wave * np.array([0.9, 0.99], np.float32))
    found, _ = scores(capsys, "--metrics", "snr")
    assert float(found["1"]["snr"]) == pytest.approx((20 + 40) / 2, abs=1e-2)


def test_a_word_length_is_what_is_scored(capsys, folders, monkeypatch):
    """1.4 steps of 2 bits are 1 step."""
    rule = {"metrics": {"error": "l1"}, "bits": 2, "rate": RATE}
    monkeypatch.setattr(evaluate, "protocols", lambda: {"mine/coarse": rule})
    write("estimate/a/1.wav", np.full((9000, 1), 0.7, np.float32))
    write("reference/a/1.wav", np.full((9000, 1), 0.5, np.float32))
    found, _ = scores(capsys, "--protocol", "mine/coarse")
    assert float(found["a/1"]["error"]) == 0


def test_a_protocol_gives_the_printed_names(capsys, folders):
    found, _ = scores(capsys, "--protocol", "audiosr/published", "--cutoff", "4000")
    lsds = {f"{name}{band}" for name in ("LSD", "LSD-44.1k") for band in ("", "-LF", "-HF")}
    scored = {*lsds, "SNR", "SI-SDR"}
    assert set(found["a/1"]) == scored | {"file", "lag", "level", "polarity", "rule"}
    rule = json.loads(found["mean"]["rule"])
    assert rule == {
        "metrics": {
            "LSD": "lsd_ssr_eval",
            "LSD-44.1k": "lsd_ssr_eval_44100",
            "SNR": "snr",
            "SI-SDR": "si_sdr",
        },
        "bits": None,
        "rate": 48_000,
        "cutoff": 4000.0,
        "average": "file",
        "rates": [RATE],
    }


def test_the_totals_are_those_of_records(capsys, folders):
    for seed, name in enumerate(("a/1", "a/2", "b/1")):
        wave, _ = soundfile.read(f"reference/{name}.wav", dtype="float32")
        write(f"estimate/{name}.wav", wave * (0.5 + seed / 10))
    for average in ("file", "group"):
        found, _ = scores(capsys, "--metrics", "snr", "--average", average)
        files = {name: {"snr": float(found[name]["snr"])} for name in ("a/1", "a/2", "b/1")}
        expected = averages(files, {"a/1": "a", "a/2": "a", "b/1": "b"}, average)
        assert float(found["mean"]["snr"]) == pytest.approx(expected.mean["snr"])
        assert float(found["std"]["snr"]) == pytest.approx(expected.std["snr"])
    assert found["interval low"]["snr"] == ""  # so few files have none


def test_a_csv_is_for_pandas(capsys, folders):
    pandas = pytest.importorskip("pandas")
    assert command("--format", "csv", "--output", "scores.csv") == 0
    assert not capsys.readouterr().out
    frame = pandas.read_csv("scores.csv", index_col="file")
    assert frame.loc["mean", "snr"] == pytest.approx(frame.loc[["a/1", "a/2", "b/1"], "snr"].mean())
    assert frame.drop(columns="rule").dtypes.map(lambda kind: kind.kind).isin(["f", "i"]).all()


# What cannot be scored ------------------------------------------------------------------------------------


def spoil_rate():
    write("estimate/a/1.wav", noise(0, 9000), 8000)


def spoil_length():
    write("estimate/a/1.wav", noise(0, 8999))


def spoil_channels():
    write("estimate/a/1.wav", noise(0, 9000, channels=2))


def spoil_text():
    Path("estimate/a/1.wav").write_text("not audio")


def spoil_end():
    path = Path("reference/a/1.wav")
    path.write_bytes(path.read_bytes()[:20_000])


def spoil_start():
    path = Path("estimate/a/1.wav")
    path.write_bytes(path.read_bytes()[:20_000])


def spoil_empty():
    Path("estimate/a/1.wav").write_bytes(b"")


def spoil_nine():
    write("estimate/a/1.wav", noise(0, 9000, channels=9))


def spoil_nan():
    write("estimate/a/1.wav", np.full((9000, 1), np.nan, np.float32))


def spoil_both():
    for kind in ("reference", "estimate"):
        write(f"{kind}/a/1.wav", noise(0, 0))


def spoil_double():
    soundfile.write("reference/a/1.flac", noise(0, 9000), RATE)


def spoil_missing():
    Path("estimate/a/1.wav").unlink()


def spoil_more():
    Path("reference/a/1.wav").unlink()


SPOILT = {
    spoil_rate: "the estimate has 8000 Hz, the reference 16000",
    spoil_length: "the estimate has 8999 samples, the reference 9000",
    spoil_channels: "the estimate has 2 channels, the reference 1",
    spoil_text: "the estimate 1.wav is undecodable: ",
    spoil_end: "the reference 1.wav breaks off at 0.31 s",
    spoil_start: "the estimate 1.wav breaks off at 0.31 s",
    spoil_empty: "the estimate 1.wav is undecodable: ",
    spoil_nine: "the estimate has 9 channels, the reference 1",
    spoil_nan: "the estimate 1.wav holds NaN or infinity",
    spoil_both: "the estimate 1.wav is empty",
    spoil_double: "2 files could be the reference: 1.flac, 1.wav",
    spoil_missing: "no estimate",
    spoil_more: "no reference",
}


@pytest.mark.parametrize(("spoil", "reason"), SPOILT.items(), ids=[f.__name__ for f in SPOILT])
def test_what_does_not_fit_is_left_out_by_name(capsys, folders, spoil, reason):
    spoil()
    found, (line,) = scores(capsys, "--metrics", "snr", code=1)
    assert line.startswith("evaluate.py: left out a/1: ") and reason in line
    assert list(found)[:3] == ["a/2", "b/1", "mean"]
    assert float(found["n"]["snr"]) == 2


def test_a_name_that_is_no_text_costs_its_own_file(capsys, folders):
    for kind in ("reference", "estimate"):
        lost = os.fsencode(f"{kind}/a/") + b"caf\xe9.wav"
        os.rename(os.fsencode(f"{kind}/a/1.wav"), lost)
    found, errors = scores(capsys, "--metrics", "snr", code=1)
    why = "its name is not UTF-8: rename it"
    assert errors == [
        f"evaluate.py: left out {kind}/a/caf\\xe9.wav: {why}" for kind in ("estimate", "reference")
    ]
    assert list(found)[:3] == ["a/2", "b/1", "mean"]


def test_a_name_of_two_lines_is_told_in_one_and_is_whole_in_the_csv(capsys, folders):
    for kind in ("reference", "estimate"):
        write(f"{kind}/a/two\nlines\r[red].wav", (1 + (kind == "estimate")) * noise(3))
    found, (line,) = scores(capsys, "--metrics", "snr")
    assert "a/two\nlines\r[red]" in found
    assert line.startswith("evaluate.py: not at the level of the reference: a/two\\nlines\\r[red] (+6.0 dB)")
    assert command("--metrics", "snr") == 0
    assert "a/two\\nlines\\r[red] " in capsys.readouterr().out


def test_a_file_that_changed_since_it_was_listed_is_left_out(folders):
    items, _ = evaluate.matched_folders(Path("reference"), Path("estimate"))
    write("estimate/a/1.wav", noise(0, 8999))
    with pytest.raises(UserError, match=r"the estimate 1\.wav was changed in the meantime"):
        evaluate.read(items[0])


# By stretches ---------------------------------------------------------------------------------------------


@pytest.fixture
def long(folders, monkeypatch) -> dict[str, float]:
    """Two channels in the place of a/1, for which there is no room at once; its scores if there were."""
    late = noise(9, 30_002, channels=2)
    write("reference/a/1.wav", late[1:30_000])
    write("estimate/a/1.wav", np.array([0.6, -0.9], np.float32) * late[:29_999] + 0.01 * noise(10, 29_999, 2))
    whole = everything()
    monkeypatch.setattr(evaluate, "SECONDS_AT_ONCE", 1)
    monkeypatch.setattr(evaluate, "BLOCK", 7000)
    monkeypatch.setattr(stretches, "AT_ONCE", 10_000)
    monkeypatch.setattr(evaluate, "score_batch", lambda *_: pytest.fail("as a whole"))
    return whole


def everything(bits: int | None = None, metrics: list[str] | None = None) -> dict[str, float]:
    """Scores of a/1."""
    metrics = metrics or [name for name, metric in METRICS.items() if takes_stretches(metric)]
    items, _ = evaluate.matched_folders(Path("reference"), Path("estimate"))
    rule = {"metrics": {name: name for name in metrics}, "bits": bits, "cutoff": 4000.0}
    return evaluate.score_all(items[:1], rule).files["a/1"]


def test_a_long_file_scores_by_stretches_as_the_whole(long):
    found = everything()
    assert list(found) == list(long)
    assert found == pytest.approx(long, rel=1e-5, abs=1e-6, nan_ok=True)
    assert (found["lag"], found["polarity"]) == (1, -1)


def test_a_long_file_is_stored_in_its_word_length_first(long, monkeypatch):
    """Of 16 levels below full scale, all are far from what was stored in them."""
    coarse = everything(bits=5, metrics=["l1", "lsd_nuwave"])
    monkeypatch.setattr(evaluate, "SECONDS_AT_ONCE", 60)
    monkeypatch.setattr(evaluate, "score_batch", SCORE_BATCH)
    assert coarse == pytest.approx(everything(bits=5, metrics=["l1", "lsd_nuwave"]), rel=1e-5)
    assert coarse["l1"] != pytest.approx(long["l1"], rel=1e-3)


def test_what_needs_the_whole_gets_it_a_channel_at_a_time(long, monkeypatch):
    """Unless it is too long for that: then it is told, and left out of the mean."""
    given = []

    def mine(estimate: Signal, reference: Signal, cutoff=None) -> dict[str, torch.Tensor]:
        given.append(estimate.wave.shape)
        return {"": (estimate.wave - reference.wave).abs().mean((1, 2))}

    monkeypatch.setitem(METRICS, "mine", mine)
    assert everything(metrics=["mine"])["mine"] == pytest.approx(long["l1"], rel=1e-5)
    assert given == [(1, 1, 29_999)] * 2


def test_what_needs_the_whole_is_left_out_where_that_is_too_long(capsys, long, monkeypatch):
    monkeypatch.setattr(evaluate, "SECONDS_WHOLE", 1)
    monkeypatch.setattr(evaluate, "score_batch", SCORE_BATCH)
    monkeypatch.setitem(METRICS, "mine", lambda E, R, _: {"": (E.wave - R.wave).abs().mean((1, 2))})
    found, errors = scores(capsys, "--metrics", "snr,mine")
    assert "evaluate.py: mine: not by stretches, left out of: a/1" in errors
    assert not [line for line in errors if "no finite" in line]
    assert (found["a/1"]["mine"], found["n"]["mine"], found["n"]["snr"]) == ("nan", "2", "3")
    assert float(found["a/1"]["snr"]) == pytest.approx(long["snr"], rel=1e-5)


def test_a_long_file_is_never_in_memory_as_a_whole(long, monkeypatch):
    """Nothing that is decoded or read is longer than a block, a stretch, or the frames at work."""
    sizes = []

    def counted(function):
        def call(*args):
            wave = function(*args)
            sizes.append(max(wave.shape))
            return wave

        return call

    def recording_of(*args):
        recording = RECORDING_OF(*args)
        return recording._replace(read=counted(recording.read))

    monkeypatch.setattr(evaluate, "recording_of", recording_of)
    monkeypatch.setattr(AudioFile, "read", counted(AudioFile.read))
    monkeypatch.setitem(frames.SAMPLES_AT_ONCE, "cpu", 40_000)
    everything()
    assert 7000 <= max(sizes) < 25_000


@pytest.mark.parametrize("kind", ["estimate", "reference"])
def test_a_long_file_that_breaks_off_is_told_by_its_side(capsys, long, monkeypatch, kind):
    wave, _ = soundfile.read(f"{kind}/a/1.wav", dtype="float32")
    wave[25_000] = np.nan
    write(f"{kind}/a/1.wav", wave)
    monkeypatch.setattr(evaluate, "score_batch", SCORE_BATCH)
    found, (line,) = scores(capsys, "--metrics", "snr", code=1)
    assert line == f"evaluate.py: left out a/1: the {kind} 1.wav holds NaN or infinity"
    assert list(found)[:2] == ["a/2", "b/1"]


@pytest.mark.parametrize("free", [0, 10**12])
def test_where_there_is_no_room_for_a_long_file_it_is_told(capsys, long, monkeypatch, free):
    """As soon as it can be known, or when the folder is full."""
    monkeypatch.setattr(evaluate, "score_batch", SCORE_BATCH)
    monkeypatch.setattr(evaluate.shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
    monkeypatch.setattr(evaluate.tempfile, "TemporaryFile", partial(open, "/dev/full", "wb"))
    found, (line,) = scores(capsys, "--metrics", "snr", code=1)
    assert line.startswith("evaluate.py: left out a/1: no room for 0.0 GB in the temporary folder ")
    assert line.endswith("(No space left on device): set TMPDIR to a folder that has it")
    assert list(found)[:2] == ["a/2", "b/1"]


def test_nothing_is_left_in_the_temporary_folder(long, monkeypatch, tmp_path):
    """Nor is there meanwhile: nobody has to remove it."""
    folder, found = tmp_path / "temporary", []
    folder.mkdir()
    monkeypatch.setattr(evaluate.tempfile, "tempdir", str(folder))

    def score(*_) -> dict[str, torch.Tensor]:
        found.append(list(folder.iterdir()))
        return {"l1": torch.zeros(2)}

    monkeypatch.setattr(evaluate, "score", score)
    everything(metrics=["l1"])
    assert found == [[]] and not list(folder.iterdir())


def test_a_score_that_is_not_finite_is_counted_and_named(capsys, folders):
    for kind in ("reference", "estimate"):
        write(f"{kind}/a/2.wav", np.zeros((12000, 1), np.float32))
    found, errors = scores(capsys, "--metrics", "si_sdr,l1")
    assert float(found["n"]["si_sdr"]) == 2
    assert found["a/2"]["si_sdr"] == "nan"
    assert "evaluate.py: no finite si_sdr, left out of its mean: a/2" in errors
    assert command("--metrics", "si_sdr") == 0
    assert "2 of 3" in capsys.readouterr().out


def test_another_suffix_is_the_same_recording(capsys, folders):
    Path("estimate/a/1.wav").unlink()
    soundfile.write("estimate/a/1.flac", noise(0, 9000), RATE, subtype="PCM_24")
    found, _ = scores(capsys, "--metrics", "snr")
    assert float(found["a/1"]["snr"]) > 90


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--metrics", "lsd_nuwaev"], "did you mean lsd_nuwave?"),
        (["--protocol", "audiosr/publishd"], "did you mean audiosr/published?"),
        (["--cutoff", "-1"], "--cutoff"),
        (["--cutoff", "nan"], "--cutoff"),
        (["--estimate", "nowhere"], "no folder nowhere"),
        (["--estimate", "empty"], "nothing in common"),
        (["--reference", "reference/a", "--estimate", "estimate/a", "--average", "group"], "--average group"),
    ],
)
def test_a_wrong_command_is_one_line(capsys, folders, options, message):
    Path("empty").mkdir()
    assert command(*options) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("evaluate.py: ") and message in line


def test_nothing_to_score_is_one_line(capsys, workplace):
    assert evaluate.main([]) == 2
    assert "--reference DIR --estimate DIR" in capsys.readouterr().err


def test_only_broken_files_are_an_error(capsys, workplace):
    for kind in ("reference", "estimate"):
        Path(kind).mkdir()
        (Path(kind) / "1.wav").write_text("not audio")
    assert command() == 2
    assert capsys.readouterr().err.splitlines()[-1] == "evaluate.py: no file could be scored."


def test_the_list_names_protocols_and_metrics(capsys):
    assert evaluate.main(["--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("audiosr/published: LSD by lsd_ssr_eval") for line in lines)
    assert {line.split(":")[0].strip() for line in lines} >= set(evaluate.DEFAULT_METRICS)


def test_many_files_are_not_printed_one_by_one(capsys, folders, monkeypatch):
    assert command("--metrics", "snr") == 0
    assert "a/2" in capsys.readouterr().out
    monkeypatch.setattr(evaluate, "LINES", 2)
    assert command("--metrics", "snr") == 0
    text = capsys.readouterr().out
    assert "95 % interval of 5 files or more only" in text and "interval low" not in text
    assert "a/2" not in text and "--format csv has every file" in text


# And back again -------------------------------------------------------------------------------------------


def test_two_systems_are_compared_by_their_csv(capsys, folders):
    """SNRs of 20 and 40 dB: a difference of -20 dB in every file."""
    for name, gain in (("poor", 0.9), ("good", 0.99)):
        for file in ("a/1", "a/2", "b/1"):
            wave, _ = soundfile.read(f"reference/{file}.wav", dtype="float32")
            write(f"estimate/{file}.wav", gain * wave)
        assert command("--metrics", "snr,l1", "--format", "csv", "--output", f"{name}.csv") == 0
    capsys.readouterr()
    assert compare.main(["poor.csv", "good.csv", "--format", "csv"]) == 0
    lines = {line["metric"]: line for line in csv.DictReader(io.StringIO(capsys.readouterr().out))}
    assert lines.keys() == {"snr", "l1"}
    snr = lines["snr"]
    assert [float(snr[key]) for key in ("a", "b")] == pytest.approx([20, 40], abs=1e-2)
    assert float(snr["difference"]) == pytest.approx(-20, abs=1e-2)
    assert (snr["files"], snr["low"]) == ("3", "")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--protocol", "audiosr/published"], "no metric of any file in common"),
        (["--average", "group", "--metrics", "snr"], "averaged by file and group"),
    ],
)
def test_csvs_of_different_rules_are_not_compared(capsys, folders, options, message):
    assert command("--metrics", "snr", "--format", "csv", "--output", "one.csv") == 0
    assert command(*options, "--format", "csv", "--output", "other.csv") == 0
    capsys.readouterr()
    assert compare.main(["one.csv", "other.csv"]) == 2
    assert message in capsys.readouterr().err


def test_bands_are_compared_at_the_same_edge_only(capsys, folders):
    for name, cutoff in (("one", "2000"), ("same", "2000"), ("other", "4000")):
        options = [
            "--metrics",
            "lsd_nuwave",
            "--cutoff",
            cutoff,
            "--format",
            "csv",
            "--output",
            f"{name}.csv",
        ]
        assert command(*options) == 0
    capsys.readouterr()
    for name, expected in (("same", 3), ("other", 1)):
        assert compare.main(["one.csv", f"{name}.csv", "--format", "csv"]) == 0
        assert len(capsys.readouterr().out.splitlines()) == 1 + expected
