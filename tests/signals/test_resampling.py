"""Resampling against SciPy and torchaudio; alignment by an impulse; items against their batch."""

import numpy as np
import pytest
import scipy.signal
import torch
from torch.nn.functional import one_hot, pad

from signals.errors import UserError
from signals.resampling import (
    _kaiser_filters,
    hann_sinc,
    resample,
    resample_poly,
    resampled_length,
    sinc,
)

RATIOS = [(1, 2), (1, 6), (2, 1), (4, 1), (3, 2), (2, 3), (147, 160), (160, 147), (320, 441), (10, 4)]


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("samples", [1, 7, 500, 1471])
@pytest.mark.parametrize(("up", "down"), RATIOS)
def test_equals_scipy_everywhere(up, down, samples):
    wave = noise(2, 1, samples)
    expected = scipy.signal.resample_poly(wave.numpy(), up, down, axis=-1)
    assert expected.shape[-1] > 0
    np.testing.assert_allclose(resample_poly(wave, up, down), expected, atol=2e-6)


@pytest.mark.parametrize("rates", [(47_999, 48_000), (48_000, 11_127), (11_127, 48_000), (10_007, 48_000)])
def test_ratios_of_great_numbers_equal_scipy_in_little_memory(rates):
    wave = noise(1, 1, 20_000)
    shared = np.gcd(*rates)
    expected = scipy.signal.resample_poly(wave.numpy(), rates[1] // shared, rates[0] // shared, axis=-1)
    np.testing.assert_allclose(resample(wave, *rates), expected, atol=2e-6)
    _, filters = _kaiser_filters(rates[1] // shared, rates[0] // shared)
    assert sum(taps.numel() for _, taps in filters) < 45 * max(rates)


@pytest.mark.parametrize("function", [sinc, hann_sinc])
def test_torchaudios_sincs_refuse_ratios_of_great_numbers(function):
    with pytest.raises(
        UserError, match=r"47999 Hz to 48000 Hz .* 48000 to 47999 is too fine for it"
    ) as raised:
        function(noise(1, 1, 100), 47_999, 48_000)
    assert "\n" not in str(raised.value)
    assert function(noise(1, 1, 100), 11_025, 48_000).shape[-1] == 436


def test_doubles_stay_doubles():
    wave = noise(1, 1, 400).double()
    expected = scipy.signal.resample_poly(wave.numpy(), 3, 2, axis=-1)
    np.testing.assert_allclose(resample_poly(wave, 3, 2), expected, atol=1e-13)


def test_autocast_does_not_lower_the_precision():
    wave = noise(1, 1, 400)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(resample_poly(wave, 3, 2), resample_poly(wave.double(), 3, 2).float())


def test_equal_rates_change_nothing():
    wave = noise(1, 1, 100)
    assert torch.equal(resample(wave, 44100, 44100), wave)
    assert torch.equal(resample_poly(wave, 3, 3), wave)


@pytest.mark.parametrize(
    "rates", [(48000, 16000), (48000, 8000), (48000, 32000), (44100, 16000), (48000, 44100)]
)
def test_an_impulse_comes_back_to_its_index(rates):
    high, low = rates
    index = 3 * 480 if high == 48000 else 3 * 441
    wave = one_hot(torch.tensor(index), 4000).float()[None, None]
    lowered = resample(wave, high, low)
    assert lowered.argmax() == index * low / high
    raised = resample(lowered, low, high)
    assert raised.argmax() == index
    around = raised[0, 0, index - 200 : index + 201]
    torch.testing.assert_close(around, around.flip(0), atol=1e-5, rtol=0)


@pytest.mark.parametrize("function", [resample, sinc])
@pytest.mark.parametrize("rates", [(48000, 16000), (16000, 48000), (48000, 44100), (32000, 48000)])
def test_lengths(function, rates):
    for samples in (997, 998, 999, 1000):
        assert function(noise(1, 1, samples), *rates).shape[-1] == resampled_length(samples, *rates)


def test_resampled_length_rounds_up():
    assert resampled_length(7, 48000, 16000) == 3
    assert resampled_length(torch.tensor([6, 7, 9]), 48000, 16000).tolist() == [2, 3, 3]
    assert resampled_length(10**9, 48000, 44100) == 918750000
    assert resampled_length(torch.tensor([10**9 + 1]), 48000, 44100).tolist() == [918750001]


@pytest.mark.parametrize("function", [resample, sinc])
def test_items_do_not_depend_on_their_batch(function):
    item = noise(1, 1, 701)
    alone = function(item, 48000, 32000)
    batch = function(torch.cat([pad(item, (0, 299)), noise(1, 1, 1000)]), 48000, 32000)
    assert alone.std() > 0.1
    torch.testing.assert_close(batch[:1, :, : alone.shape[-1]], alone)


def test_sinc_keeps_a_low_tone_and_removes_a_high_one():
    t = torch.arange(48000, dtype=torch.float64)[None, None] / 48000
    low, high = torch.sin(2 * torch.pi * 3000 * t), torch.sin(2 * torch.pi * 9000 * t)
    resampled = sinc(low + high, 48000, 16000)
    expected = torch.sin(2 * torch.pi * 3000 * torch.arange(16000, dtype=torch.float64) / 16000)
    assert (resampled[0, 0] - expected)[500:-500].abs().max() < 1e-4
