"""Metrics against a loop over files with librosa, closed forms, and the scores that ssr_eval published."""

import csv
from pathlib import Path

import librosa
import numpy as np
import pytest
import torch
from torch.nn.functional import pad

from signals.filters import stft_hard
from signals.metrics import METRICS, lsd, si_sdr, snr
from signals.resampling import resample
from signals.types import Signal

SHARED = Path(__file__).parents[2].parent / "shared"
PUBLISHED = SHARED / "published" / "ssr_eval_unprocessed_per_file.csv"
VCTK = SHARED / "corpora" / "VCTK-Corpus-0.92" / "wav48_silence_trimmed"


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def batch(lengths: list[int], rate: int) -> tuple[Signal, Signal]:
    """Estimates and references of several lengths; what pads the estimates is not even silent."""
    reference = noise(len(lengths), 1, max(lengths), seed=1)
    for wave, length in zip(reference, lengths, strict=True):
        wave[:, length:] = 0
    estimate = 0.5 * reference + 0.1 * noise(*reference.shape, seed=2)
    return Signal(estimate, rate, torch.tensor(lengths)), Signal(reference, rate, torch.tensor(lengths))


def item(signal: Signal, i: int) -> Signal:
    return Signal.of(signal.wave[i : i + 1, :, : signal.lengths[i]], signal.rate)


def ssr_eval_lsd(estimate: Signal, reference: Signal, bins: slice = slice(None)) -> float:
    """The definition again, for one file, in NumPy and librosa."""
    n_fft, hop = int(2048 * reference.rate / 44100), int(reference.rate / 100)
    E, R = (
        np.abs(librosa.stft(signal.wave[0, 0].numpy(), n_fft=n_fft, hop_length=hop))[bins]
        for signal in (estimate, reference)
    )
    return float(np.sqrt((np.log10(R**2 / (E + 1e-12) ** 2 + 1e-12) ** 2).mean(0)).mean())


@pytest.mark.parametrize("rate", [16000, 44100, 48000])
def test_lsd_of_a_batch_equals_the_loop_over_files(rate):
    hop = rate // 100
    estimate, reference = batch([20 * hop, 20 * hop + 1, 37 * hop - 1, 9001], rate)
    cutoff = torch.tensor([0.1, 0.2, 0.25, 0.4]) * rate / 2
    scores = lsd(estimate, reference, cutoff)
    bins = 1 + int(2048 * rate / 44100) // 2
    for i, edge in enumerate(int(bins * fc / (rate / 2)) for fc in cutoff.tolist()):
        one = item(estimate, i), item(reference, i)
        assert ssr_eval_lsd(*one) > 0.1
        assert scores["LSD"][i].item() == pytest.approx(ssr_eval_lsd(*one), abs=1e-4)
        assert scores["LSD-LF"][i].item() == pytest.approx(ssr_eval_lsd(*one, slice(edge)), abs=1e-4)
        assert scores["LSD-HF"][i].item() == pytest.approx(ssr_eval_lsd(*one, slice(edge, None)), abs=1e-4)


def test_lsd_of_a_scaled_signal_is_the_scale():
    """log10((R / cR)^2)^2 is the same in every bin: LSD = 2 |log10 c|."""
    reference = Signal.of(noise(2, 1, 24000), 48000)
    estimate = Signal.of(0.1 * reference.wave, 48000)
    scores = lsd(estimate, reference, torch.tensor([4000, 8000]))
    assert set(scores) == {"LSD", "LSD-LF", "LSD-HF"}
    for score in scores.values():
        torch.testing.assert_close(score, torch.full((2,), 2.0), atol=1e-4, rtol=0)


def test_lsd_of_a_silent_reference_is_its_floor():
    reference = Signal.of(torch.zeros(1, 1, 24000), 48000)
    assert lsd(Signal.of(noise(1, 1, 24000), 48000), reference)["LSD"].item() == pytest.approx(12)


