"""Degradations against SciPy and torchaudio: aligned, at the right rate, an item the same in any batch."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import scipy.signal
import soundfile
import torch
import torchaudio.functional
from torch.nn.functional import pad

from datamodules.degradations import DEGRADATIONS, MARGIN, RandomLowpass, RandomNuWave2, degradation
from datamodules.pairs import crop
from signals.errors import UserError
from signals.filters import Lowpass
from signals.types import Signal

RATE = 48_000
KINDS = ("chebyshev", "elliptic", "butterworth", "boxcar")
ALIGNED = [
    ("none", {}),
    ("random_lowpass", {}),
    ("random_lowpass", {"cutoff": 4000}),
    ("stft_hard", {"cutoff": 4000}),
    ("stft_hard", {"cutoff": 8000, "n_fft": 1024, "hop": 256, "decimate": True}),
    ("butterworth", {"cutoff": 6000}),
    ("butterworth", {"cutoff": 6000, "decimate": False}),
    ("decimate", {"cutoff": 4000}),
    ("subsample", {"cutoff": 6000}),
    ("polyphase", {"cutoff": 8000}),
    ("sinc", {"cutoff": 8000}),
    ("nuwave2", {"cutoff": 4000}),
    ("random_nuwave2", {}),
    ("random_nuwave2", {"cutoff": 4000}),
    ("mu_law", {}),
    ("mp3", {}),
    ("opus", {}),
]
LATE = [
    ("butterworth", {"cutoff": 6000, "causal": True}),
    ("decimate", {"cutoff": 4000, "causal": True}),
    ("fma_biquad", {}),
]
CUTOFF_AND_RATE = [
    *((name, 16_000) for name in ("butterworth", "decimate", "subsample", "polyphase", "sinc", "nuwave2")),
    *((name, RATE) for name in ("none", "stft_hard", "random_lowpass", "random_nuwave2", "fma_biquad")),
    *((name, RATE) for name in ("mp3", "opus")),
]
FILTERS = ("butterworth", "decimate", "subsample", "polyphase", "sinc", "nuwave2", "fma_biquad")
GOLDEN = Path(__file__).parents[1] / "goldens" / "released.npz"


def degraded(wave: np.ndarray | torch.Tensor, rate: int, name: str, seed: int = 0, **options) -> np.ndarray:
    """[T] -> [T'], one recording through a degradation."""
    wave = torch.as_tensor(wave).reshape(1, 1, -1)
    return degradation(name, **options)(Signal.of(wave, rate), torch.tensor([seed]))[0].wave[0, 0].numpy()


def scipy_lowpass(kind: str, order: int, cutoff: float, rate: int = RATE) -> np.ndarray:
    """ssr_eval's second-order sections."""
    if kind == "butterworth":
        return scipy.signal.butter(order, cutoff, fs=rate, output="sos")
    if kind == "chebyshev":
        return scipy.signal.cheby1(order, 0.1, cutoff, fs=rate, output="sos")
    return scipy.signal.ellip(order, 0.1, 60, cutoff, fs=rate, output="sos")


def noise(*shape: int) -> torch.Tensor:
    return 0.1 * torch.randn(shape, generator=torch.Generator().manual_seed(0))


def test_every_degradation_is_tested():
    assert {name for name, _ in ALIGNED + LATE} | {"silence"} == set(DEGRADATIONS)


def test_silence_is_as_long_as_the_recording():
    recordings = Signal(noise(2, 1, 30_000), RATE, torch.tensor([30_000, 9001]))
    low, cutoff = degradation("silence", cutoff=6000)(recordings, torch.tensor([1, 2]))
    assert (low.rate, low.wave.shape, low.lengths.tolist()) == (12_000, (2, 1, 7500), [7500, 2251])
    assert not low.wave.any()
    assert cutoff.tolist() == [6000, 6000]


@pytest.mark.parametrize("rate", [RATE, 44_100])
@pytest.mark.parametrize(("name", "options"), ALIGNED + LATE)
def test_items_do_not_depend_on_their_batch(name, options, rate):
    options = {**options, "cutoff": rate / 8} if "cutoff" in options else options
    if name == "butterworth" and rate == 44_100:
        options["rate"] = RATE  # so that items are resampled first
        options["cutoff"] = 6000
    degrade = degradation(name, **options)
    lengths, seeds = [9001, 30_000, 4321], [11, 22, 33]
    waves = [noise(1, 1, length) for length in lengths]
    batch = torch.cat([pad(wave, (0, 30_000 - wave.shape[-1])) for wave in waves])
    before = batch.clone()
    low, cutoff = degrade(Signal(batch, rate, torch.tensor(lengths)), torch.tensor(seeds))
    torch.testing.assert_close(batch, before, rtol=0, atol=0)
    for i, (wave, seed) in enumerate(zip(waves, seeds, strict=True)):
        alone, edge = degrade(Signal.of(wave, rate), torch.tensor([seed]))
        assert (alone.rate, alone.lengths[0], edge[0]) == (low.rate, low.lengths[i], cutoff[i])
        size = int(low.lengths[i])
        assert alone.wave.shape == (1, 1, size)
        assert alone.wave.std() > 0.02
        torch.testing.assert_close(low.wave[i, :, :size], alone.wave[0, :, :size], rtol=0, atol=1e-6)
        assert not low.wave[i, :, size:].any()


@pytest.mark.parametrize(("name", "options"), [case for case in ALIGNED if case[0] not in ("mp3", "opus")])
def test_inputs_stay_aligned(name, options):
    impulse = torch.zeros(1, 1, 24_000)
    impulse[..., 12_000] = 1
    for seed in range(8 if name.startswith("random") else 1):
        low, _ = degradation(name, **options)(Signal.of(impulse, RATE), torch.tensor([seed]))
        assert low.wave.argmax() * RATE == 12_000 * low.rate


@pytest.mark.parametrize(("name", "options"), ALIGNED + LATE)
def test_a_cutoff_is_always_taken(name, options):
    assert degradation(name, **{**options, "cutoff": 1000})


@pytest.mark.parametrize(("name", "rate"), CUTOFF_AND_RATE)
def test_cutoff_and_rate(name, rate):
    low, cutoff = degradation(name, cutoff=8000)(Signal.of(noise(2, 1, 10_001), RATE), torch.tensor([0, 1]))
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
    kind, order, hertz, _ = degrade.draw(seed)
    assert cutoff.item() == pytest.approx(hertz)
    expected = scipy.signal.sosfiltfilt(scipy_lowpass(kind, order, hertz), wave[0, 0].double().numpy())
    inside = slice(degrade.margin(RATE), -degrade.margin(RATE))
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
    kinds, orders, cutoffs, _ = zip(*(degrade.draw(seed) for seed in range(3000)), strict=True)
    assert set(kinds) == set(KINDS)
    np.testing.assert_allclose([kinds.count(kind) / 3000 for kind in KINDS], 1 / 4, atol=0.04)
    np.testing.assert_allclose([orders.count(order) / 3000 for order in range(2, 11)], 1 / 9, atol=0.03)
    np.testing.assert_allclose(np.histogram(cutoffs, 7, (2000, 16_000))[0] / 3000, 1 / 7, atol=0.03)
    assert degrade.draw(2**62) == degrade.draw(2**62)


@pytest.mark.parametrize("kind", KINDS[:3])
def test_margin_is_long_enough_for_the_slowest_filters(kind):
    """A tone at the edge that ends a margin before a window is 100 dB down in it."""
    degrade = RandomLowpass(cutoff=(2000, 16_000), order=(2, 10), kinds=(kind,))
    slowest = RandomLowpass(cutoff=2000, order=(10, 10), kinds=(kind,))
    wave = torch.sin(torch.arange(40_000, dtype=torch.float64) * 2 * torch.pi * 2000 / RATE)
    wave[24_000:] = 0
    low, _ = slowest(Signal.of(wave[None, None], RATE), torch.tensor([0]))
    left = low.wave[0, 0, 24_000:].abs()
    assert left[degrade.margin(RATE) :].max() < 1e-5
    assert left[0] > 0.1


def test_random_margins_follow_from_the_filters_and_the_rate():
    assert RandomLowpass().margin(RATE) == Lowpass("elliptic", 10, 2000).settling(RATE) == 4711
    assert RandomLowpass(cutoff=4000).margin(16_000) < 2000
    assert RandomLowpass(kinds=("boxcar",)).margin(RATE) == MARGIN
    assert RandomLowpass(margin=7).margin(RATE) == 7


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"order": [0]}, r"order=\[0\]: \[lowest, highest\], whole, 1 to 16"),
        ({"order": [0, 4]}, "order="),
        ({"order": [6, 2]}, "order="),
        ({"order": [2.5, 4]}, "order="),
        ({"order": [2, 30]}, "order="),
        ({"order": 4}, "random_lowpass: 'int' object"),
        ({"cutoff": [4000]}, r"cutoff=\[4000\]: one in Hz"),
        ({"cutoff": [4000, 2000]}, "cutoff="),
        ({"cutoff": 0}, "cutoff=0"),
        ({"cutoff": float("nan")}, "cutoff=nan"),
        ({"kinds": []}, r"kinds=\[\]: a list of some of chebyshev"),
        ({"kinds": "boxcar"}, "kinds=boxcar"),
    ],
)
def test_random_ranges_that_cannot_be_drawn_from_are_errors(options, what):
    with pytest.raises(UserError, match=what) as raised:
        degradation("random_lowpass", **options)
    assert "\n" not in str(raised.value)


