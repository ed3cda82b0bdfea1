"""Baselines against their formulas, and the same band at any rate."""

import numpy as np
import pytest
import scipy.interpolate
import scipy.signal
import torch

from lightning_modules import METHODS, build_method, find_method
from lightning_modules.baselines import EnvelopeNoise
from signals.errors import UserError
from signals.metrics import METRICS
from signals.types import Signal

RATE, LOW = 48000, 16000
BASELINES = [
    name
    for name, where in METHODS.items()
    if where.startswith("baselines:") and not find_method(name).oracle and name != "silence"
]
INSIDE = slice(600, -600)


def tones(samples: int, rate: int, seed: int = 0) -> np.ndarray:
    """Ten sines below 6 kHz, sampled at any rate [T]."""
    rng = np.random.default_rng(seed)
    hertz, phase = rng.uniform(100, 6000, 10), rng.uniform(0, 2 * np.pi, 10)
    return np.sin(2 * np.pi * hertz * np.arange(samples)[:, None] / rate + phase).mean(1)


def keys(wave: np.ndarray) -> np.ndarray:
    """Cubic convolution by three, sample by sample (Keys 1981, a = -1/2)."""
    out = np.empty(3 * len(wave))
    padded = np.pad(wave, 2, mode="edge")
    for n in range(len(out)):
        k, s = n // 3 + 2, (n % 3) / 3
        before, here, after, beyond = padded[k - 1 : k + 3] if k + 3 <= len(padded) else [0] * 4
        out[n] = (
            here
            + 0.5 * s * (after - before)
            + s**2 * (before - 2.5 * here + 2 * after - 0.5 * beyond)
            + s**3 * 0.5 * (3 * (here - after) + beyond - before)
        )
    return out


def by_formula(name: str, low: np.ndarray) -> np.ndarray:
    at, grid = np.arange(3 * len(low)) / 3, np.arange(len(low))
    return {
        "unprocessed": lambda: scipy.signal.resample_poly(low, 3, 1),
        "hold": lambda: low.repeat(3),
        "linear": lambda: np.interp(at, grid, low),
        "cubic": lambda: keys(low),
        "spline": lambda: scipy.interpolate.make_interp_spline(grid, low, k=3)(at),
        "fourier": lambda: scipy.signal.resample(low, len(at)),
        "sinc": lambda: tones(len(at), RATE),  # band-limited interpolation of tones: the tones
    }[name]()


def as_signal(wave: np.ndarray, rate: int) -> Signal:
    return Signal.of(torch.from_numpy(wave).float()[None, None], rate)