def test_lsd_has_no_high_band_above_half_the_rate():
    signal = Signal.of(noise(1, 1, 24000), 48000)
    scores = lsd(signal, signal, torch.tensor([24000.0]))
    assert scores["LSD-HF"].isnan().all()
    assert scores["LSD"].item() == scores["LSD-LF"].item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(("metric", "name"), [(snr, "SNR"), (si_sdr, "SI-SDR")])
def test_ratios_of_a_batch_equal_single_files(metric, name):
    estimate, reference = batch([4800, 9001, 12345], 48000)
    ratios = metric(estimate, reference)[name]
    for i in range(3):
        single = metric(item(estimate, i), item(reference, i))[name].item()
        assert abs(single) > 3
        assert ratios[i].item() == pytest.approx(single, abs=1e-9)


def test_ratios_are_their_definitions():
    """Over an orthogonal error: SNR counts the lost half of the reference, SI-SDR does not."""
    t = torch.arange(4800) / 48000
    tone, error = torch.sin(2 * torch.pi * 100 * t), torch.cos(2 * torch.pi * 100 * t)
    reference = Signal.of(tone[None, None], 48000)
    estimate = Signal.of((0.5 * tone + 0.1 * error)[None, None], 48000)
    assert snr(estimate, reference)["SNR"].item() == pytest.approx(10 * np.log10(1 / 0.26), abs=1e-4)
    assert si_sdr(estimate, reference)["SI-SDR"].item() == pytest.approx(10 * np.log10(0.25 / 0.01), abs=1e-4)


def test_silence_has_no_ratio():
    sound, silence = noise(1, 1, 1000), torch.zeros(1, 1, 1000)
    estimate = Signal.of(torch.cat([sound, silence, sound]), 48000)
    reference = Signal.of(torch.cat([silence, sound, 2 * sound]), 48000)
    assert snr(estimate, reference)["SNR"].isnan().tolist() == [True, False, False]
    assert si_sdr(estimate, reference)["SI-SDR"].isnan().tolist() == [True, True, False]


@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)
def test_signals_that_do_not_match_are_refused(metric):
    reference = Signal.of(noise(1, 1, 1000), 48000)
    with pytest.raises(ValueError, match=r"44100 Hz.*48000 Hz"):
        metric(reference._replace(rate=44100), reference)
    with pytest.raises(ValueError, match=r"\[999\].*\[1000\]"):
        metric(reference._replace(lengths=torch.tensor([999])), reference)


@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)
def test_padding_may_differ_between_estimate_and_reference(metric):
    estimate, reference = batch([4800, 9001], 48000)
    wider = reference._replace(wave=pad(reference.wave, (0, 500), value=1.0))
    for name, score in metric(estimate, reference).items():
        torch.testing.assert_close(metric(estimate, wider)[name], score)


@pytest.mark.skipif(not PUBLISHED.exists(), reason=f"no published scores at {PUBLISHED}")
def test_degradation_and_lsd_equal_the_scores_that_ssr_eval_published():
    """Unprocessed input at a cut-off of 12 kHz, per file of VCTK, as one padded batch."""
    soundfile = pytest.importorskip("soundfile")
    with PUBLISHED.open() as lines:
        rows = [row for row in csv.DictReader(lines) if row["verbatim"] == "yes"]
    files = [VCTK / row["file"].split("_")[0] / row["file"] for row in rows]
    waves = [torch.from_numpy(soundfile.read(file, dtype="float32")[0]) for file in files]
    lengths = torch.tensor([len(wave) for wave in waves])
    high = torch.nn.utils.rnn.pad_sequence(waves, batch_first=True)[:, None]

    low = stft_hard(resample(high, 48000, 44100), torch.full((len(rows),), 12000), 44100)
    estimate = resample(low, 44100, 48000)[..., : high.shape[-1]]
    scores = lsd(Signal(estimate, 48000, lengths), Signal(high, 48000, lengths))["LSD"]

    assert len(rows) == 4
    assert scores.tolist() == pytest.approx([float(row["published_lsd"]) for row in rows], abs=0.03)
