"""Degradations against SciPy: aligned, at the right rate, and for an item the same in every batch."""

import numpy as np
import pytest
import scipy.signal
import torch
from torch.nn.functional import pad

from datamodules.degradations import DEGRADATIONS, RandomLowpass, degradation
from signals.errors import UserError
from signals.filters import design
from signals.types import Signal

RATE = 48_000
KINDS = ("chebyshev", "elliptic", "butterworth", "boxcar")
ALL = {
    "none": {},
    "random_lowpass": {},
    "stft_hard": {"cutoff": 4000},
    "polyphase": {"cutoff": 8000},
}
NAMES = sorted(ALL)


def noise(*shape: int) -> torch.Tensor:
    return 0.1 * torch.randn(shape, generator=torch.Generator().manual_seed(0))


def test_every_degradation_is_tested():
    assert set(NAMES) == set(DEGRADATIONS)


@pytest.mark.parametrize("name", NAMES)
def test_items_do_not_depend_on_their_batch(name):
    degrade = degradation(name, **ALL[name])
    lengths, seeds = [9001, 30_000, 4321], [11, 22, 33]
    waves = [noise(1, 1, length) for length in lengths]
    batch = torch.cat([pad(wave, (0, 30_000 - wave.shape[-1])) for wave in waves])
    low, cutoff = degrade(Signal(batch, RATE, torch.tensor(lengths)), torch.tensor(seeds))
    for i, (wave, seed) in enumerate(zip(waves, seeds, strict=True)):
        alone, edge = degrade(Signal.of(wave, RATE), torch.tensor([seed]))
        assert (alone.rate, alone.lengths[0], edge[0]) == (low.rate, low.lengths[i], cutoff[i])
        size = int(low.lengths[i])
        torch.testing.assert_close(low.wave[i, :, :size], alone.wave[0, :, :size], rtol=0, atol=1e-6)
        assert not low.wave[i, :, size:].any()


@pytest.mark.parametrize("name", NAMES)
def test_inputs_stay_aligned(name):
    impulse = torch.zeros(1, 1, 24_000)
    impulse[..., 12_000] = 1
    for seed in range(8):
        low, _ = degradation(name, **ALL[name])(Signal.of(impulse, RATE), torch.tensor([seed]))
        assert low.wave.argmax() * RATE == 12_000 * low.rate


