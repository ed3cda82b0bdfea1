"""Filters against SciPy and librosa; alignment by an impulse; items against their batch."""

from functools import partial
from pathlib import Path

import librosa
import numpy as np
import pytest
import scipy.signal
import torch

from signals.errors import UserError
from signals.filters import KINDS, Lowpass, boxcar, lowpass, stft_hard, there_and_back

RATE = 48000
CASES = [Lowpass(kind, *rest) for kind in KINDS for rest in [(2, 2000), (5, 8000, 0.05), (10, 16000)]]
SSR_EVAL = {"butter": "butterworth", "cheby1": "chebyshev", "ellip": "elliptic"}
GOLDEN = Path(__file__).parents[1] / "goldens" / "released.npz"


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def impulse(samples: int, at: int) -> torch.Tensor:
    return torch.nn.functional.one_hot(torch.tensor(at), samples).float()[None, None]


def gain(wave: torch.Tensor, frequency: float, rate: int = RATE) -> float:
    """Magnitude in dB of the Fourier transform of a response at one frequency."""
    phase = torch.exp(-2j * torch.pi * frequency / rate * torch.arange(wave.shape[-1], dtype=torch.float64))
    return float(20 * torch.log10((wave[0, 0] * phase).sum().abs()))


def design(filter: Lowpass, rate: int = RATE) -> np.ndarray:
    """SciPy's second-order sections."""
    designs = {
        "butterworth": scipy.signal.butter,
        "chebyshev": partial(scipy.signal.cheby1, rp=filter.ripple),
        "elliptic": partial(scipy.signal.ellip, rp=filter.ripple, rs=60),
        "bessel": partial(scipy.signal.bessel, norm="phase"),
    }
    return designs[filter.kind](N=filter.order, Wn=filter.cutoff, fs=rate, output="sos")


