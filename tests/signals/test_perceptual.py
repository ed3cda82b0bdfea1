"""PESQ, STOI, ViSQOL and NISQA: the packages' own scores, item by item, and what they refuse."""

import importlib
import subprocess
import sys
import types
import warnings
from math import isnan

import numpy as np
import pytest
import torch
from torch.nn.functional import pad

from callbacks.scores import Scores
from signals import perceptual
from signals.errors import UserError
from signals.metrics import METRICS
from signals.resampling import resample
from signals.types import Pair, Signal

RATE = 48000
PACKAGES = {"pesq_wb": "pesq", "pesq_nb": "pesq", "stoi": "pystoi", "visqol": "visqol"}
EXTRAS = {"pesq_wb": "speech", "pesq_nb": "speech", "stoi": "speech", "visqol": "visqol", "nisqa": "nisqa"}


def voice(samples: int, seed: int = 0) -> torch.Tensor:
    """[samples] of noise with the spectrum and the syllables of speech, roughly."""
    rng = np.random.default_rng(seed)
    fall = 1 / (1 + np.fft.rfftfreq(samples, 1 / RATE) / 500) ** 2
    wave = np.fft.irfft(np.fft.rfft(rng.standard_normal(samples)) * fall, samples)
    wave *= np.sin(np.arange(samples) * 4 * np.pi / RATE) ** 2
    return torch.from_numpy(0.5 * wave / np.abs(wave).max()).float()


def batch(lengths: list[int]) -> tuple[Signal, Signal]:
    waves = [voice(length, seed) for seed, length in enumerate(lengths)]
    reference = torch.nn.utils.rnn.pad_sequence(waves, batch_first=True)[:, None]
    noise = torch.randn(reference.shape, generator=torch.Generator().manual_seed(9))
    estimate = reference + 0.02 * noise  # in the padding too
    return Signal(estimate, RATE, torch.tensor(lengths)), Signal(reference, RATE, torch.tensor(lengths))


def by_package(name: str, estimate: torch.Tensor, reference: torch.Tensor) -> float:
    """The score of two waves [T] by the package alone."""

    def at(rate: int) -> tuple[np.ndarray, np.ndarray]:
        return tuple(resample(wave[None, None], RATE, rate)[0, 0].numpy() for wave in (reference, estimate))

    package = importlib.import_module(PACKAGES[name])
    if name == "stoi":
        return package.stoi(*at(RATE), RATE)
    if name == "visqol":
        api = package.VisqolApi()
        api.create(mode="audio")
        return api.measure_from_arrays(*at(RATE), RATE).moslqo
    rate, mode = {"pesq_wb": (16000, "wb"), "pesq_nb": (8000, "nb")}[name]
    return package.pesq(rate, *at(rate), mode)


@pytest.mark.parametrize("name", PACKAGES)
def test_a_batch_scores_as_the_package_alone(name):
    pytest.importorskip(PACKAGES[name])
    lengths = [60000, 72001]
    estimate, reference = batch(lengths)
    scores = METRICS[name](estimate, reference, None)
    assert set(scores) == {""}
    for i, length in enumerate(lengths):
        expected = by_package(name, estimate.wave[i, 0, :length], reference.wave[i, 0, :length])
        assert scores[""][i].item() == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(
    ("name", "best"), [("pesq_wb", 4.644), ("pesq_nb", 4.549), ("stoi", 1), ("visqol", 4.73)]
)
def test_the_best_score_is_that_of_the_reference(name, best):
    pytest.importorskip(PACKAGES[name])
    estimate, reference = batch([72000])
    assert METRICS[name](reference, reference, None)[""].item() == pytest.approx(best, abs=2e-2)
    assert METRICS[name](estimate, reference, None)[""].item() < best - 0.01


@pytest.mark.parametrize("name", PACKAGES)
def test_what_a_package_refuses_is_nan(name):
    """Silence on either side, and what is too short: among items that have a score."""
    pytest.importorskip(PACKAGES[name])
    _, whole = batch([72000, 72000, 72000, 400])
    silent = whole.wave.clone()
    silent[1] = 0
    silenced = whole._replace(wave=silent)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert METRICS[name](silenced, whole, None)[""].isnan().tolist() == [False, True, False, True]
        assert METRICS[name](whole, silenced, None)[""].isnan().tolist() == [False, True, False, True]


def test_pesq_without_an_utterance_is_nan():
    """A burst of 60 ms is none to it, and no reason to drop the file."""
    pesq = pytest.importorskip("pesq")
    wave = torch.randn(1, 1, RATE, generator=torch.Generator().manual_seed(0))
    burst = wave.clone()
    burst[..., 3000:] = 0
    with pytest.raises(pesq.NoUtterancesError):
        by_package("pesq_wb", wave[0, 0], burst[0, 0])
    assert METRICS["pesq_wb"](Signal.of(wave, RATE), Signal.of(burst, RATE), None)[""].isnan().all()


