"""Separate, then enhance: stems that add up, however they are read, and that are enhanced one by one."""

import urllib.error
from fractions import Fraction
from typing import ClassVar

import librosa
import pytest
import torch
import torchaudio
from audiosr_tiny import one_thread  # noqa: F401
from test_fma_unet import RATE, awake, method, noise
from test_super_resolver import Same, noise_of
from test_super_resolver_long import Watched
from torch import nn

from lightning_modules import build_method, separation
from lightning_modules.separation import Demucs, HarmonicPercussive, SeparateThenEnhance, hybrid_demucs
from lightning_modules.super_resolver import raise_rate
from signals.errors import UserError
from signals.spectra import stft
from signals.types import Recording, Signal

STEMS = ["drums", "bass", "other", "vocals"]


def read(stems: list[Recording]) -> torch.Tensor:
    """[S, B, 1, T]"""
    return torch.stack([stem.read(0, stem.samples) for stem in stems])


def tone_and_clicks(samples: int) -> tuple[torch.Tensor, torch.Tensor]:
    """[1, 1, T] each, at RATE."""
    tone = 0.3 * torch.sin(2 * torch.pi * 441 / RATE * torch.arange(samples))
    clicks = torch.zeros(samples)
    clicks[8000::16000] = 1.0
    return tone[None, None], clicks[None, None]


# Harmonic and percussive ----------------------------------------------------------------------------------


def test_the_mask_is_librosas_away_from_the_edges():
    magnitude = stft(noise_of(2, 60_000), 1024, 256).abs()
    ours = HarmonicPercussive().mask(magnitude)
    theirs, rest = librosa.decompose.hpss(magnitude.numpy(), kernel_size=17, power=2.0, mask=True)
    edge = slice(8, -8)
    assert abs(ours.numpy() - theirs)[:, edge, edge].max() < 1e-5
    assert abs(theirs + rest - 1).max() < 1e-5


def test_a_tone_is_harmonic_and_clicks_are_percussive():
    tone, clicks = tone_and_clicks(120_000)
    harmonic, percussive = read(HarmonicPercussive()(Recording.of(tone + clicks, RATE)))
    inner = slice(20_000, 100_000)
    for stem, own, other in ((harmonic, tone, clicks), (percussive, clicks, tone)):
        error = (stem - own)[..., inner].square().sum()
        assert error < 0.05 * torch.minimum(own[..., inner].square().sum(), other[..., inner].square().sum())


@pytest.mark.parametrize("rate", [8000, Fraction(8000, 3), 16000, 44100])
def test_stems_add_up_and_do_not_depend_on_how_they_are_read(rate, monkeypatch):
    monkeypatch.setattr(HarmonicPercussive, "seconds", 0.3)  # several segments
    separator, wave = HarmonicPercussive(), noise_of(2, 40_001)
    whole = separator.separate(torch.nn.functional.pad(wave, (40_960, 40_960)), rate)[..., 40_960:80_961]
    low = Recording.of(wave, rate)
    stems = separator(low)
    torch.testing.assert_close(read(stems), whole, rtol=0, atol=1e-5)
    torch.testing.assert_close(read(stems).sum(0), wave, rtol=0, atol=1e-6)
    for first, count in ((0, 10), (777, 20_000), (39_000, 5000), (-300, 400), (-9, 4), (41_000, 5), (3, 0)):
        for stem, expected in zip(stems, whole, strict=True):
            around = Recording.of(expected, rate).read(first, count)
            torch.testing.assert_close(stem.read(first, count), around, rtol=0, atol=1e-5)


def test_stems_are_as_loud_as_the_recording_and_silence_has_silent_ones():
    wave = noise_of(1, 30_000)
    separator = HarmonicPercussive()
    once, twice = (read(separator(Recording.of(gain * wave, RATE))) for gain in (1, 2))
    assert torch.equal(2 * once, twice)
    assert not read(separator(Recording.of(0 * wave, RATE))).any()


# Demucs ---------------------------------------------------------------------------------------------------


