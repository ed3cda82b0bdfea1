"""Scores by file, and the recordings that are kept."""

import types

import matplotlib.image
import numpy as np
import pytest
import soundfile
import torch

from callbacks.scores import Scores, Showcase
from signals.metrics import METRICS
from signals.types import Pair, Signal

RATE = 48_000
NAMES = {"LSD": "lsd_ssr_eval", "SNR": "snr", "Lsd of NU-Wave": "lsd_nuwave"}


@pytest.fixture
def pair() -> Pair:
    """Two recordings of 0.5 and 0.25 s on the 16-bit grid, and an input at a third of their rate."""
    lengths = torch.tensor([24_000, 12_000])
    wave = (torch.randn(2, 1, 24_000, generator=torch.Generator().manual_seed(0)) * 3000).round() / 2**15
    wave[1, :, 12_000:] = 0
    low = Signal(wave[..., ::3], RATE // 3, lengths // 3)
    return Pair(
        low, Signal(wave, RATE, lengths), torch.full((2,), 8000.0), ["p1/a", "b"], torch.tensor([1, 2])
    )


def scored(pair: Pair, estimate: Signal, bits: int | None = None) -> Scores:
    scores = Scores(NAMES, bits)
    scores.add(estimate, pair)
    return scores


def test_every_file_has_the_score_of_every_metric(pair):
    estimate = pair.high._replace(wave=pair.high.wave * 0.8 + 0.01)
    scores = scored(pair, estimate)
    expected: dict = {}
    for name, metric in NAMES.items():
        found = METRICS[metric](estimate, pair.high, pair.cutoff)
        expected |= {name + suffix: values for suffix, values in found.items()}
    assert len(expected) == 7
    assert {"LSD", "LSD-LF", "LSD-HF", "SNR", "Lsd of NU-Wave-HF"} <= expected.keys()
    assert list(scores.files) == pair.ids
    for row, id_ in enumerate(pair.ids):
        assert scores.files[id_] == {name: values[row].item() for name, values in expected.items()}


def test_seconds_of_audio_do_not_count_padding(pair):
    assert scored(pair, pair.high).audio_seconds == pytest.approx(0.75)


def test_seconds_are_those_of_the_method(pair, monkeypatch):
    """From one batch's start to its end, and not those between, nor those of scoring."""
    clock = iter([1.0, 3.5, 10.0, 10.5])
    monkeypatch.setattr("callbacks.scores.time.perf_counter", lambda: next(clock))
    scores, method = Scores(NAMES), types.SimpleNamespace(measured=lambda pair: {})
    for batch in range(2):
        scores.on_test_batch_start(None, method, pair, batch)
        scores.on_test_batch_end(None, method, pair.high, pair, batch)
    assert scores.seconds == 3.0


def test_16_bits_round_before_scoring(pair):
    within_half_a_step = pair.high._replace(wave=pair.high.wave + 0.4 / 2**15)
    perfect = scored(pair, pair.high).files
    assert scored(pair, within_half_a_step, bits=16).files == perfect
    assert scored(pair, within_half_a_step).files["b"]["SNR"] < 80 < perfect["b"]["SNR"]


def test_16_bits_clip_as_a_file_does(pair, tmp_path):
    loud = pair.high._replace(wave=pair.high.wave * 20)
    assert loud.wave.abs().max() > 1
    stored = []
    for row in range(2):
        ints = (loud.wave[row, 0].numpy().astype(np.float64) * 2**15).round().clip(-(2**15), 2**15 - 1)
        soundfile.write(tmp_path / "a.wav", ints.astype(np.int16), RATE)
        stored.append(soundfile.read(tmp_path / "a.wav", dtype="float32")[0])
    from_file = pair.high._replace(wave=torch.from_numpy(np.stack(stored))[:, None])
    assert scored(pair, loud, bits=16).files == scored(pair, from_file).files
    assert scored(pair, loud, bits=16).files != scored(pair, loud).files


def test_a_showcase_keeps_audio_and_a_picture(pair, tmp_path):
    loud = pair.high._replace(wave=pair.high.wave * 20)
    Showcase(tmp_path / "recordings", ["p1/a"]).on_test_batch_end(None, None, loud, pair, 0)
    names = {path.name for path in (tmp_path / "recordings").iterdir()}
    kinds = {"input": pair.low, "estimate": loud, "reference": pair.high}
    assert names == {"p1_a.png", *kinds}
    for kind, signal in kinds.items():
        wave, rate = soundfile.read(tmp_path / "recordings" / kind / "p1_a.wav", dtype="float32")
        assert rate == signal.rate
        expected = signal.wave[0, 0, : int(signal.lengths[0])].numpy()
        np.testing.assert_allclose(wave, expected, atol=2**-22)
    picture = matplotlib.image.imread(tmp_path / "recordings" / "p1_a.png")
    assert picture.shape[1] > 2 * picture.shape[0]  # three panels side by side
    assert len(np.unique(picture.reshape(-1, picture.shape[2]), axis=0)) > 1000  # and not blank


def test_recordings_are_kept_without_their_padding(pair, tmp_path):
    Showcase(tmp_path, ["b"]).on_test_batch_end(None, None, pair.high, pair, 0)
    assert soundfile.info(tmp_path / "reference" / "b.wav").frames == 12_000
    assert soundfile.info(tmp_path / "input" / "b.wav").frames == 4_000


def test_a_showcase_of_nothing_writes_nothing(pair, tmp_path):
    Showcase(tmp_path / "recordings", []).on_test_batch_end(None, None, pair.high, pair, 0)
    assert not (tmp_path / "recordings").exists()


HOSTILE = [
    "take_A$B_-_L$D",
    r"\frac{$x$",
    "a/b",
    "a_b",
    "y" * 250,
    "group/" + "y" * 250,
    "[/x] <b> %20#?*\n\t",
]


def test_ids_are_text(pair, tmp_path, recwarn):
    """Not mathematics, patterns or file names: each has its recordings and its picture."""
    told: list[str] = []
    showcase = Showcase(tmp_path, HOSTILE, told.append)
    for id_ in HOSTILE:
        showcase.on_test_batch_end(None, None, pair.high, pair._replace(ids=[id_, "other"]), 0)
    assert not told and not recwarn.list
    pictures = {path.stem for path in tmp_path.glob("*.png")}
    assert pictures == {path.stem for path in (tmp_path / "estimate").iterdir()} == {*showcase.names.values()}
    assert len(pictures) == len(HOSTILE)
    assert showcase.names["a/b"] == "a_b"


def test_a_picture_that_cannot_be_drawn_is_a_line(pair, tmp_path, monkeypatch):
    told: list[str] = []

    def fail(*args):
        raise ValueError("\nthe font is\nbroken")

    monkeypatch.setattr("callbacks.scores.draw_spectrograms", fail)
    Showcase(tmp_path, ["b"], told.append).on_test_batch_end(None, None, pair.high, pair, 0)
    assert told == ["the picture of b is not drawn: ValueError: the font is"]
    assert soundfile.info(tmp_path / "estimate" / "b.wav").frames == 12_000