@pytest.mark.parametrize("name", EXTRAS)
def test_a_missing_package_is_named_with_its_extra(name, monkeypatch):
    def absent(module: str):
        raise ModuleNotFoundError(module)

    monkeypatch.setattr(importlib, "import_module", absent)
    signal = Signal.of(voice(RATE)[None, None], RATE)
    with pytest.raises(UserError, match=rf'pip install -e "\.\[{EXTRAS[name]}\]"'):
        METRICS[name](signal, signal, None)


@pytest.fixture
def nisqa_package(monkeypatch):
    """Stands in for the package, which downloads its weights; called in this process. Returns a function."""

    def stand_in(quality) -> None:
        package = types.ModuleType("torchmetrics.functional.audio.nisqa")
        package.non_intrusive_speech_quality_assessment = quality
        monkeypatch.setitem(sys.modules, package.__name__, package)
        monkeypatch.setitem(sys.modules, "requests", types.ModuleType("requests"))
        monkeypatch.setattr(perceptual, "apart", lambda function, *args: function(*args))

    return stand_in


def test_nisqa_takes_its_first_value_and_refuses_as_the_package_does(nisqa_package):
    """Of (mean, maximum) of what it is given."""

    def quality(wave: torch.Tensor, rate: int) -> torch.Tensor:
        assert rate == RATE
        if len(wave) < 1000:
            raise RuntimeError("Input signal is too short.")
        return torch.stack([wave.mean(), wave.max()])

    nisqa_package(quality)
    wave = torch.full((2, 1, 2000), 0.25)
    wave[0, 0, 0] = 1
    signal = Signal(wave, RATE, torch.tensor([2000, 999]))
    scores = METRICS["nisqa"](signal, signal, None)[""]
    assert scores[0].item() == pytest.approx(0.250375)
    assert scores[1].isnan()


def test_nisqa_without_its_weights_says_so(nisqa_package):
    def quality(wave: torch.Tensor, rate: int) -> torch.Tensor:
        raise ConnectionError("no network")

    nisqa_package(quality)
    signal = Signal.of(voice(RATE)[None, None], RATE)
    with pytest.raises(UserError, match="weights could not be downloaded: no network"):
        METRICS["nisqa"](signal, signal, None)


# What a package dies of -----------------------------------------------------------------------------------


def bursts(count: int) -> torch.Tensor:
    """[T] of noise for 0.3 s and silence for as long, so many times: as many utterances to PESQ."""
    samples = round(0.6 * count * 16000)
    sounds = (torch.arange(samples) / 16000) % 0.6 < 0.3
    return 0.1 * torch.randn(samples, generator=torch.Generator().manual_seed(0)) * sounds


def test_what_pesq_dies_of_is_nan_and_the_other_files_have_their_scores(caplog, tmp_path):
    pesq = pytest.importorskip("pesq")
    perceptual._warn.cache_clear()
    many, few = bursts(65), bursts(5)
    np.save(tmp_path / "many.npy", many.numpy())
    dies = "import numpy, pesq; w = numpy.load('many.npy'); pesq.pesq(16000, w, w, 'wb')"
    assert subprocess.run([sys.executable, "-c", dies], cwd=tmp_path).returncode < 0  # as it would here
    waves = torch.nn.utils.rnn.pad_sequence([few, many, few, many, few], batch_first=True)[:, None]
    lengths = torch.tensor([len(few), len(many), len(few), len(many), len(few)])
    high = Signal(waves, 16000, lengths)
    noise = torch.randn(waves.shape, generator=torch.Generator().manual_seed(9))
    estimate = high._replace(wave=waves + 0.001 * noise)
    pair = Pair(high, high, torch.full((5,), 4000.0), list("abcde"), torch.arange(5))
    scores = Scores({"PESQ": "pesq_wb", "SNR": "snr"})
    scores.add(estimate, pair)
    for row, id_ in enumerate("abcde"):
        found = scores.files[id_]
        assert found["SNR"] > 10
        if id_ in "bd":
            assert isnan(found["PESQ"])
        else:
            wave = estimate.wave[row, 0, : len(few)].numpy()
            assert found["PESQ"] == pytest.approx(pesq.pesq(16000, few.numpy(), wave, "wb"), abs=1e-6)
    (told,) = (record.message for record in caplog.records if record.name == "signals.perceptual")
    assert told.startswith("pesq_wb: its package's own code died (SIG")  # once, of two


@pytest.mark.parametrize("name", PACKAGES)
def test_signals_that_do_not_match_are_refused(name):
    pytest.importorskip(PACKAGES[name])
    reference = Signal.of(pad(voice(RATE), (0, 10))[None, None], RATE)
    with pytest.raises(ValueError, match=r"16000 Hz.*48000 Hz"):
        METRICS[name](reference._replace(rate=16000), reference, None)
