"""Interpolation against NumPy and SciPy, by closed forms, and at the samples themselves."""

from pathlib import Path

import numpy as np
import pytest
import scipy.interpolate
import scipy.signal
import torch
from torch.nn.functional import one_hot, pad

from signals.interpolation import INTERPOLATIONS, cubic, fft, hold, linear, spline
from signals.resampling import resampled_length

RATES = [(16000, 48000), (8000, 48000), (32000, 48000), (44100, 48000), (48000, 16000), (48000, 48000)]
LOCAL = ["hold", "linear", "cubic", "spline"]
GOLDEN = Path(__file__).parents[1] / "goldens" / "released.npz"


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def instants(rate_in: int, rate_out: int, length: int) -> np.ndarray:
    return np.arange(length) * rate_in / rate_out


@pytest.mark.parametrize("rates", RATES)
def test_hold_equals_the_latest_sample(rates):
    wave, length = noise(2, 1, 200), resampled_length(200, *rates)
    latest = torch.arange(length) * rates[0] // rates[1]
    torch.testing.assert_close(hold(wave, *rates, length), wave[..., latest])


@pytest.mark.parametrize("rates", RATES)
def test_linear_equals_numpy_everywhere(rates):
    wave, length = noise(1, 1, 200), resampled_length(200, *rates)
    expected = np.interp(instants(*rates, length), np.arange(200), wave[0, 0])
    np.testing.assert_allclose(linear(wave, *rates, length)[0, 0], expected, atol=1e-12)


@pytest.mark.parametrize("rates", RATES)
def test_cubic_equals_hermite_with_central_slopes(rates):
    """Keys' kernel with a = -1/2 is the cubic Hermite spline with slopes (x[n + 1] - x[n - 1]) / 2."""
    wave, length = noise(1, 1, 200), resampled_length(200, *rates)
    x = np.pad(wave[0, 0].numpy(), 2, mode="edge")
    hermite = scipy.interpolate.CubicHermiteSpline(np.arange(-1, 201), x[1:-1], (x[2:] - x[:-2]) / 2)
    np.testing.assert_allclose(
        cubic(wave, *rates, length)[0, 0], hermite(instants(*rates, length)), atol=1e-12
    )


@pytest.mark.parametrize("rates", RATES)
def test_spline_equals_scipy_away_from_the_ends(rates):
    wave, length = noise(1, 1, 200), resampled_length(200, *rates)
    t = instants(*rates, length)
    inside = (t > 24) & (t < 199 - 24)
    assert inside.sum() > 40
    expected = scipy.interpolate.make_interp_spline(np.arange(200), wave[0, 0], k=3)(t)
    actual = spline(wave, *rates, length)[0, 0].numpy()
    np.testing.assert_allclose(actual[inside], expected[inside], atol=1e-11)


@pytest.mark.parametrize("rates", [(10_007, 12_000), (12_000, 10_007)])
def test_ratios_of_great_numbers_equal_scipy(rates):
    wave, length = noise(1, 1, 15_000), resampled_length(15_000, *rates)
    t = instants(*rates, length)
    inside = (t > 24) & (t < 15_000 - 25)
    expected = scipy.interpolate.make_interp_spline(np.arange(15_000), wave[0, 0], k=3)(t)
    np.testing.assert_allclose(
        spline(wave, *rates, length)[0, 0].numpy()[inside], expected[inside], atol=1e-10
    )
    straight = linear(wave, *rates, length)[0, 0]
    np.testing.assert_allclose(straight, np.interp(t, np.arange(15_000), wave[0, 0]), atol=1e-10)


@pytest.mark.parametrize("name", LOCAL)
@pytest.mark.parametrize("rates", [(16000, 48000), (32000, 48000), (44100, 48000)])
def test_samples_that_coincide_are_kept(name, rates):
    wave, length = noise(1, 1, 300), resampled_length(300, *rates)
    step = torch.tensor(rates) // np.gcd(*rates)
    at_in, at_out = torch.arange(0, 300, step[0]), torch.arange(0, length, step[1])
    kept = INTERPOLATIONS[name](wave, *rates, length)[..., at_out]
    assert len(at_out) > 1
    torch.testing.assert_close(kept, wave[..., at_in], atol=1e-11, rtol=0)


