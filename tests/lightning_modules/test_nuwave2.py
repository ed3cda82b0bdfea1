"""NU-Wave 2: count and goldens, band masks, log-SNRs, times over a batch. The rest is in test_nuwave.py."""

import pytest
import torch
from audiosr_tiny import one_thread, random_wave  # noqa: F401
from test_nuwave import NAMES, RATE, assert_close, golden, method, theirs
from torch import Tensor

from lightning_modules.nuwave2 import (
    BINS,
    SCHEDULE,
    A,
    B,
    FourierUnit,
    NuWave2,
    NuWave2Net,
    band_mask,
    ddim,
    log_snr,
    told,
)
from lightning_modules.stage import noise
from signals.errors import UserError
from signals.resampling import resample
from signals.types import Signal

FFC = r"residual_layers.\1.ffc1"
NUWAVE2_NAMES = (
    *NAMES,
    (r"stem\.(\w+)", r"input_projection.\1"),
    (r"layers\.(\d+)\.mixing\.local_to_local\.weight", rf"{FFC}.convl2l.weight"),
    (r"layers\.(\d+)\.mixing\.local_to_global\.weight", rf"{FFC}.convl2g.weight"),
    (r"layers\.(\d+)\.mixing\.global_to_local\.weight", rf"{FFC}.convg2l.weight"),
    (r"layers\.(\d+)\.mixing\.global_to_global\.inner\.weight", rf"{FFC}.convg2g.conv1.weight"),
    (r"layers\.(\d+)\.mixing\.global_to_global\.outer\.weight", rf"{FFC}.convg2g.conv2.weight"),
    (r"layers\.(\d+)\.mixing\.global_to_global\.unit\.mix\.weight", rf"{FFC}.convg2g.fu.conv_layer.weight"),
    (
        r"layers\.(\d+)\.mixing\.global_to_global\.unit\.(shared|gamma|beta)\.(\w+)",
        rf"{FFC}.convg2g.fu.bsft.mlp_\2.\3",
    ),
)
CUTOFF = torch.tensor([12000.0, 8000.0])  # of the goldens' 256 and 171 bins


def their_nuwave2() -> NuWave2:
    stage = method(NuWave2, model={})
    theirs(stage.net, "nuwave2", "model.model.", NUWAVE2_NAMES)
    return stage


def inputs() -> list[Tensor]:
    """y and low [2, 1, 2048], level [2]."""
    y, low, level = golden("nuwave2", "input.audio", "input.audio_low", "input.noise_level")
    return [y[:, None], low[:, None], level]


def test_the_parameter_count_is_the_published():
    with torch.device("meta"):
        nets = NuWave2Net(), NuWave2Net(**NuWave2.defaults["options"])
    assert [sum(p.numel() for p in net.parameters()) for net in nets] == [1_711_681] * 2


@torch.no_grad()
def test_the_network_is_the_authors():
    stage, (y, low, level) = their_nuwave2(), inputs()
    embedding, out, bins = golden("nuwave2", "noise_embedding", "out", "input.band_bins")
    assert torch.equal(band_mask(CUTOFF, RATE)[:, 1].sum(-1).long(), bins)
    assert_close(stage.net.embedding(level), embedding)
    assert_close(stage.predict(y, low, CUTOFF, level)[:, 0], out)
    for row in (0, 1):
        own = slice(row, row + 1)
        assert_close(stage.predict(y[own], low[own], CUTOFF[own], level[own])[:, 0], out[own])


def test_the_schedules_are_the_authors():
    stage = method(NuWave2)
    logsnr, normed, alpha, sigma = golden(
        "nuwave2", "infer.logsnr", "infer.norm_nlogsnr", "infer.alpha_sq", "infer.sigma_sq"
    )
    assert_close(stage.schedule, logsnr, atol=1e-6)
    assert_close(told(stage.schedule), normed, atol=1e-7)
    assert_close(stage.schedule.sigmoid(), alpha, atol=1e-7)
    assert_close((-stage.schedule).sigmoid(), sigma, atol=1e-7)
    t, logsnr, normed, a, b = golden(
        "nuwave2", "train.t", "train.logsnr", "train.norm_nlogsnr", "infer.logsnr_a", "infer.logsnr_b"
    )
    assert (pytest.approx(float(a)), pytest.approx(float(b))) == (A, B)
    assert_close(log_snr(t), logsnr)
    assert_close(stage.noising(t)[2], normed, atol=1e-6)