@pytest.mark.parametrize("zero_phase", [False, True])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("order", [1, 2, 3, 8, 11])
def test_response_equals_scipy_from_zero_to_nyquist(kind, order, zero_phase):
    """The DFT of the response to an impulse, padded until it has settled."""
    for cutoff in (2000, 12_000, 23_500):
        chosen = Lowpass(kind, order, cutoff)
        samples = 4 * chosen.settling(RATE)
        found = lowpass(impulse(samples, samples // 2).double(), chosen, RATE, zero_phase)
        _, expected = scipy.signal.sosfreqz(design(chosen), samples, whole=True)
        expected = np.abs(expected) ** 2 if zero_phase else expected
        np.testing.assert_allclose(torch.fft.fft(torch.fft.ifftshift(found[0, 0])), expected, atol=1e-5)


@pytest.mark.parametrize(("kind", "edge"), [("butterworth", -3.01), ("chebyshev", -0.5), ("elliptic", -0.5)])
def test_a_filter_has_its_edge_at_the_cutoff(kind, edge):
    response = lowpass(impulse(9000, 0), Lowpass(kind, 6, 4000, ripple=0.5), RATE, zero_phase=False)
    assert gain(response, 4000) == pytest.approx(edge, abs=0.01)


def test_bessel_has_half_its_phase_at_the_cutoff():
    response = lowpass(impulse(9000, 0), Lowpass("bessel", 2, 4000), RATE, zero_phase=False)[0, 0]
    phase = torch.exp(-2j * torch.pi * 4000 / RATE * torch.arange(9000))
    assert float((response * phase).sum().angle()) == pytest.approx(-np.pi / 2, abs=1e-4)


@pytest.mark.parametrize("cutoff", [0, -1, RATE / 2, RATE])
def test_a_cutoff_outside_the_band_is_an_error(cutoff):
    with pytest.raises(UserError, match="at 48000 Hz, 0 to 24000 Hz"):
        lowpass(noise(1, 1, 10), Lowpass("butterworth", 4, cutoff), RATE, zero_phase=True)


def test_an_unknown_kind_is_an_error():
    with pytest.raises(UserError, match=r"brick: one of butterworth, chebyshev, elliptic, bessel"):
        lowpass(noise(1, 1, 10), Lowpass("brick", 4, 1000), RATE, zero_phase=True)


@pytest.mark.parametrize("kind", KINDS)
def test_impulse_response_stays_below_120_db_after_settling(kind):
    for order in range(1, 11):
        for cutoff in (500, 6000, 12000, 22000):
            settled = Lowpass(kind, order, cutoff).settling(RATE)
            sos = design(Lowpass(kind, order, cutoff))
            response = scipy.signal.sosfilt(sos, np.eye(1, 10 * settled + 100)[0])
            assert np.abs(response[settled:]).max() < 1e-6
            assert np.abs(response[: settled // 2]).max() > 1e-3  # or any large number would do


@pytest.mark.parametrize("chosen", CASES)
def test_causal_equals_scipy_everywhere(chosen):
    wave = noise(2, 1, 3000)
    expected = scipy.signal.sosfilt(design(chosen), wave.numpy())
    np.testing.assert_allclose(lowpass(wave, chosen, RATE, zero_phase=False), expected, atol=5e-6)


@pytest.mark.parametrize("chosen", CASES)
def test_zero_phase_equals_scipy_away_from_the_ends(chosen):
    wave, margin = noise(2, 1, 6000), chosen.settling(RATE)
    assert margin < 2500
    expected = scipy.signal.sosfiltfilt(design(chosen), wave.numpy(), padlen=0)[..., margin:-margin]
    found = lowpass(wave, chosen, RATE, zero_phase=True)[..., margin:-margin]
    np.testing.assert_allclose(found, expected, atol=5e-6)


def test_zero_phase_equals_scipy_everywhere_between_silence():
    chosen = Lowpass("chebyshev", 8, 4000)
    wave, margin = noise(1, 1, 2000), chosen.settling(RATE)
    silenced = torch.nn.functional.pad(wave, (margin, margin)).numpy()
    expected = scipy.signal.sosfiltfilt(design(chosen), silenced, padlen=0)[..., margin:-margin]
    np.testing.assert_allclose(lowpass(wave, chosen, RATE, zero_phase=True), expected, atol=5e-6)


def test_doubles_are_filtered_in_double_precision():
    wave, chosen = noise(1, 1, 4000).double(), Lowpass("elliptic", 4, 8000)
    wave[..., 1000:] = 0  # so that not even what rings on at -120 dB comes round
    expected = scipy.signal.sosfilt(design(chosen), wave.numpy())
    np.testing.assert_allclose(lowpass(wave, chosen, RATE, zero_phase=False), expected, atol=1e-12)


@pytest.mark.parametrize("zero_phase", [False, True])
def test_each_item_has_its_own_filter(zero_phase):
    assert len({chosen.order for chosen in CASES}) > 1
    wave = noise(len(CASES), 1, 2000)
    batched = lowpass(wave, CASES, RATE, zero_phase)
    single = [lowpass(w[None], chosen, RATE, zero_phase) for w, chosen in zip(wave, CASES, strict=True)]
    torch.testing.assert_close(batched, torch.cat(single), atol=1e-5, rtol=0)
    with pytest.raises(ValueError, match="12 filters for a batch of 3"):
        lowpass(wave[:3], CASES, RATE, zero_phase)


@pytest.mark.parametrize("kind", KINDS)
def test_zero_phase_keeps_an_impulse_at_its_index(kind):
    response = lowpass(impulse(2001, 700), Lowpass(kind, 6, 6000), RATE, zero_phase=True)[0, 0]
    assert response.argmax() == 700
    torch.testing.assert_close(response[701:1300], response[101:700].flip(0), atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("rate", "kind", "cutoff"),
    [
        *((rate, kind, cutoff) for rate in (48_000, 44_100) for kind in SSR_EVAL for cutoff in (4000, 8000)),
        *((16_000, kind, 4000) for kind in SSR_EVAL),
        (44_100, "bessel", 4000),
    ],
)
def test_equals_ssr_evals_filters(rate, kind, cutoff):
    """But for `settling` samples at either end, where theirs continue the signal by its mirror image."""
    golden, chosen = np.load(GOLDEN), Lowpass(SSR_EVAL.get(kind, kind), 6, cutoff)
    wave = torch.from_numpy(golden[f"signals.{rate}.ref"])[None, None]
    found, margin = lowpass(wave, chosen, rate, zero_phase=True)[0, 0].numpy(), chosen.settling(rate)
    assert margin < 400
    keys = [key for key in golden.files if key.startswith(f"lowpass.{rate}.{kind}.{cutoff}")]
    assert keys
    for key in keys:
        expected = golden[key]
        part = slice(-len(expected), None) if key.endswith("tail") else slice(len(expected))
        inside = slice(None if key.endswith("tail") else margin, None if key.endswith("head") else -margin)
        np.testing.assert_allclose(found[part][inside], expected[inside], atol=1e-6)


@pytest.mark.parametrize("rate", [48_000, 44_100])
@pytest.mark.parametrize("cutoff", [4000, 8000])
def test_equals_ssr_evals_stft_hard(rate, cutoff):
    """But for `n_fft` samples at either end: their librosa mirrored the signal there."""
    golden = np.load(GOLDEN)
    wave = torch.from_numpy(golden[f"signals.{rate}.ref"])[None, None]
    found = stft_hard(wave, torch.tensor([cutoff]), rate)[0, 0].numpy()
    head, tail = (golden[f"lowpass.{rate}.stft_hard.{cutoff}.{part}"] for part in ("head", "tail"))
    np.testing.assert_allclose(found[2048 : len(head)], head[2048:], atol=1e-6)
    np.testing.assert_allclose(found[-len(tail) : -2048], tail[:-2048], atol=1e-6)


def test_boxcar_is_a_rectangle():
    response = boxcar(impulse(8001, 4000), torch.tensor([4000.0]), RATE)
    assert response.argmax() == 4000
    assert abs(gain(response, 3700)) < 0.05
    assert gain(response, 4000) == pytest.approx(-6.02, abs=0.05)
    assert gain(response, 4300) < -45


def test_boxcar_is_the_sum_over_its_sinc():
    wave, n = noise(1, 1, 300).double(), torch.arange(300)
    band = 2 * 4000 / RATE
    expected = wave @ (band * torch.sinc(band * (n - n[:, None])).double())
    torch.testing.assert_close(boxcar(wave, torch.tensor([4000.0]), RATE), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("low_pass", [boxcar, stft_hard])
def test_items_do_not_depend_on_their_batch(low_pass):
    wave, lengths, cutoff = noise(3, 1, 9000), (5000, 7321, 9000), torch.tensor([2000.0, 8000.0, 16000.0])
    items = [w[None, :, :length] for w, length in zip(wave, lengths, strict=True)]
    padded = torch.cat([torch.nn.functional.pad(item, (0, 9000 - item.shape[-1])) for item in items])
    batched = low_pass(padded, cutoff, RATE)
    for i, item in enumerate(items):
        single = low_pass(item, cutoff[i : i + 1], RATE)
        assert single.std() > 0.1
        torch.testing.assert_close(batched[i : i + 1, :, : lengths[i]], single, atol=1e-5, rtol=0)


@pytest.mark.parametrize("cutoff", [1000, 4000, 12000, 22050])
def test_stft_hard_equals_librosa(cutoff):
    wave = noise(1, 1, 30000)
    spectrum = librosa.stft(wave[0, 0].numpy(), n_fft=2048, hop_length=441)
    spectrum[int(1025 * cutoff / 22050) :] = 0
    expected = librosa.istft(spectrum, hop_length=441, length=30000)
    actual = stft_hard(wave, torch.tensor([cutoff]), 44100)[0, 0]
    np.testing.assert_allclose(actual[:-2048], expected[:-2048], atol=1e-5)


def test_stft_hard_keeps_an_impulse_at_its_index():
    response = stft_hard(impulse(9000, 4000), torch.tensor([8000.0]), 44100)
    assert response.argmax() == 4000
    assert abs(gain(response, 6000, 44100)) < 0.5
    assert gain(response, 10000, 44100) < -40


@pytest.mark.parametrize("hertz", [3000, 7921, 16000])
def test_there_and_back_equals_scipy_but_for_what_folds(hertz):
    """White noise folds the more: 21 dB below all, 40 below what lies within 0.9 of the edge."""
    wave = np.random.default_rng(0).standard_normal(24000)
    low = scipy.signal.resample_poly(wave, 2 * hertz, RATE)
    theirs = scipy.signal.resample_poly(low, RATE, 2 * hertz)[: len(wave)]
    edge = torch.tensor([float(hertz)])
    ours = there_and_back(torch.from_numpy(wave)[None, None], edge, RATE)[0, 0].numpy()
    spectra = [scipy.signal.welch(x[2000:-2000], RATE, nperseg=1024) for x in (ours - theirs, theirs)]
    inside = spectra[0][0] < 0.9 * hertz
    error, power = (spectrum for _, spectrum in spectra)
    assert 10 * np.log10(error.sum() / power.sum()) < -20
    assert 10 * np.log10(error[inside].sum() / power[inside].sum()) < -38