def scipys_nuwave2(wave: np.ndarray, filter: Lowpass) -> np.ndarray:
    """[T] filtered, then to twice the edge, a whole one, and back."""
    sos = scipy.signal.cheby1(filter.order, filter.ripple, filter.cutoff, fs=RATE, output="sos")
    narrow = scipy.signal.resample_poly(scipy.signal.sosfiltfilt(sos, wave), round(2 * filter.cutoff), RATE)
    return scipy.signal.resample_poly(narrow, RATE, round(2 * filter.cutoff))[: len(wave)]


def decibels(error: np.ndarray, reference: np.ndarray, highest: float) -> float:
    """Power of `error` up to `highest` Hz, relative to all of `reference`."""
    hertz = np.fft.rfftfreq(len(error), 1 / RATE)
    powers = [np.abs(np.fft.rfft(each * np.hanning(len(each)))) ** 2 for each in (error, reference)]
    return 10 * np.log10(powers[0][hertz < highest].sum() / powers[1].sum())


@pytest.mark.parametrize("cutoff", [3000, 7919, 12_000, 15_013, 22_501])
@pytest.mark.parametrize(("order", "ripple"), [(1, 1e-9), (11, 1e-9), (4, 1e-3), (8, 1.0), (11, 5.0)])
def test_random_nuwave2_equals_scipy_but_for_what_folds(cutoff, order, ripple):
    """Theirs folds what is left above the edge down to it, and mirrors it up again: -20 dB of white noise.

    Of noise without anything near the edge, both keep the same up to there.
    """
    filter, white, inside = (
        Lowpass("chebyshev", order, cutoff, ripple),
        noise(60_000).double(),
        slice(15_000, -15_000),
    )
    low = torch.fft.irfft(torch.fft.rfft(white) * (torch.fft.rfftfreq(60_000, 1 / RATE) < 0.88 * cutoff))
    differences = []
    for wave, highest in ((white, RATE), (white, 0.9 * cutoff), (low, 0.9 * cutoff)):
        found = RandomNuWave2().filtered(wave[None, None], [filter], RATE)[0, 0].numpy()[inside]
        expected = scipys_nuwave2(wave.numpy(), filter)[inside]
        differences.append(decibels(found - expected, expected, highest))
    print("{:.1f} dB, {:.1f} up to 0.9 of the edge; {:.1f} without what folds".format(*differences))
    assert -26 < differences[0] < -20
    assert differences[1] < -40
    assert differences[2] < -60


