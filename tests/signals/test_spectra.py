"""Spectra against librosa and closed forms."""

import librosa
import numpy as np
import pytest
import torch

from signals.spectra import istft, mel_filters, rolloff, stft


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("pad_mode", ["constant", "reflect"])
@pytest.mark.parametrize(
    ("n_fft", "hop", "window_length"), [(2048, 441, None), (2229, 480, None), (1024, 160, 640)]
)
def test_stft_equals_librosa(n_fft, hop, window_length, pad_mode):
    wave = noise(2, 1, 9600)
    expected = librosa.stft(
        wave[:, 0].numpy(), n_fft=n_fft, hop_length=hop, win_length=window_length, pad_mode=pad_mode
    )
    actual = stft(wave, n_fft, hop, window_length, pad_mode=pad_mode)
    assert actual.dtype == torch.complex64
    np.testing.assert_allclose(actual, expected, atol=1e-3)


def test_stft_without_centre_starts_at_the_first_sample():
    wave = noise(1, 4096)
    expected = librosa.stft(wave.numpy(), n_fft=1024, hop_length=256, center=False)
    np.testing.assert_allclose(stft(wave, 1024, 256, center=False), expected, atol=1e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_istft_inverts_stft(dtype):
    wave = noise(3, 1, 8192).to(dtype)
    result = istft(stft(wave, 1024, 256), 1024, 256, 8192)
    assert result.dtype == dtype
    torch.testing.assert_close(result, wave, atol=1e-5, rtol=0)


def test_mel_filters_are_librosas():
    filters = mel_filters(48000, 2048, 80, 20, 24000)
    expected = librosa.filters.mel(sr=48000, n_fft=2048, n_mels=80, fmin=20, fmax=24000)
    assert filters.dtype == torch.float32
    np.testing.assert_array_equal(filters, expected)
    assert mel_filters(48000, 2048, 80, 20, 24000) is filters
    assert mel_filters(48000, 2048, 80, 20, 24000, htk=True, norm=None).amax() > 0.5 > filters.amax()


def released(cumulative: np.ndarray, fraction: float) -> int:
    """AudioSR's released search, as its specification puts it: from the top, the first bin below."""
    threshold = cumulative[-1] * fraction
    for i in range(1, len(cumulative)):
        if cumulative[-i] < threshold:
            return len(cumulative) - i
    return 0


@pytest.mark.parametrize("fraction", [0.5, 0.97, 0.985])
def test_rolloff_is_the_released_search(fraction):
    magnitude = torch.rand(4, 100, 7, generator=torch.Generator().manual_seed(0))
    magnitude[1, 40:] = 0
    magnitude[2, 1:] = 0
    magnitude[3] = 0
    found = rolloff(magnitude, fraction).tolist()
    expected = [released(np.cumsum(item.sum(-1).double().numpy()), fraction) for item in magnitude]
    assert found == expected
    assert found[0] > found[1] > found[2] == found[3] == 0


def test_rolloff_of_a_flat_spectrum():
    assert rolloff(torch.ones(1, 100, 3), 0.5).tolist() == [48]  # 49 of 100 lie up to bin 48


def test_rolloff_ignores_padding():
    magnitude = torch.rand(1, 100, 7, generator=torch.Generator().manual_seed(1))
    padded = torch.nn.functional.pad(magnitude, (0, 9))
    assert rolloff(magnitude, 0.9).item() == rolloff(padded, 0.9).item() > 50