@pytest.mark.parametrize("name", INTERPOLATIONS)
@pytest.mark.parametrize("rates", [(16000, 48000), (32000, 48000), (44100, 48000)])
def test_a_peak_stays_at_its_index(name, rates):
    low, high = (rate // np.gcd(*rates) for rate in rates)
    wave = one_hot(torch.tensor(60 * low), 120 * low + 1).float()[None, None]
    result = INTERPOLATIONS[name](wave, *rates, 120 * high + 1)[0, 0]
    assert result.argmax() == 60 * high
    if name != "hold":  # which leans to the right
        torch.testing.assert_close(result, result.flip(0), atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", LOCAL)
def test_a_constant_stays_constant_to_its_ends_and_beyond(name):
    result = INTERPOLATIONS[name](torch.full((2, 1, 5), 0.7), 16000, 48000, 40)
    torch.testing.assert_close(result, torch.full((2, 1, 40), 0.7))


@pytest.mark.parametrize("name", INTERPOLATIONS)
@pytest.mark.parametrize("length", [1, 299, 300, 301])
def test_length_is_what_was_asked_for(name, length):
    wave = noise(2, 1, 100).float()
    result = INTERPOLATIONS[name](wave, 16000, 48000, length)
    assert result.shape == (2, 1, length)
    assert result.dtype == torch.float32
    assert result.abs().max() > 0.1


@pytest.mark.parametrize("name", [*LOCAL, "sinc"])
def test_items_do_not_depend_on_their_batch(name):
    """Away from its end, that is: alone it is continued with its last value, in a batch with zeros."""
    item = noise(1, 1, 300).float()
    alone = INTERPOLATIONS[name](item, 16000, 48000, 900)
    batch = INTERPOLATIONS[name](
        torch.cat([pad(item, (0, 200)), noise(1, 1, 500).float()]), 16000, 48000, 1500
    )
    inside = 3 * (300 - 26)
    assert alone.std() > 0.1
    torch.testing.assert_close(batch[:1, :, :inside], alone[..., :inside])


@pytest.mark.parametrize("rates", RATES)
@pytest.mark.parametrize("periods", [1, 2, 3])
def test_fft_equals_scipy_on_whole_periods(rates, periods):
    down, up = (rate // np.gcd(*rates) * periods for rate in rates)
    wave = noise(2, 1, down)
    expected = scipy.signal.resample(wave.numpy(), up, axis=-1)
    np.testing.assert_allclose(fft(wave, *rates, up), expected, atol=1e-12)


def test_fft_keeps_the_grid_where_the_length_is_no_whole_period():
    wave = noise(1, 1, 100)
    padded = fft(pad(wave, (0, 47)), 44_100, 48_000, 160)
    torch.testing.assert_close(fft(wave, 44_100, 48_000, 109), padded[..., :109])


def test_fft_passes_a_sine_below_nyquist_on():
    sine = torch.sin(2 * torch.pi * 3 * torch.arange(100, dtype=torch.float64) / 100)[None, None]
    expected = torch.sin(2 * torch.pi * 3 * torch.arange(600, dtype=torch.float64) / 600)[None, None]
    torch.testing.assert_close(fft(sine, 8000, 48_000, 600), expected)


@pytest.mark.parametrize("ratio", [2, 4])
def test_fft_equals_tfnets_input(ratio):
    golden = np.load(GOLDEN)
    low = torch.from_numpy(golden[f"tfnet.r{ratio}.lr"])[None, None]
    found = fft(low, 16_000 // ratio, 16_000, 16_000)[0, 0]
    np.testing.assert_allclose(found, golden[f"tfnet.r{ratio}.up"], atol=1e-6)


@pytest.mark.parametrize("ratio", [2, 4])
def test_spline_equals_kuleshovs_input(ratio):
    """But for 24 low-rate samples at either end, where the splines take different things to be outside."""
    golden = np.load(GOLDEN)
    low = torch.from_numpy(golden[f"kuleshov.r{ratio}.lr"])[None, None]
    found = spline(low, 16_000 // ratio, 16_000, 16_000)[0, 0]
    inside = slice(24 * ratio, -25 * ratio)
    np.testing.assert_allclose(found[inside], golden[f"kuleshov.r{ratio}.spline"][inside], atol=1e-6)


@pytest.mark.parametrize("ratio", [2, 3, 4])
@pytest.mark.parametrize(("name", "theirs"), [("spline", "spline"), ("hold", "flat"), ("linear", "linear")])
def test_equals_kings_inputs(ratio, name, theirs):
    """But for 24 low-rate samples at the ends, of the spline."""
    golden = np.load(GOLDEN)
    low = torch.from_numpy(golden[f"king_prep.r{ratio}.lr"])[None, None]
    found = INTERPOLATIONS[name](low, 12_000 // ratio, 12_000, 12_000)[0, 0].numpy()
    head, tail = (golden[f"king_prep.r{ratio}.{theirs}.{part}"] for part in ("head", "tail"))
    first = 24 * ratio if name == "spline" else 0
    np.testing.assert_allclose(found[first:3000], head[first:], atol=1e-6)
    if name != "spline":
        np.testing.assert_allclose(found[-64:], tail, atol=1e-6)