def test_random_nuwave2_draws_evenly():
    degrade = RandomNuWave2()
    drawn = [degrade.draw(seed) for seed in range(3000)]
    kinds, orders, cutoffs, ripples = zip(*drawn, strict=True)
    assert set(kinds) == {"chebyshev"}
    assert set(ripples) == {1e-9, 1e-6, 1e-3, 1.0, 5.0}
    np.testing.assert_allclose([ripples.count(ripple) / 3000 for ripple in set(ripples)], 1 / 5, atol=0.03)
    np.testing.assert_allclose([orders.count(order) / 3000 for order in range(1, 12)], 1 / 11, atol=0.03)
    np.testing.assert_allclose(np.histogram(cutoffs, 7, (3000, 24_000))[0] / 3000, 1 / 7, atol=0.03)


def test_random_nuwave2_leaves_what_has_nearly_all_of_the_band():
    wave = noise(3, 1, 3000)
    low, cutoff = RandomNuWave2(cutoff=(22_900, 24_000))(Signal.of(wave, RATE), torch.arange(3))
    assert torch.equal(low.wave, wave)
    assert cutoff.tolist() == [24_000] * 3
    low, cutoff = RandomNuWave2(cutoff=22_700)(Signal.of(wave, RATE), torch.arange(3))
    assert not torch.isclose(low.wave, wave).all(-1).any()
    assert cutoff.tolist() == [22_700] * 3
    seeds = torch.arange(40)
    low, cutoff = RandomNuWave2()(Signal.of(noise(40, 1, 3000), 16_000), seeds)  # ranges are of 48 kHz
    assert set(cutoff[cutoff > 7600].tolist()) == {8000.0}
    assert (cutoff < 7600).any()


