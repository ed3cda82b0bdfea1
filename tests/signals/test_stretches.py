"""Metrics of recordings that are read by stretches, against the same of the whole in memory."""

import pytest
import torch

from signals import frames, stretches
from signals.metrics import METRICS, by_polarity
from signals.resampling import resample
from signals.stretches import correlation, resampled, side_by_side, takes_stretches
from signals.types import Recording, Signal

STREAMED = [name for name, metric in METRICS.items() if takes_stretches(metric)]
WHOLE = {"pesq_wb", "pesq_nb", "stoi", "visqol", "nisqa"}
ROUNDED = {"seam": 1e-5}  # dB: a difference of levels, which the whole has in single precision
RATE = 48_000


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def stereo(samples: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Estimate and reference [2, 1, T]: late, quieter, with clicks, upside down on the right."""
    reference = 0.3 * noise(2, 1, samples, seed=1)
    estimate = 0.7 * reference.roll(3, -1) + 0.05 * noise(2, 1, samples, seed=2)
    estimate[..., ::1777] += 4
    estimate[1] *= -1
    return estimate, reference


def silent_at_first(samples: int) -> tuple[torch.Tensor, torch.Tensor]:
    estimate, reference = stereo(samples)
    estimate[..., : samples // 2], reference[..., : samples // 3] = 0, 0
    return estimate, reference


def silent(samples: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Either of the two: the estimate on the left, the reference on the right."""
    estimate, reference = stereo(samples)
    estimate[0], reference[1] = 0, 0
    return estimate, reference


def equal(samples: int) -> tuple[torch.Tensor, torch.Tensor]:
    return stereo(samples)[1], stereo(samples)[1]


SOUNDS = [stereo, silent_at_first, silent, equal]


@pytest.fixture
def short(monkeypatch):
    """Stretches of 5,000 samples and few frames: even a short recording has many, with odd ends."""
    monkeypatch.setattr(stretches, "AT_ONCE", 10_000)
    monkeypatch.setitem(frames.SAMPLES_AT_ONCE, "cpu", 40_000)


def test_all_metrics_but_those_of_others_take_stretches():
    assert set(METRICS) - set(STREAMED) == WHOLE


def test_a_metric_of_a_user_s_is_given_the_whole():
    def mine(estimate, reference, cutoff=None):
        return {"": estimate.wave.sum((1, 2))}

    assert not takes_stretches(mine) and not takes_stretches(by_polarity(mine))


@pytest.mark.parametrize("samples", [70_001, 3 * 8192, 48_000, 5_000, 600])
@pytest.mark.parametrize("sounds", SOUNDS)
@pytest.mark.parametrize("name", STREAMED)
def test_by_stretches_as_the_whole(short, name, sounds, samples):
    waves = sounds(samples)
    for cutoff in (None, torch.tensor([4000.0, 24_000.0])):
        whole = METRICS[name](*(Signal.of(wave, RATE) for wave in waves), cutoff)
        parts = METRICS[name](*(Recording.of(wave, RATE) for wave in waves), cutoff)
        assert parts.keys() == whole.keys()
        for suffix, score in parts.items():
            torch.testing.assert_close(
                score.double(),
                whole[suffix].double(),
                rtol=1e-6,
                atol=ROUNDED.get(name, 1e-9),
                equal_nan=True,
            )


@pytest.mark.parametrize("name", STREAMED)
def test_metrics_read_few_samples_at_once(short, name):
    """Of 400,000 samples, no more than are put to work at once and what is around them."""
    most = 0

    def counted(recording: Recording) -> Recording:
        def read(first: int, count: int) -> torch.Tensor:
            nonlocal most
            most = max(most, count)
            return recording.read(first, count)

        return recording._replace(read=read)

    METRICS[name](*(counted(Recording.of(wave, RATE)) for wave in stereo(400_000)), torch.full((2,), 4e3))
    assert 0 < most < 25_000


@pytest.mark.parametrize("name", STREAMED)
def test_recordings_that_differ_are_no_pair(name):
    wave = noise(1, 1, 5000)
    with pytest.raises(ValueError, match="5000"):
        METRICS[name](Recording.of(wave, RATE), Recording.of(wave[..., 1:], RATE))
    with pytest.raises(ValueError, match="44100"):
        METRICS[name](Recording.of(wave, RATE), Recording.of(wave, 44_100))


@pytest.mark.parametrize("around", [0, 7])
def test_side_by_side_is_all_of_both(short, around):
    waves = noise(2, 2, 1, 12_345)
    parts = list(side_by_side(*(Recording.of(wave, RATE) for wave in waves), around))
    assert [first for first, *_ in parts] == [0, 5000, 10_000]
    for i in (0, 1):
        inner = [both[i][:, around : both[i].shape[1] - around] for _, *both in parts]
        assert torch.equal(torch.cat(inner, 1), waves[i][:, 0])
    (_, E, R), *_ = parts
    assert not E[:, :around].any() and torch.equal(R[:, around:], waves[1][:, 0, : R.shape[1] - around])


@pytest.mark.parametrize("rate", [44_100, 16_000, 47_999, 96_000])
def test_a_stretch_is_resampled_as_the_whole(rate):
    wave = noise(2, 1, 50_001)
    recording, whole = resampled(Recording.of(wave, RATE), rate), resample(wave, RATE, rate)
    assert recording.samples == whole.shape[-1]
    for first, count in ((0, 300), (-5, 50), (12_345, 4001), (recording.samples - 100, 300)):
        expected = Recording.of(whole, rate).read(first, count)
        torch.testing.assert_close(recording.read(first, count), expected)


def test_a_correlation_is_summed_over_stretches(short):
    estimate, reference = noise(2, 3, 1, 12_001)
    found = correlation(Recording.of(estimate, RATE), Recording.of(reference, RATE), 20)
    padded = torch.nn.functional.pad(estimate[:, 0], (20, 20)).double()
    expected = [(padded[:, k : k + 12_001] * reference[:, 0]).sum(1) for k in range(41)]
    torch.testing.assert_close(found, torch.stack(expected, 1))