class Quarters(nn.Module):
    """The mixture in four equal parts."""

    sources = STEMS
    heard: ClassVar[list[int]] = []

    def forward(self, wave):
        self.heard.append(wave.shape[-1])
        assert wave.shape[1] == 2
        assert torch.equal(wave[:, 0], wave[:, 1])
        return wave[:, None].expand(-1, 4, -1, -1) / 4


@pytest.fixture
def quarters(monkeypatch):
    monkeypatch.setattr(separation, "hybrid_demucs", Quarters)
    monkeypatch.setattr(Demucs, "seconds", 0.5)
    monkeypatch.setattr(Demucs, "fade", 0.1)


@pytest.mark.usefixtures("quarters")
def test_demucs_segments_fade_into_each_other():
    wave = noise_of(2, 50_000) + 0.1
    stems = Demucs()(Recording.of(wave, RATE))
    assert len(stems) == 4
    Quarters.heard.clear()
    torch.testing.assert_close(read(stems), (wave / 4).expand(4, -1, -1, -1), rtol=0, atol=1e-6)
    assert len(Quarters.heard) == 4  # each once
    assert max(Quarters.heard) <= 0.5 * RATE
    torch.testing.assert_close(stems[3].read(13_000, 3000), wave[..., 13_000:16_000] / 4, rtol=0, atol=1e-6)


@pytest.mark.usefixtures("quarters")
def test_demucs_hears_44100_hz_and_gives_back_the_rate_of_the_recording():
    wave = torch.sin(2 * torch.pi * 440 / 16_000 * torch.arange(20_000.0))[None, None]
    out = read(Demucs()(Recording.of(wave, 16_000))).sum(0)
    assert (out - wave)[..., 100:-100].abs().max() < 0.01


def test_the_network_of_demucs_keeps_levels_and_items_apart(monkeypatch):
    torch.manual_seed(0)
    net = torchaudio.models.HDemucs(STEMS, channels=4, depth=5).eval()
    monkeypatch.setattr(separation, "hybrid_demucs", lambda: net)
    monkeypatch.setattr(Demucs, "fade", 0.01)
    wave = noise_of(2, 30_000)
    with torch.inference_mode():
        both, loud, first = (
            read(Demucs()(Recording.of(given, RATE))) for given in (wave, 8 * wave, wave[:1])
        )
    assert both.shape == (4, 2, 1, 30_000)
    torch.testing.assert_close(loud, 8 * both, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(both[:, :1], first, rtol=0, atol=1e-4)


def test_weights_that_are_not_to_be_had_are_one_line(monkeypatch, tmp_path):
    hybrid_demucs.cache_clear()
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))

    def unreachable(*args, **kwargs):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(torchaudio.utils.download, "download_url_to_file", unreachable)
    with pytest.raises(UserError, match=r"no route to host.*harmonic_percussive needs none") as caught:
        SeparateThenEnhance(RATE, Same(rate=RATE), "demucs")(Signal.of(noise_of(1, 1000), RATE))
    assert "\n" not in str(caught.value)


# Enhancement ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [16_000, 44_100])
@pytest.mark.parametrize("window", [None, 20_000])
def test_a_linear_enhancer_does_to_the_stems_what_it_does_to_the_mixture(rate, window):
    low = Signal(noise_of(2, 30_001), rate, torch.tensor([30_001, 21_000]))
    enhancer = Same(rate=RATE, window=window, overlap=4000 if window else 0)
    estimate = SeparateThenEnhance(RATE, enhancer)(low)
    expected = enhancer(low)
    assert torch.equal(estimate.lengths, expected.lengths)
    torch.testing.assert_close(estimate.wave, expected.wave, rtol=0, atol=1e-5)


@pytest.mark.parametrize("rate", [16_000, 44_100])
def test_the_network_hears_each_stem_at_a_peak_of_one_and_each_gets_its_own_back(rate, monkeypatch):
    enhancer, wave = awake(method(window=None, overlap=0)), 0.2 * noise(1, 20_000)
    heard = []
    enhancer.net.register_forward_hook(lambda module, given, out: heard.append(given[0].abs().max().item()))
    low = Recording.of(wave, rate)
    with torch.no_grad():
        estimate = SeparateThenEnhance(RATE, enhancer, window=None, overlap=0)(Signal.of(wave, rate)).wave
        stems = [
            enhancer(Signal.of(stem.read(0, stem.samples), rate)).wave for stem in HarmonicPercussive()(low)
        ]
        assert heard[:2] == pytest.approx([1, 1])
        torch.testing.assert_close(estimate, sum(stems), rtol=0, atol=1e-5)
        loud = SeparateThenEnhance(RATE, enhancer, window=None, overlap=0)(Signal.of(4 * wave, rate)).wave
        assert not torch.allclose(
            estimate, enhancer(Signal.of(wave, rate)).wave, atol=1e-2
        )  # it is not linear
    torch.testing.assert_close(loud, 4 * estimate, rtol=0, atol=1e-5)