@torch.no_grad()
def test_the_sampler_is_the_authors():
    stage, (y, low, _) = their_nuwave2(), [wave[:1] for wave in inputs()]
    stepped, start, first, unclamped, clamped, z0 = golden(
        "nuwave2",
        "ddim_step_out",
        "ddim_step_pred",
        "inference8_step1",
        "inference8_unclamped",
        "inference8",
        "input.z0",
    )
    before, after = stage.schedule[:2]

    def step(y: Tensor) -> Tensor:
        eps = stage.predict(y, low, CUTOFF[:1], told(before)[None])
        return ddim(y, eps, before, after)

    assert_close(step(y)[:, 0], stepped)
    eps = stage.predict(y, low, CUTOFF[:1], told(before)[None])
    assert_close(ddim(y, eps, before, torch.tensor(200.0))[:, 0], start)  # where no noise is left
    assert_close(step(z0[:, None])[:, 0], first)
    out = stage.sample(low, CUTOFF[:1], lambda number: z0[:, None])
    assert_close(out[:, 0], clamped)
    assert_close(out[:, 0], unclamped.clamp(-1, 1 - 2**-10))


# ---------------------------------------------------------------- bands


def test_band_masks():
    cutoff = torch.tensor([0.0, 4000.0, 12000.0, 23999.0, 24000.0, 48000.0])
    above, below = band_mask(cutoff, RATE).unbind(1)
    assert below.sum(-1).tolist() == [0, 85, 256, 512, 513, 513]
    assert torch.equal(above + below, torch.ones(6, BINS))
    assert below[1, :85].all()


@torch.no_grad()
def test_bands_of_a_batch_may_be_all_or_nothing():
    """Each is as alone, and hears its own mask."""
    stage = method(NuWave2)
    y, low, level = noise((1, 3000), torch.arange(3)), random_wave(3, 3000), torch.full((3,), 0.5)
    together = stage.predict(y, low, torch.tensor([0.0, 8000.0, 24000.0]), level)
    for row, hertz in enumerate((0.0, 8000.0, 24000.0)):
        own = slice(row, row + 1)
        alone = stage.predict(y[own], low[own], torch.tensor([hertz]), level[own])
        torch.testing.assert_close(alone, together[own], atol=1e-5, rtol=1e-4)
    other = stage.predict(y, low, torch.tensor([24000.0, 8000.0, 0.0]), level)
    assert torch.equal(other[1], together[1])
    assert (other - together)[[0, 2]].abs().amax((1, 2)).min() > 1e-3


