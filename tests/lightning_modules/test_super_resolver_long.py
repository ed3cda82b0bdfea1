"""Long recordings: read and written by stretches, equal to the whole, in their place and at their level."""

from fractions import Fraction

import pytest
import torch
from test_super_resolver import RATE, Held, Oracle, Same, noise_of, sine

from lightning_modules import super_resolver
from signals.errors import UserError
from signals.interpolation import INTERPOLATIONS
from signals.types import Recording, Signal


class Watched:
    """A recording that remembers the longest stretch that was asked of it."""

    def __init__(self, wave: torch.Tensor, rate: int):
        self.longest, whole = 0, Recording.of(wave, rate)

        def read(first: int, count: int) -> torch.Tensor:
            self.longest = max(self.longest, count)
            return whole.read(first, count)

        self.recording = whole._replace(read=read)


def enhanced(model, wave: torch.Tensor, rate: int, **options) -> torch.Tensor:
    return torch.cat(list(model.enhance(Recording.of(wave, rate), **options)), dim=-1)


@pytest.fixture
def short_windows(monkeypatch):
    """As if 5,000 samples were long, for a method that takes any length."""
    monkeypatch.setattr(super_resolver, "LONG_WINDOW", 5000)


# Recording ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("first", "count"), [(0, 10), (-3, 5), (7, 9), (-4, 20), (12, 3), (-9, 4), (3, 0)])
def test_a_recording_is_silent_outside(first, count):
    wave = 1 + torch.arange(20.0).view(2, 1, 10)
    around = torch.cat([torch.zeros(2, 1, 20), wave, torch.zeros(2, 1, 20)], dim=-1)
    assert torch.equal(
        Recording.of(wave, RATE).read(first, count), around[..., 20 + first : 20 + first + count]
    )


def test_the_stretches_of_a_recording_are_all_of_it():
    wave = noise_of(2, 1001)
    stretches = list(Recording.of(wave, RATE).stretches(250))
    assert [stretch.shape[-1] for stretch in stretches] == [250, 250, 250, 250, 1]
    assert torch.equal(torch.cat(stretches, dim=-1), wave)


@pytest.mark.parametrize("upsample", ["polyphase", *(name for name in INTERPOLATIONS if name != "fft")])
@pytest.mark.parametrize("rate", [Fraction(8000, 3), 8000, 44100, 48000, 96000])
def test_a_stretch_of_what_is_raised_is_the_same_of_the_whole(rate, upsample):
    model, low = Same(upsample=upsample), noise_of(2, 3001)
    whole = super_resolver.raise_rate(Signal.of(low, rate), RATE, upsample).wave
    raised = model.raised(Recording.of(low, rate))
    assert raised.samples == whole.shape[-1]
    for first, count in ((0, whole.shape[-1]), (0, 100), (777, 500), (whole.shape[-1] - 99, 99)):
        stretch = raised.read(first, count)
        torch.testing.assert_close(stretch, whole[..., first : first + count], rtol=0, atol=1e-6)


# Enhancement ----------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("short_windows")
@pytest.mark.parametrize("model", [Same(), Same(upsample="spline"), Held(), Same(window=4000, overlap=500)])
@pytest.mark.parametrize("rate", [16000, 44100])
def test_a_long_recording_is_the_whole_of_its_pieces(model, rate):
    low = noise_of(2, rate)
    pieces = list(model.enhance(Recording.of(low, rate)))
    assert len(pieces) > 5
    whole = type(model)(rate=RATE, upsample=model.upsample)(Signal.of(low, rate)).wave
    torch.testing.assert_close(torch.cat(pieces, dim=-1), whole, rtol=0, atol=1e-5)


@pytest.mark.usefixtures("short_windows")
def test_no_more_than_a_window_is_read_at_once():
    watched = Watched(noise_of(2, 400_000), 16000)
    out = sum(piece.shape[-1] for piece in Same().enhance(watched.recording))
    assert out == 1_200_000
    assert watched.longest < 5000


@pytest.mark.usefixtures("short_windows")
@pytest.mark.parametrize("at", [0, 1, 441, 4410, 20_000, 44_099])
@pytest.mark.parametrize("model", [Same(), Same(upsample="sinc"), Same(window=3000, overlap=700)])
def test_an_impulse_in_a_long_recording_stays_where_it_was(model, at):
    wave = torch.zeros(1, 1, 44_100)
    wave[..., at] = 1
    out = enhanced(model, wave, 44_100)
    assert out.shape[-1] == RATE
    assert abs(int(out.abs().argmax()) - at * RATE / 44_100) <= 1


@pytest.mark.usefixtures("short_windows")
def test_level_and_length_are_kept():
    out = enhanced(Same(upsample="spline"), 0.01 * sine(30_001, 16_000), 16_000)
    assert out.shape[-1] == 90_003
    assert out[..., 1000:-1000].abs().max() == pytest.approx(0.01, rel=1e-3)


def test_channels_share_what_is_random():
    model = Same(window=1000)
    enhanced(model, noise_of(2, 3000), RATE, seed=7)
    seeds = torch.cat([seeds.view(-1, 2) for _, _, seeds, _ in model.calls])
    assert torch.equal(seeds[:, 0], seeds[:, 1])
    assert len(seeds[:, 0].unique()) == len(seeds)
    assert int(seeds[0, 0]) == 7


def test_the_cut_off_is_half_the_rate_or_what_is_said():
    for options, expected in (({}, 8000), ({"cutoff": 3000.0}, 3000)):
        model = Same()
        enhanced(model, noise_of(2, 300), 16_000, **options)
        assert model.calls[0][1].tolist() == [expected] * 2
    blind = Same(blind=True)
    enhanced(blind, noise_of(2, 300), 16_000)
    assert blind.calls[0][1] is None


def test_an_oracle_cannot_enhance():
    with pytest.raises(UserError, match="Oracle is an oracle"):
        enhanced(Oracle(), noise_of(1, 100), RATE)