def test_a_long_recording_is_enhanced_in_bounded_memory(monkeypatch):
    monkeypatch.setattr(HarmonicPercussive, "seconds", 0.3)
    monkeypatch.setattr(separation, "HELD", 1)  # less than it lasts
    enhancer, wave = awake(method()), noise(1, 50_000)
    model = SeparateThenEnhance(RATE, enhancer, window=16_384, overlap=2048)
    watched = Watched(wave, 16_000)
    with torch.no_grad():
        pieces = list(model.enhance(watched.recording))
        whole = model(Signal.of(wave, 16_000)).wave
    assert len(pieces) > 5
    hop, margin, _ = HarmonicPercussive().cut(watched.recording)
    assert watched.longest <= hop + 2 * margin < 32_000
    torch.testing.assert_close(torch.cat(pieces, dim=-1), whole, rtol=0, atol=1e-5)


def test_a_held_recording_is_separated_once(monkeypatch):
    places = []
    separate = HarmonicPercussive.separate
    monkeypatch.setattr(HarmonicPercussive, "seconds", 0.3)
    monkeypatch.setattr(
        HarmonicPercussive,
        "separate",
        lambda self, wave, rate: places.append(rate) or separate(self, wave, rate),
    )
    low = Signal.of(noise(1, 60_000), RATE)
    with torch.no_grad():
        SeparateThenEnhance(RATE, method().eval(), window=16_384, overlap=2048)(low)
    hop, _, _ = HarmonicPercussive().cut(Recording.of(*low[:2]))
    assert len(places) == -(-60_000 // hop) > 3


class Blind(Same):
    """Finds the band edge at the loudest sample, so that each stem would have its own."""

    blind = True

    def survey(self, low, cutoff, seeds, reference):
        loudest = low.read(0, low.samples).abs().amax((1, 2))
        return {"cutoff": loudest if cutoff is None else cutoff}


def test_where_the_band_ends_is_asked_of_the_mixture():
    wave = noise_of(2, 20_000)
    enhancer = Blind(rate=RATE)
    SeparateThenEnhance(RATE, enhancer)(Signal.of(wave, RATE), seeds=torch.tensor([3, 4]))
    (_, edge, seeds, _), (_, other, others, _) = enhancer.calls
    assert torch.equal(edge, wave.abs().amax((1, 2)))
    assert torch.equal(other, edge)
    assert seeds.tolist() == [3, 4]
    assert not set(others.tolist()) & {3, 4}


def test_it_is_built_by_its_name_from_a_trained_part():
    unet = method()
    built = build_method("separate_then_enhance", RATE, {"enhancer": unet}, {"overlap": 0})
    assert isinstance(built.separator, HarmonicPercussive)
    assert (built.window, unet.overlap) == (65536, 0)
    low = Signal.of(noise_of(1, 3000), 16_000)
    with torch.no_grad():
        assert built.eval()(low).wave.shape == raise_rate(low, RATE, "polyphase").wave.shape


def test_what_does_not_fit_is_refused():
    for part, settings, why in (
        (method(), {"separator": "open_unmix"}, "unknown separator open_unmix: one of harmonic_percussive"),
        (method(), {"ovrelap": 3}, "FmaUNet has no setting ovrelap"),
        (Same(rate=RATE, oracle=True), {}, "is an oracle"),
        (Same(rate=48_000), {}, "Same is at 48000 Hz, not at 44100 Hz"),
    ):
        with pytest.raises(UserError, match=why):
            build_method("separate_then_enhance", RATE, {"enhancer": part}, settings)