@pytest.mark.parametrize("cutoff", [3000, 22_750])
def test_a_window_of_random_nuwave2_is_heard_as_in_its_recording(cutoff):
    degrade = RandomNuWave2(cutoff=cutoff, order=(11, 11), ripples=(5.0,))
    assert_a_window_is_heard_as_in_its_recording(degrade, RATE, 12_000, 9600)
    assert RandomNuWave2().margin(RATE) == max(
        Lowpass("chebyshev", 11, hertz, 5.0).settling(RATE) for hertz in (3000, 22_800)
    )
    assert RandomNuWave2(margin=7).margin(RATE) == 7


@pytest.mark.parametrize("options", [{"ripples": []}, {"ripples": [1, 0]}, {"cutoff": 0}, {"order": [0, 3]}])
def test_random_nuwave2_that_cannot_be_drawn_from_is_an_error(options):
    with pytest.raises(UserError, match=f"degradation random_nuwave2: {next(iter(options))}="):
        degradation("random_nuwave2", **options)


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


INSIDE = slice(MARGIN // 2, -MARGIN // 2)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("ratio", [2, 3, 4, 6])
def test_butterworth_equals_scipy(causal, ratio):
    wave, cutoff = noise(24_000), RATE / 2 / ratio
    sos = scipy.signal.butter(8, 1 / ratio, output="sos")
    filtering = scipy.signal.sosfilt if causal else scipy.signal.sosfiltfilt
    expected = filtering(sos, wave.double().numpy())
    whole = degraded(wave, RATE, "butterworth", cutoff=cutoff, causal=causal, decimate=False)
    np.testing.assert_allclose(whole[INSIDE], expected[INSIDE], atol=1e-6)
    every = degraded(wave, RATE, "butterworth", cutoff=cutoff, causal=causal)
    np.testing.assert_allclose(every, whole[::ratio], atol=0)


@pytest.mark.parametrize(("ratio", "delay"), [(2, 2.56), (3, 4.44), (4, 6.19)])
def test_kings_butterworth_lags_by_its_group_delay(ratio, delay):
    """At 0 Hz, in samples: an analog filter with poles on the unit circle has the sum of their -Re(p)."""
    impulse = torch.zeros(4000)
    impulse[0] = 1
    response = degraded(impulse, 12_000, "butterworth", cutoff=6000 / ratio, causal=True, decimate=False)
    found = (np.arange(4000) * response).sum() / response.sum()
    angles = np.pi * (2 * np.arange(1, 9) - 1) / 16
    closed_form = np.sin(angles).sum() / 2 / np.tan(np.pi / 2 / ratio)
    assert found == pytest.approx(closed_form, abs=1e-3)
    assert found == pytest.approx(delay, abs=0.01)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("ratio", [2, 4, 6, 8])
def test_decimate_equals_scipy(causal, ratio):
    wave = noise(24_000)
    found = degraded(wave, RATE, "decimate", cutoff=RATE / 2 / ratio, causal=causal)
    expected = scipy.signal.decimate(wave.double().numpy(), ratio, zero_phase=not causal)
    edge = MARGIN // ratio
    np.testing.assert_allclose(found[edge:-edge], expected[edge:-edge], atol=1e-6)


def test_subsample_is_every_rth_sample():
    wave = noise(1001)
    np.testing.assert_array_equal(degraded(wave, RATE, "subsample", cutoff=6000), wave[::4])


@pytest.mark.parametrize(("rate", "cutoff"), [(RATE, 8000), (RATE, 6000), (44_100, 8000)])
def test_sinc_equals_torchaudio(rate, cutoff):
    wave = noise(10_001)
    expected = torchaudio.functional.resample(wave.double(), rate, 2 * cutoff)
    np.testing.assert_allclose(degraded(wave, rate, "sinc", cutoff=cutoff), expected, atol=1e-6)


def test_fma_biquad_equals_torchaudio():
    wave = 3 * noise(44_101)  # loud, so that it clips
    low, cutoff = degradation("fma_biquad")(Signal.of(wave[None, None], 44_100), torch.tensor([0]))
    narrow = torchaudio.functional.resample(wave, 44_100, 16_000)
    back = torchaudio.functional.resample(narrow, 16_000, 44_100)[:44_101]
    expected = torchaudio.functional.lowpass_biquad(back, 44_100, 4800, 0.707)
    torch.testing.assert_close(low.wave[0, 0], expected, rtol=0, atol=1e-5)
    assert (low.rate, cutoff.item()) == (44_100, 8000)
    loud = degraded(20 * wave, 44_100, "fma_biquad")
    assert np.abs(loud).max() == 1


def test_nuwave2_equals_scipy():
    wave = noise(24_000)
    sos = scipy.signal.cheby1(8, 0.05, 4000, fs=RATE, output="sos")
    expected = scipy.signal.resample_poly(scipy.signal.sosfiltfilt(sos, wave.double().numpy()), 1, 6)
    found = degraded(wave, RATE, "nuwave2", cutoff=4000)
    np.testing.assert_allclose(found[300:-300], expected[300:-300], atol=1e-6)


def test_mu_law_equals_scipys_telephone():
    """Band-pass by SciPy's own high-pass and low-pass; then at most a step of the quantiser lies between."""
    wave = noise(96_000)
    call = scipy.signal.resample_poly(wave.double().numpy(), 1, 6)
    for kind, edge in (("lowpass", 3400), ("highpass", 300)):
        call = scipy.signal.sosfiltfilt(scipy.signal.butter(8, edge, kind, fs=8000, output="sos"), call)
    codes = torchaudio.functional.mu_law_encoding(torch.from_numpy(call.copy()), 256)
    expected = torchaudio.functional.mu_law_decoding(codes, 256).numpy()
    low, cutoff = degradation("mu_law")(Signal.of(wave[None, None], RATE), torch.tensor([0]))
    assert (low.rate, cutoff.item()) == (8000, 3400)
    assert len(np.unique(low.wave)) <= 256
    found, inside = low.wave[0, 0].numpy(), slice(1000, -1000)
    assert np.isclose(found[inside], expected[inside], atol=1e-6).mean() > 0.999
    np.testing.assert_allclose(found[inside], call[inside], atol=0.01)


@pytest.mark.parametrize(
    ("name", "kbps"), [("mp3", 32), ("mp3", 64), ("mp3", 128), ("opus", 64), ("opus", 128)]
)
@pytest.mark.parametrize("rate", [RATE, 44_100, 16_000])
@pytest.mark.parametrize("length", [20_000, 700, 3])
def test_codecs_keep_length_and_place(name, kbps, rate, length):
    sos = scipy.signal.butter(4, 3000, fs=rate, output="sos")
    wave = scipy.signal.sosfilt(sos, noise(length).numpy()).astype(np.float32)
    found = degraded(wave, rate, name, kbps=kbps)
    assert found.shape == wave.shape
    if length == 20_000:
        lags = scipy.signal.correlation_lags(length, length)
        assert lags[scipy.signal.correlate(found, wave).argmax()] == 0
        assert 0.9 < np.corrcoef(found, wave)[0, 1] < 1


@pytest.mark.parametrize("name", ["mp3", "opus"])
def test_codecs_lose_more_at_a_lower_rate(name):
    wave = noise(48_000)
    errors = [np.abs(degraded(wave, RATE, name, kbps=kbps) - wave.numpy()).mean() for kbps in (32, 64, 160)]
    assert errors[0] > errors[1] > errors[2] > 0


@pytest.mark.parametrize("kbps", [32, 64, 128, 320])
def test_mp3_has_the_bit_rate_that_was_asked_for(kbps, monkeypatch):
    sizes, read = [], soundfile.read
    monkeypatch.setattr(
        soundfile, "read", lambda file, **kw: sizes.append(len(file.getvalue())) or read(file, **kw)
    )
    degraded(noise(10 * RATE), RATE, "mp3", kbps=kbps)
    assert sizes[0] * 8 / 10_000 == pytest.approx(kbps, rel=0.02)


def test_a_codec_that_cannot_be_had_is_an_error(monkeypatch):
    monkeypatch.setattr(soundfile, "check_format", lambda *format: False)
    with pytest.raises(UserError, match="MP3 MPEG_LAYER_III: install"):
        degradation("mp3")


@pytest.mark.parametrize(("name", "kbps", "range"), [("mp3", 8, "32 to 320"), ("opus", 400, "6 to 256")])
def test_a_bit_rate_that_cannot_be_had_is_an_error(name, kbps, range):
    with pytest.raises(UserError, match=range):
        degraded(noise(100), RATE, name, kbps=kbps)


def assert_a_window_is_heard_as_in_its_recording(degrade, rate: int, start: int, length: int) -> None:
    margin = degrade.margin(rate)
    wave = noise(1, 1, start + length + margin + 10_000)
    whole, _ = degrade(Signal.of(wave, rate), torch.tensor([0]))
    piece = Signal.of(wave[..., start - margin : start + length + margin], rate)
    low = crop(degrade(piece, torch.tensor([0]))[0], margin, rate, torch.tensor([length]))
    first = start * whole.rate // rate
    expected = whole.wave[..., first : first + low.wave.shape[-1]]
    assert expected.std() > 0.01
    torch.testing.assert_close(low.wave, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("name", "options"), [case for case in ALIGNED + LATE if case[0] in FILTERS])
@pytest.mark.parametrize("cutoff", [1500, 2000, 4000, 4800, 6000, 8000, 12_000])
def test_margins_hold_what_is_heard_and_lie_on_the_grid(name, options, cutoff):
    """A window cut with its margins is what the whole recording has there, at ratios from 16 to 2."""
    degrade = degradation(name, **{**options, "cutoff": cutoff})
    assert_a_window_is_heard_as_in_its_recording(degrade, RATE, 9600, 9600)


@pytest.mark.parametrize("name", [name for name in FILTERS if name != "fma_biquad"])
def test_margins_lie_on_the_grids_of_two_changes_of_rate(name):
    """44.1 to 48 kHz, and every fourth sample of that."""
    degrade = degradation(name, cutoff=6000, rate=RATE)
    assert degrade.margin(44_100) % 147 == 0
    assert_a_window_is_heard_as_in_its_recording(degrade, 44_100, 8820, 8820)


def test_margins_grow_with_what_rings():
    assert [degradation("butterworth", cutoff=cutoff).margin(RATE) for cutoff in (12_000, 6000)] == [
        3528,
        3528,
    ]
    slow = degradation("butterworth", cutoff=150)
    assert slow.margin(RATE) >= Lowpass("butterworth", 8, 150).settling(RATE) > MARGIN
    assert slow.margin(RATE) % 160 == 0
    assert degradation("subsample", cutoff=6000).margin(RATE) == 0
    assert degradation("butterworth", cutoff=1500, margin=600).margin(12_000) == 600
    assert degradation("butterworth", cutoff=1500, margin=599).margin(12_000) == 600


@pytest.mark.parametrize(("name", "options"), ALIGNED + LATE)
@pytest.mark.parametrize("rate", [RATE, 44_100])
def test_every_degradation_has_a_margin_that_can_be_cropped(name, options, rate):
    degrade = degradation(name, **({**options, "cutoff": rate / 10} if "cutoff" in options else options))
    margin, length = degrade.margin(rate), 4410
    low, _ = degrade(Signal.of(noise(1, 1, length + 2 * margin), rate), torch.tensor([0]))
    assert crop(low, margin, rate, torch.tensor([length])).wave.shape[-1] == -(-length * low.rate // rate)


# Golden vectors -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ratio", [2, 4])
@pytest.mark.parametrize("paper", ["kuleshov", "tfnet"])
def test_equals_kuleshovs_and_tfnets_decimation(ratio, paper):
    """But for 700 samples at 16 kHz at either end, where theirs continue the signal by its mirror image."""
    golden = np.load(GOLDEN)
    found = degraded(golden["signals.16000.ref"], 16_000, "decimate", cutoff=8000 / ratio)
    inside = slice(700 // ratio, -700 // ratio)
    np.testing.assert_allclose(found[inside], golden[f"{paper}.r{ratio}.lr"][inside], atol=1e-6)


def test_equals_kings_preparation_everywhere():
    golden = np.load(GOLDEN)
    high = degraded(golden["signals.48000.ref"], RATE, "butterworth", cutoff=6000, causal=True)
    np.testing.assert_allclose(high, golden["king_prep.hr12k"], atol=1e-6)
    for ratio in (2, 3, 4):
        low = degraded(golden["king_prep.hr12k"], 12_000, "butterworth", cutoff=6000 / ratio, causal=True)
        np.testing.assert_allclose(low, golden[f"king_prep.r{ratio}.lr"], atol=1e-6)


@pytest.mark.parametrize("ratio", [2, 3])
def test_equals_nuwaves_lowpass(ratio):
    """But for a frame of 1024 samples at the start, where theirs continues the signal by its mirror image."""
    golden, options = np.load(GOLDEN), {"cutoff": 24_000 / ratio, "n_fft": 1024, "hop": 256}
    found = degraded(golden["signals.48000.ref"], RATE, "stft_hard", **options)
    np.testing.assert_allclose(
        found[1024:6000], golden[f"nuwave_prep.r{ratio}.lowpass.head"][1024:], atol=1e-6
    )
    low = degraded(golden["signals.48000.ref"], RATE, "stft_hard", **options, decimate=True)
    np.testing.assert_array_equal(low, found[::ratio])


@pytest.mark.parametrize("rate", [8000, 16_000, 24_000])
def test_equals_nuwave2s_preparation(rate):
    """After their way back to 48 kHz, and but for 500 samples at the ends, where their filter is mirrored."""
    golden = np.load(GOLDEN)
    low = degraded(golden["signals.48000.ref"], RATE, "nuwave2", cutoff=rate / 2)
    found = scipy.signal.resample_poly(low, RATE, rate)
    np.testing.assert_allclose(found[500:6000], golden[f"nuwave2_prep.{rate}.wav_l.head"][500:], atol=1e-6)


def test_unknown_names_and_options_are_errors():
    with pytest.raises(UserError, match="one of none, random_lowpass"):
        degradation("lowpass")
    with pytest.raises(UserError, match=r"degradation polyphase: .*order"):
        degradation("polyphase", cutoff=4000, order=3)


@pytest.mark.parametrize("name", ["butterworth", "decimate", "subsample"])
def test_impossible_ratios_are_errors(name):
    with pytest.raises(UserError, match="5000 Hz: 48000 Hz is not a whole multiple of twice that"):
        degraded(noise(100), RATE, name, cutoff=5000)
    with pytest.raises(UserError, match="twice that must be a whole rate, or a simple fraction"):
        degraded(noise(100), 16_000, name, cutoff=1234.567)


@pytest.mark.parametrize("name", ["decimate", "subsample", "butterworth", "polyphase", "sinc", "silence"])
def test_a_sixth_of_16_khz_is_a_rate(name):
    high = Signal.of(noise(2, 1, 6000), 16_000)
    low, cutoff = degradation(name, cutoff=8000 / 6)(high, torch.tensor([0, 1]))
    assert low.rate == Fraction(8000, 3)
    assert low.lengths.tolist() == [1000, 1000] and low.wave.shape[-1] == 1000
    assert cutoff.tolist() == pytest.approx([8000 / 6] * 2)


def test_decimation_by_six_equals_scipy():
    wave = noise(12_000)
    ours = degraded(wave, 16_000, "decimate", cutoff=8000 / 6)
    np.testing.assert_allclose(
        ours[200:-200], scipy.signal.decimate(wave, 6, zero_phase=True)[200:-200], atol=1e-6
    )


def test_the_band_edge_of_a_codec_is_half_the_rate_unless_told():
    high = Signal.of(noise(1, 1, 4800), RATE)
    assert degradation("mp3", rate=16_000)(high, torch.tensor([0]))[1].tolist() == [8000]
    assert degradation("mp3", cutoff=11_000)(high, torch.tensor([0]))[1].tolist() == [11_000]


def test_a_telephone_has_no_more_than_4_khz():
    with pytest.raises(UserError, match="between 300 and 4000"):
        degradation("mu_law", cutoff=4000)
