"""Baselines against their formulas, and the same band at any rate."""

import numpy as np
import pytest
import scipy.interpolate
import scipy.signal
import torch

from lightning_modules import METHODS, build_method
from signals.errors import UserError
from signals.types import Signal

RATE, LOW = 48000, 16000
BASELINES = [name for name, where in METHODS.items() if where.startswith("baselines:")]
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


def test_an_unknown_method_is_an_error():
    with pytest.raises(UserError, match="splin"):
        build_method("splin", RATE, {}, {})