@pytest.mark.parametrize(("name", "rate"), [("stft_hard", RATE), ("polyphase", 16_000)])
def test_cutoff_and_rate(name, rate):
    low, cutoff = degradation(name, cutoff=8000)(Signal.of(noise(2, 1, 10_001), RATE), torch.zeros(2))
    assert low.rate == rate
    assert cutoff.tolist() == [8000, 8000]
    length = -(-10_001 * rate // RATE)
    assert low.lengths.tolist() == [length, length]
    assert low.wave.shape == (2, 1, length)


@pytest.mark.parametrize("seed", range(12))
def test_random_lowpass_equals_scipy(seed):
    degrade = RandomLowpass(kinds=KINDS[:3])
    wave = noise(1, 1, 20_000)
    low, cutoff = degrade(Signal.of(wave, RATE), torch.tensor([seed]))
    kind, order, hertz = degrade.draw(seed)
    assert cutoff.item() == pytest.approx(hertz)
    expected = scipy.signal.sosfiltfilt(design(kind, order, hertz, RATE), wave[0, 0].double().numpy())
    inside = slice(degrade.margin, -degrade.margin)
    np.testing.assert_allclose(low.wave[0, 0, inside], expected[inside], atol=1e-5)


def test_random_lowpass_has_an_ideal_kind():
    wave = noise(1, 1, 48_000)
    low, cutoff = RandomLowpass(kinds=("boxcar",))(Signal.of(wave, RATE), torch.tensor([3]))
    middle = slice(12_000, 36_000)
    power = [scipy.signal.periodogram(w[0, 0, middle].numpy(), RATE, "hann") for w in (low.wave, wave)]
    frequencies = power[0][0]
    ratio = power[0][1] / power[1][1].mean()
    edge = cutoff.item()
    assert ratio[(frequencies > 100) & (frequencies < edge - 100)].mean() == pytest.approx(1, abs=0.05)
    assert ratio[frequencies > edge + 100].max() < 1e-3


def test_random_lowpass_draws_evenly():
    degrade = RandomLowpass(cutoff=(2000, 16_000), order=(2, 10))
    kinds, orders, cutoffs = zip(*(degrade.draw(seed) for seed in range(3000)), strict=True)
    assert set(kinds) == set(KINDS)
    np.testing.assert_allclose([kinds.count(kind) / 3000 for kind in KINDS], 1 / 4, atol=0.04)
    np.testing.assert_allclose([orders.count(order) / 3000 for order in range(2, 11)], 1 / 9, atol=0.03)
    np.testing.assert_allclose(np.histogram(cutoffs, 7, (2000, 16_000))[0] / 3000, 1 / 7, atol=0.03)
    assert degrade.draw(2**62) == degrade.draw(2**62)


@pytest.mark.parametrize("kind", KINDS[:3])
def test_margin_is_long_enough_for_the_slowest_filters(kind):
    """What lies beyond the margin of a window is 80 dB down in it, and what lies beyond the window is not."""
    degrade = RandomLowpass(cutoff=(2000, 2000), order=(10, 10), kinds=(kind,))
    wave, seed = noise(1, 1, 24_000), torch.tensor([0])
    whole = degrade(Signal.of(wave, RATE), seed)[0].wave[..., 8000:16_000]

    def seam(margin: int) -> float:
        low, _ = degrade(Signal.of(wave[..., 8000 - margin : 16_000 + margin], RATE), seed)
        return float((low.wave[..., margin : margin + 8000] - whole).abs().max())

    assert seam(degrade.margin) < 1e-5
    assert seam(0) > 1e-3


def test_polyphase_equals_scipy():
    wave = noise(1, 1, 10_001)
    low, _ = degradation("polyphase", cutoff=6000)(Signal.of(wave, RATE), torch.tensor([0]))
    expected = scipy.signal.resample_poly(wave.double().numpy(), 1, 4, axis=-1)
    np.testing.assert_allclose(low.wave, expected, atol=1e-6)


def test_polyphase_can_go_by_another_rate():
    wave = noise(1, 1, 10_001)
    low, _ = degradation("polyphase", cutoff=4000, rate=44_100)(Signal.of(wave, RATE), torch.tensor([0]))
    between = scipy.signal.resample_poly(wave.double().numpy(), 147, 160, axis=-1)
    expected = scipy.signal.resample_poly(between, 80, 441, axis=-1)
    assert low.rate == 8000
    np.testing.assert_allclose(low.wave, expected, atol=1e-6)


def test_stft_hard_takes_the_band_above_the_cutoff_away():
    low, _ = degradation("stft_hard", cutoff=4000)(Signal.of(noise(1, 1, 48_000), RATE), torch.tensor([0]))
    frequencies, power = scipy.signal.welch(low.wave[0, 0].numpy(), RATE, nperseg=4096)
    above, below = power[frequencies > 4200].max(), power[(frequencies > 200) & (frequencies < 3800)].min()
    assert above < 1e-5 * below


def test_none_changes_nothing():
    high = Signal.of(noise(2, 1, 100), RATE)
    low, cutoff = degradation("none")(high, torch.zeros(2))
    assert low is high
    assert cutoff.tolist() == [24_000, 24_000]


def test_unknown_names_and_options_are_errors():
    with pytest.raises(UserError, match="one of none, random_lowpass"):
        degradation("lowpass")
    with pytest.raises(UserError, match=r"degradation polyphase: .*order"):
        degradation("polyphase", cutoff=4000, order=3)