@pytest.mark.parametrize("name", BASELINES)
def test_a_baseline_is_its_formula(name):
    low = tones(LOW // 10 + 1, LOW)
    out = build_method(name, RATE, {}, {})(as_signal(low, LOW))
    expected = by_formula(name, low)
    assert out.wave.shape[-1] == len(expected) == 3 * len(low)
    np.testing.assert_allclose(out.wave[0, 0].numpy()[INSIDE], expected[INSIDE], atol=2e-5)


@pytest.mark.parametrize("name", BASELINES)
def test_a_low_passed_input_is_as_a_decimated_one(name):
    samples = RATE // 10 + 3
    decimated = as_signal(tones(samples // 3, LOW), LOW)
    low_passed = as_signal(tones(samples, RATE), RATE)
    method = build_method(name, RATE, {}, {})
    ours = method(low_passed, cutoff=torch.tensor([8000.0])).wave
    theirs = method(decimated, cutoff=torch.tensor([8000.0])).wave
    assert ours.shape == theirs.shape
    difference = (ours - theirs)[..., INSIDE]
    assert difference.square().mean() < 1e-4 * theirs.square().mean()


@pytest.mark.parametrize("name", BASELINES)
def test_every_item_has_its_own_cut_off(name):
    wave = torch.from_numpy(np.stack([tones(4800, RATE, seed) for seed in (1, 2, 3)])).float()[:, None]
    cutoff = torch.tensor([8000.0, 6000.0, 8000.0])
    method = build_method(name, RATE, {}, {})
    together = method(Signal.of(wave, RATE), cutoff=cutoff).wave
    for row in range(3):
        alone = method(Signal.of(wave[row : row + 1], RATE), cutoff=cutoff[row : row + 1]).wave
        torch.testing.assert_close(together[row : row + 1], alone)
    assert torch.allclose(together, wave) == (name == "unprocessed")


def white(batch: int, samples: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(batch, 1, samples, generator=torch.Generator().manual_seed(seed))


def test_envelope_noise_is_the_input_and_the_references_levels():
    """Of white noise, 20 dB lower above 16 kHz, under a silent input, so that only what is added is heard."""
    spectrum = torch.fft.rfft(white(1, RATE))
    spectrum[..., 16000:] /= 10
    reference = torch.fft.irfft(spectrum)
    low = Signal.of(torch.zeros(1, 1, LOW), LOW)
    estimate = EnvelopeNoise(RATE)(low, reference=Signal.of(reference, RATE)).wave
    ours, theirs = (torch.fft.rfft(wave[0, 0]).abs().square() for wave in (estimate, reference))
    for band in (slice(8200, 15800), slice(16200, 24000)):
        assert 10 * (ours[band].mean() / theirs[band].mean()).log10().item() == pytest.approx(0, abs=0.5)
    assert ours[:7800].sum() < 1e-4 * ours.sum()
    assert abs(torch.corrcoef(torch.stack([estimate[0, 0], reference[0, 0]]))[0, 1]) < 0.05

    heard = as_signal(tones(LOW, LOW), LOW)
    whole = EnvelopeNoise(RATE)(heard, reference=Signal.of(reference, RATE)).wave
    torch.testing.assert_close(whole - estimate, build_method("unprocessed", RATE, {}, {})(heard).wave)


def test_envelope_noise_calibrates_lsd():
    """log10 of the power of noise deviates by 0.557 (5.57 dB), so two independent noises have LSD 0.79."""
    reference = Signal.of(white(1, 2 * RATE), RATE)
    low = Signal.of(torch.zeros(1, 1, 2 * LOW), LOW)
    estimate = EnvelopeNoise(RATE)(low, reference=reference)
    score = METRICS["lsd_nuwave"](estimate, reference, torch.tensor([8000.0]))["-HF"].item()
    assert score == pytest.approx(2**0.5 * 0.557, abs=0.05)


def test_envelope_noise_follows_from_the_items_seed():
    lengths = torch.tensor([3000, 900, 100])
    low = Signal(white(3, 3000), LOW, lengths)
    reference = Signal(white(3, 9000, seed=1), RATE, 3 * lengths)
    cutoff, seeds = torch.tensor([8000.0, 4000.0, 8000.0]), torch.tensor([5, 6, 7])
    method = EnvelopeNoise(RATE)
    together = method(low, cutoff=cutoff, seeds=seeds, reference=reference)
    for row, length in enumerate(lengths.tolist()):
        rows = slice(row, row + 1)
        one, high = low.wave[rows, :, :length], reference.wave[rows, :, : 3 * length]
        alone = method(
            Signal.of(one, LOW), cutoff=cutoff[rows], seeds=seeds[rows], reference=Signal.of(high, RATE)
        )
        torch.testing.assert_close(together.wave[rows, :, : 3 * length], alone.wave)
    again = method(low, cutoff=cutoff, seeds=seeds + 1, reference=reference)
    assert not torch.allclose(together.wave, again.wave)


def test_envelope_noise_needs_the_reference():
    with pytest.raises(UserError, match="oracle"):
        EnvelopeNoise(RATE)(as_signal(tones(LOW, LOW), LOW))


def test_an_unknown_method_is_an_error():
    with pytest.raises(UserError, match="splin"):
        build_method("splin", RATE, {}, {})


def test_silence_is_as_long_as_its_input():
    out = build_method("silence", RATE, {}, {})(as_signal(tones(1001, LOW), LOW))
    assert out.lengths.tolist() == [3003] and not out.wave.any()