@torch.no_grad()
def test_the_fourier_unit_scales_bins_by_their_side_of_the_cut_off():
    """With gammas of 1 below and -1 above, and positive parts passed: by hand, from the spectrum."""
    unit, x = FourierUnit(1, 2), random_wave(2, 2048)
    for p in unit.parameters():
        p.zero_()
    unit.shared.weight[:, :, 1] = 40 * torch.eye(2)  # SiLU(40) is 40
    unit.gamma.weight[:, :, 1] = torch.tensor([[-1 / 40, 1 / 40]] * 2)
    unit.mix.weight[:, :, 0, 0] = torch.eye(2)
    window = torch.hann_window(1024)
    options = {"n_fft": 1024, "hop_length": 256, "window": window, "normalized": True}
    spectrum = torch.stft(x[:, 0], **options, return_complex=True)
    spectrum = 2 * torch.complex(spectrum.real.relu(), spectrum.imag.relu())
    spectrum[:, 171:] = 0
    expected = torch.istft(spectrum, **options)[:, None]
    torch.testing.assert_close(unit(x, band_mask(CUTOFF[[1, 1]], RATE)), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("samples", [1, 255, 1024, 1281])
@torch.no_grad()
def test_any_length_is_continued_with_zeros(samples):
    net, band = method(NuWave2).net, band_mask(CUTOFF, RATE)
    y, low, level = noise((1, samples), torch.arange(2)), random_wave(2, samples), torch.full((2,), 0.3)
    longer = max(1024, -(-samples // 256) * 256) - samples
    padded = [torch.nn.functional.pad(wave, (0, longer)) for wave in (y, low)]
    torch.testing.assert_close(net(y, low, band, level), net(*padded, band, level)[..., :samples])


# ---------------------------------------------------------------- log-SNRs and times


def test_the_noise_is_by_its_log_snr():
    stage, t = method(NuWave2), torch.tensor([0.0, 0.25, 0.5, 0.999])
    alpha, sigma, level = stage.noising(t)
    torch.testing.assert_close(alpha.square() + sigma.square(), torch.ones(4))
    torch.testing.assert_close(2 * (alpha / sigma).log(), 20 - 40 * level, atol=1e-3, rtol=1e-4)
    torch.testing.assert_close(level[[0, 2]], torch.tensor([0.0, 0.5]), atol=1e-4, rtol=0)
    torch.testing.assert_close(log_snr(t[1:2]), -log_snr(1 - t[1:2]), atol=1e-4, rtol=0)


def test_schedules_of_other_lengths_are_even():
    assert method(NuWave2).schedule.tolist() == pytest.approx([*SCHEDULE, 20])
    assert method(NuWave2, steps=4).schedule.tolist() == [-20, -10, 0, 10, 20]
    stage = method(NuWave2, steps=1)
    assert stage.schedule.tolist() == [-20, 20]
    for steps in (0, 2.5):
        with pytest.raises(UserError, match=f"steps={steps}: a whole number from 1 on"):
            stage.used(steps=steps)


@pytest.mark.parametrize("steps", [3, 8])
@torch.no_grad()
def test_a_network_that_knows_the_noise_finds_the_signal(steps, monkeypatch):
    stage, wave = method(NuWave2, steps=steps), random_wave(2, 3000).clamp(-1, 0.9)

    def predict(y, low, cutoff, level):
        logsnr = (20 - 40 * level.double())[:, None, None]
        return ((y - logsnr.sigmoid().sqrt() * wave) / (-logsnr).sigmoid().sqrt()).float()

    monkeypatch.setattr(stage, "predict", predict)
    out = stage.sample(wave, torch.zeros(2), lambda number: noise((1, 3000), torch.tensor([1, 2]), number))
    assert (out - wave).abs().max() < 1e-3


def test_what_comes_out_is_clamped(monkeypatch):
    stage = method(NuWave2)
    monkeypatch.setattr(stage, "predict", lambda y, *rest: torch.zeros_like(y))
    loud = stage.sample(
        torch.zeros(1, 1, 3), torch.zeros(1), lambda number: torch.tensor([[[-9.0, 0.0, 9.0]]])
    )
    assert loud.flatten().tolist() == [-1, 0, 1 - 2**-10]


def test_times_are_even_over_a_batch_that_is_learnt_from():
    stage, seeds = method(NuWave2), torch.tensor([7, 8, 9, 10])
    checked = stage.times(seeds, 1)
    assert torch.equal(checked[1:2], stage.times(seeds[1:2], 1))
    stage.train()
    t = stage.times(seeds, 1)
    assert torch.equal(t[0], checked[0])
    torch.testing.assert_close(t.sort().values.diff(), torch.full((3,), 0.25))
    torch.testing.assert_close(t, stage.times(torch.tensor([7, 1, 2, 3]), 1))
    assert not torch.isclose(stage.times(seeds, 4), t).any()
    assert ((t >= 0) & (t < 1)).all()
    firsts = torch.cat([stage.times(torch.tensor([seed, 0]), 1) for seed in range(400)])
    assert float(firsts.mean()) == pytest.approx(0.5, abs=0.03)


@torch.no_grad()
def test_it_hears_a_lower_rate_by_the_polyphase_filter(monkeypatch):
    stage, low, heard = method(NuWave2), random_wave(1, 1000), []
    monkeypatch.setattr(stage, "sample", lambda wave, cutoff, drawn: heard.append((wave, cutoff)) or wave)
    out = stage(Signal.of(low, 16000))
    torch.testing.assert_close(out.wave, resample(low, 16000, RATE), atol=1e-6, rtol=0)
    assert heard[0][0].abs().max() == 1
    assert heard[0][1].tolist() == [8000]


def test_channels_are_halved():
    with pytest.raises(UserError, match="channels=5: an even number"):
        NuWave2Net(channels=5)
