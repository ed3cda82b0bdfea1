"""Filters against SciPy and librosa; alignment by an impulse; items against their batch."""

import librosa
import numpy as np
import pytest
import scipy.signal
import torch

from signals.filters import KINDS, boxcar, design, settling, sosfilt, stft_hard

RATE = 48000
CASES = [(kind, order, cutoff) for kind in KINDS for order, cutoff in [(2, 2000), (5, 8000), (10, 16000)]]


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def impulse(samples: int, at: int) -> torch.Tensor:
    return torch.nn.functional.one_hot(torch.tensor(at), samples).float()[None, None]


def gain(wave: torch.Tensor, frequency: float, rate: int = RATE) -> float:
    """Magnitude in dB of the Fourier transform of a response at one frequency."""
    phase = torch.exp(-2j * torch.pi * frequency / rate * torch.arange(wave.shape[-1], dtype=torch.float64))
    return float(20 * torch.log10((wave[0, 0] * phase).sum().abs()))


@pytest.mark.parametrize(("kind", "edge"), [("butterworth", -3.01), ("chebyshev", -0.1), ("elliptic", -0.1)])
def test_design_has_its_edge_at_the_cutoff(kind, edge):
    _, response = scipy.signal.sosfreqz(design(kind, 6, 4000, RATE), [4000], fs=RATE)
    assert 20 * np.log10(abs(response[0])) == pytest.approx(edge, abs=0.01)


def test_bessel_has_half_its_phase_at_the_cutoff():
    _, response = scipy.signal.sosfreqz(design("bessel", 2, 4000, RATE), [4000], fs=RATE)
    assert np.angle(response[0]) == pytest.approx(-np.pi / 2)


@pytest.mark.parametrize("cutoff", [0, -1, RATE / 2, RATE])
def test_design_refuses_a_cutoff_outside_the_band(cutoff):
    with pytest.raises(ValueError, match="not between 0 and 24000"):
        design("butterworth", 4, cutoff, RATE)


def test_design_names_the_kinds_it_knows():
    with pytest.raises(ValueError, match=r"'brick'.*butterworth, chebyshev, elliptic, bessel"):
        design("brick", 4, 1000, RATE)


@pytest.mark.parametrize("kind", KINDS)
def test_impulse_response_stays_below_120_db_after_settling(kind):
    for order in range(1, 11):
        for cutoff in (500, 6000, 12000, 22000):
            sos = design(kind, order, cutoff, RATE)
            settled = settling(sos)
            response = scipy.signal.sosfilt(sos, np.eye(1, 10 * settled + 100)[0])
            assert np.abs(response[settled:]).max() < 1e-6
            assert np.abs(response[: settled // 2]).max() > 1e-3  # or any large number would do


def test_settling_refuses_an_unstable_filter():
    with pytest.raises(ValueError, match="not stable"):
        settling(np.array([[1.0, 0, 0, 1, -2.5, 1]]))


@pytest.mark.parametrize(("kind", "order", "cutoff"), CASES)
def test_causal_equals_scipy_everywhere(kind, order, cutoff):
    wave, sos = noise(2, 1, 3000), design(kind, order, cutoff, RATE)
    expected = scipy.signal.sosfilt(sos, wave.numpy())
    np.testing.assert_allclose(sosfilt(wave, sos, zero_phase=False), expected, atol=5e-6)


@pytest.mark.parametrize(("kind", "order", "cutoff"), CASES)
def test_zero_phase_equals_scipy_away_from_the_ends(kind, order, cutoff):
    wave, sos = noise(2, 1, 6000), design(kind, order, cutoff, RATE)
    margin = settling(sos)
    assert margin < 2500
    expected = scipy.signal.sosfiltfilt(sos, wave.numpy(), padlen=0)[..., margin:-margin]
    np.testing.assert_allclose(sosfilt(wave, sos, zero_phase=True)[..., margin:-margin], expected, atol=5e-6)


def test_zero_phase_equals_scipy_everywhere_between_silence():
    sos = design("chebyshev", 8, 4000, RATE)
    wave, margin = noise(1, 1, 2000), settling(sos)
    silenced = torch.nn.functional.pad(wave, (margin, margin)).numpy()
    expected = scipy.signal.sosfiltfilt(sos, silenced, padlen=0)[..., margin:-margin]
    np.testing.assert_allclose(sosfilt(wave, sos, zero_phase=True), expected, atol=5e-6)


def test_doubles_are_filtered_in_double_precision():
    wave, sos = noise(1, 1, 4000).double(), design("elliptic", 4, 8000, RATE)
    wave[..., 1000:] = 0  # so that not even what rings on at -120 dB comes round
    expected = scipy.signal.sosfilt(sos, wave.numpy())
    np.testing.assert_allclose(sosfilt(wave, sos, zero_phase=False), expected, atol=1e-12)


def test_each_item_has_its_own_filter():
    cascades = [design(kind, order, cutoff, RATE) for kind, order, cutoff in CASES]
    assert len({len(sos) for sos in cascades}) > 1
    wave = noise(len(cascades), 1, 2000)
    batched = sosfilt(wave, cascades, zero_phase=True)
    single = torch.cat(
        [sosfilt(w[None], sos, zero_phase=True) for w, sos in zip(wave, cascades, strict=True)]
    )
    torch.testing.assert_close(batched, single, atol=1e-5, rtol=0)
    with pytest.raises(ValueError, match="12 filters for a batch of 3"):
        sosfilt(wave[:3], cascades, zero_phase=True)


@pytest.mark.parametrize("kind", KINDS)
def test_zero_phase_keeps_an_impulse_at_its_index(kind):
    response = sosfilt(impulse(2001, 700), design(kind, 6, 6000, RATE), zero_phase=True)[0, 0]
    assert response.argmax() == 700
    torch.testing.assert_close(response[701:1300], response[101:700].flip(0), atol=1e-6, rtol=0)


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
