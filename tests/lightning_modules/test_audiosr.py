"""AudioSR: schedule, sampler, latents, and the method around them, with networks of a few channels."""

from dataclasses import asdict
from itertools import pairwise

import numpy as np
import pytest
import torch
from audiosr_tiny import (
    FRONTEND,
    RATE,
    SAMPLES,
    one_thread,  # noqa: F401
    pair_of,
    random_wave,
    tiny_ldm,
    tiny_vae,
    tiny_vocoder,
)
from diffusers import DDIMScheduler

from lightning_modules import build_method
from lightning_modules.audiosr import AudioSR, GTMel, frontend
from lightning_modules.audiosr.frontend import RunningMean, normalise
from lightning_modules.audiosr.latent_diffusion import (
    BLOCK,
    cosine_betas,
    ddim,
    dpm_solver,
    guided,
)
from lightning_modules.audiosr.settings import VARIANTS as SETTINGS
from lightning_modules.audiosr.settings import Settings
from lightning_modules.stage import endless_noise, noise
from signals.errors import UserError
from signals.filters import boxcar
from signals.resampling import resample
from signals.types import Recording, Signal

VARIANTS = ["text", "code"]
HOP = FRONTEND["hop"]


def rms(wave: torch.Tensor) -> float:
    return float(wave.square().mean().sqrt())


@pytest.fixture(scope="module")
def vae():
    return tiny_vae().eval()


@pytest.fixture(scope="module")
def vocoder():
    return tiny_vocoder().eval()


# ---------------------------------------------------------------- schedule and sampler


def test_the_schedule_is_the_released():
    betas = cosine_betas()
    abar = np.cumprod(1 - betas)
    assert betas[0] == pytest.approx(4.1284e-5, rel=1e-4)
    assert abar[981] == pytest.approx(7.867e-4, rel=1e-4)
    assert abar[998] == pytest.approx(2.43e-6, rel=2e-3)
    assert abar[999] == 0
    theirs = DDIMScheduler(beta_schedule="squaredcos_cap_v2").alphas_cumprod.double().numpy()
    assert np.abs(abar - theirs).max() < 3e-7 + 1e-7  # and float32
    np.testing.assert_allclose(tiny_ldm().abar.numpy(), abar, atol=1e-7)


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_sampler_has_the_schedule(variant):
    abar = np.cumprod(1 - cosine_betas())
    np.testing.assert_allclose(ddim(Settings.of(variant)).alphas_cumprod.numpy(), abar, atol=1e-6)


@pytest.mark.parametrize(
    ("variant", "steps", "timesteps"),
    [
        ("code", 50, range(981, 0, -20)),
        ("text", 50, range(999, 0, -20)),
        ("text", 1, [999]),
        ("code", 500, range(999, 0, -2)),
    ],
)
def test_timesteps(variant, steps, timesteps):
    scheduler = ddim(Settings.of(variant))
    scheduler.set_timesteps(steps)
    assert scheduler.timesteps.tolist() == list(timesteps)


def test_v_inverts():
    ldm, generator = tiny_ldm(), torch.Generator().manual_seed(0)
    z0, eps = torch.randn(2, 5, 4, 8, 8, generator=generator)
    t = torch.tensor([0, 1, 500, 981, 999])
    z_t, v = ldm.noised(z0, eps, t)
    abar = ldm.abar[t].view(-1, 1, 1, 1)
    torch.testing.assert_close(abar.sqrt() * z_t - (1 - abar).sqrt() * v, z0)
    torch.testing.assert_close(abar.sqrt() * v + (1 - abar).sqrt() * z_t, eps)
    torch.testing.assert_close(z_t[-1], eps[-1])  # nothing is left of z0
    torch.testing.assert_close(v[-1], -z0[-1])


@pytest.mark.parametrize("steps", [5, 10, 20, 50, 100])
def test_the_solver_has_the_schedule_but_for_its_end(steps):
    scheduler, abar = dpm_solver(), np.cumprod(1 - cosine_betas())
    np.testing.assert_allclose(scheduler.alphas_cumprod[:-1].numpy(), abar[:-1], atol=1e-6)
    assert scheduler.alphas_cumprod[-1] == 2**-24
    scheduler.set_timesteps(steps)
    assert scheduler.timesteps.tolist() == list(range(999, 0, -1000 // steps))
    assert scheduler.sigmas.isfinite().all()
    assert scheduler.sigmas[-1] == 0  # abar = 1


def test_the_solver_is_of_second_order(monkeypatch):
    """For z_0 of deviation d, v is linear in z, and the flow keeps z_t / sqrt(abar d^2 + 1 - abar)."""
    ldm, d = tiny_ldm(), 1.5

    def velocity(z, t, condition, averaged):
        abar = ldm.abar[t].view(-1, 1, 1, 1)
        z0 = abar.sqrt() * d**2 * z / (abar * d**2 + 1 - abar)
        return torch.where(abar > 0, (abar.sqrt() * z - z0) / (1 - abar).sqrt(), 0)

    monkeypatch.setattr(ldm, "velocity", velocity)
    seeds, zeros = torch.tensor([3]), torch.zeros(1, 4, 8, 8)
    exact = d * endless_noise((4, 8, 8), seeds, torch.tensor([0]), BLOCK, 2)

    def error(**settings) -> float:
        return rms(ldm.sample(zeros, zeros, seeds, Settings.of(**settings)) - exact) / rms(exact)

    first, second = ([error(sampler=name, steps=n) for n in (10, 20, 40)] for name in ("ddim", "dpm"))
    assert [round(a / b) for a, b in pairwise(first)] == [2, 2]
    assert all(a / b > 3 for a, b in pairwise(second))
    assert all(a / b > 2.5 for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize(
    ("variant", "sampler"), [("text", "ddim"), ("code", "ddim"), ("text", "dpm")], ids=lambda name: name
)
@pytest.mark.parametrize("steps", [1, 10, 50])
def test_the_true_v_leads_to_z0(variant, sampler, steps, monkeypatch):
    ldm = tiny_ldm(steps=steps, variant=variant, sampler=sampler)
    ldm.latent_sums.copy_(torch.tensor([1, 100, 0, 400]))  # a deviation of 2
    z0 = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))

    def velocity(z, t, condition, averaged):
        abar = ldm.abar[t].view(-1, 1, 1, 1)
        return (abar.sqrt() * z - torch.cat([z0, z0])) / (1 - abar).sqrt()

    monkeypatch.setattr(ldm, "velocity", velocity)
    seeds = torch.tensor([3, 4])
    error = ldm.sample(torch.zeros_like(z0), torch.zeros_like(z0), seeds) * 0.5 - z0
    if sampler == "dpm" and steps == 1:  # the solver's end of the schedule leaves 2^-12 of the noise
        assert rms(error) == pytest.approx(2**-12, rel=0.15)
    elif variant == "text":
        assert error.abs().max() < 1e-4
    elif steps > 1:  # ends at abar_1, with its noise: leading steps never reach z0
        assert rms(error) == pytest.approx((1 - float(ldm.abar[0])) ** 0.5, rel=0.15)


def test_guidance():
    conditional, unconditional = torch.randn(2, 3, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(guided(conditional, unconditional, 1.0, 0.0), conditional)
    torch.testing.assert_close(guided(conditional, unconditional, 0.0, 0.0), unconditional)
    v = guided(conditional, unconditional, 3.5, 0.0)
    torch.testing.assert_close(v, 3.5 * conditional - 2.5 * unconditional)
    rescaled = guided(conditional, unconditional, 3.5, 1.0)
    torch.testing.assert_close(rescaled.std(dim=(1, 2, 3)), conditional.std(dim=(1, 2, 3)))
    torch.testing.assert_close(guided(conditional, unconditional, 3.5, 0.7), 0.7 * rescaled + 0.3 * v)
    assert guided(*torch.zeros(2, 3, 4, 8, 8), 3.5, 0.7).isfinite().all()


@pytest.mark.parametrize(
    "settings", [{"variant": "text"}, {"variant": "code"}, {"sampler": "dpm"}], ids=["text", "code", "dpm"]
)
def test_sampling_does_not_depend_on_the_batch(settings):
    ldm = tiny_ldm(steps=4, **settings)
    mean = torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    log_variance, seeds = mean.flip(0) - 3, torch.tensor([7, 8, 9])
    torch.manual_seed(1)
    together = ldm.sample(mean, log_variance, seeds)
    torch.manual_seed(2)
    alone = ldm.sample(mean[1:2], log_variance[1:2], seeds[1:2])
    torch.testing.assert_close(together[1:2], alone, rtol=1e-3, atol=1e-4)
    other = ldm.sample(mean[1:2], log_variance[1:2], seeds[:1])
    assert not torch.allclose(other, alone, atol=0.1)


def test_the_condition_and_the_average_are_what_the_settings_say():
    ldm = tiny_ldm(steps=2)
    mean, log_variance = torch.randn(2, 1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    seeds = torch.tensor([1])
    torch.testing.assert_close(ldm.condition(mean, log_variance, None), ldm.scale * mean)
    eps = noise((4, 8, 8), seeds, 1)
    drawn = mean + (0.5 * log_variance).exp() * eps
    torch.testing.assert_close(ldm.condition(mean, log_variance, eps), ldm.scale * drawn)
    averaged = ldm.sample(mean, log_variance, seeds)
    torch.nn.init.normal_(ldm.unet.conv_out.weight)
    torch.testing.assert_close(ldm.sample(mean, log_variance, seeds), averaged)
    raw = ldm.sample(mean, log_variance, seeds, Settings.of(steps=2, average=False))
    assert not torch.allclose(raw, averaged)


def test_endless_noise_is_the_same_in_whatever_it_is_cut():
    seeds = torch.tensor([5, 6, 2**62 + 5])
    whole = endless_noise((2, 3 * BLOCK, 4), seeds, torch.zeros(3, dtype=torch.long), BLOCK, 1)
    firsts = torch.tensor([0, 7, BLOCK + 3])
    cut = endless_noise((2, BLOCK, 4), seeds, firsts, BLOCK, 1)
    for row, first in enumerate(firsts.tolist()):
        assert torch.equal(cut[row], whole[row, :, first : first + BLOCK])
        alone = endless_noise((2, BLOCK, 4), seeds[row : row + 1], firsts[row : row + 1], BLOCK, 1)
        assert torch.equal(alone[0], cut[row])
    assert not torch.equal(endless_noise((2, BLOCK, 4), seeds, firsts, BLOCK, 2), cut)


def test_endless_noise_is_white():
    seeds = torch.arange(2)
    drawn = endless_noise((4, 50 * BLOCK, 8), seeds, torch.tensor([0, 5 * BLOCK]), BLOCK, 1)
    assert abs(float(drawn.mean())) < 0.01
    assert float(drawn.std()) == pytest.approx(1, abs=0.01)
    others = [drawn.roll(BLOCK, 2), drawn.roll(1, 2), drawn.roll(1, 1), drawn.flip(0)]
    assert all(abs(float((drawn * other).mean())) < 0.02 for other in others)


# ---------------------------------------------------------------- latents


def test_a_dropped_condition_has_no_influence():
    ldm = tiny_ldm().train()
    posteriors = 0.1 * torch.randn(16, 4, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    others = posteriors.clone()
    others[:, 2:] += 1
    seeds = torch.arange(16)

    def moved(drop: float) -> list[bool]:
        errors = [ldm.errors(p, seeds, 0, drop)[1] for p in (posteriors, others)]
        return [not torch.equal(a, b) for a, b in zip(*errors, strict=True)]

    assert moved(1.0) == [False] * 16
    assert moved(0.0) == [True] * 16
    assert 2 < sum(moved(0.5)) < 14  # item by item, not the batch


@pytest.mark.parametrize(("variant", "element"), [("text", 0.0), ("code", -11.4981)])
def test_the_null_condition(variant, element):
    ldm = tiny_ldm(variant=variant)
    ldm.latent_sums.copy_(torch.tensor([1, 100, 0, 400]))
    assert float(ldm.null) == pytest.approx(element / 2)


def test_latents_are_scaled_to_unit_variance():
    ldm = tiny_ldm(scale_batches=2).train()
    torch.nn.init.normal_(ldm.vae.generator.quant_conv.bias, mean=1.0, std=0.5)
    assert ldm.scale == 1
    first, second = pair_of(1, 2), pair_of(3, 4)
    for pair in (first, second):
        ldm.losses(pair)
    scale = ldm.scale
    mean, log_variance = torch.cat([ldm.posteriors(p) for p in (first, second)]).unbind(1)[:2]
    latents = mean + (0.5 * log_variance).exp() * noise(mean.shape[1:], torch.arange(4))
    assert abs(scale - 1) > 0.05
    assert float((scale * latents).std()) == pytest.approx(1, abs=0.05)
    ldm.losses(pair_of(5))
    assert ldm.scale == scale
    ldm.batches_seen.zero_()  # as a fine-tuning may do
    ldm.losses(pair_of(6))
    assert ldm.scale == scale
    fresh = tiny_ldm(seed=1)
    fresh.load_state_dict(ldm.state_dict())
    assert fresh.scale == scale


def test_held_out_measures_do_not_measure_the_scale():
    ldm = tiny_ldm().eval()
    with torch.no_grad():
        measures = ldm.held_out(pair_of(1, 2))
    assert ldm.scale == 1
    assert {name: value.shape for name, value in measures.items()} == {"model": (2,), "constant": (2,)}


def test_cached_latents_are_the_latents():
    plain, cached = tiny_ldm().train(), tiny_ldm(cache_latents=True).train()
    pair = pair_of(1, 2)
    expected = plain.cached_posteriors(pair)
    for _ in range(2):
        torch.testing.assert_close(cached.cached_posteriors(pair), expected, rtol=2e-3, atol=2e-3)
    silent = pair._replace(high=Signal.of(torch.zeros(2, 1, SAMPLES), RATE))
    assert torch.equal(cached.cached_posteriors(silent), cached.cached_posteriors(pair))  # encoded once
    again = tiny_ldm(cache_latents=True).train()
    filled = again.cached_posteriors(pair_of(2, 3)), again.cached_posteriors(pair)
    assert torch.equal(filled[1], cached.cached_posteriors(pair))  # whatever it was filled with
    assert not torch.equal(again.eval().cached_posteriors(silent), filled[1])


def test_noise_of_a_recurring_item_is_new_at_every_step():
    ldm, vae, pair = tiny_ldm().train(), tiny_vae(), pair_of(1)
    losses, decoded = [], []
    with torch.no_grad():
        for _ in range(2):
            losses.append(
                float(ldm.errors(ldm.posteriors(pair), pair.seeds, 8 * int(ldm.batches_seen), 0)[1].std())
            )
            decoded.append(vae.generate(pair).decoded)
            ldm.batches_seen += 1
            vae.batches_seen += 1
    assert losses[0] != losses[1]
    assert not torch.allclose(*decoded)


def test_a_low_rate_is_raised_as_in_use():
    ldm, pair = tiny_ldm(), pair_of(1, samples=SAMPLES)
    low = Signal.of(resample(pair.high.wave, RATE, 16000), 16000)
    sampled = ldm.posteriors(pair._replace(low=low))
    low_passed = ldm.posteriors(pair)
    assert sampled.shape == low_passed.shape
    assert rms(sampled - low_passed) < 0.5 * rms(sampled)


def test_the_frozen_autoencoder_is_not_in_the_checkpoint():
    ldm = tiny_ldm()
    state = ldm.state_dict()
    assert not [name for name in state if name.startswith("vae.")]
    assert "averaged.conv_out.weight" in state
    other = tiny_ldm(seed=1, vae=tiny_vae(seed=1))
    kept = other.vae.generator.encoder.conv_in.weight.clone()
    other.load_state_dict(state)  # strictly
    assert torch.equal(other.unet.conv_in.weight, ldm.unet.conv_in.weight)
    assert torch.equal(other.vae.generator.encoder.conv_in.weight, kept)
    del state["unet.conv_in.weight"]
    with pytest.raises(RuntimeError, match="conv_in"):
        other.load_state_dict(state)


def test_training_leaves_the_autoencoder_frozen():
    ldm = tiny_ldm().train()
    assert not ldm.vae.training
    assert not any(p.requires_grad for p in (*ldm.vae.parameters(), *ldm.averaged.parameters()))
    trained = [p for group in ldm.configure_optimizers()["optimizer"].param_groups for p in group["params"]]
    assert len(trained) == len(list(ldm.unet.parameters()))


# ---------------------------------------------------------------- front-end


def test_normalise_does_not_hear_padding():
    wave = 0.3 + random_wave(2, 1000)
    lengths = torch.tensor([1000, 600])
    out, mean, gain = normalise(Signal(wave, RATE, lengths))
    alone, own_mean, own_gain = normalise(Signal.of(wave[1:, :, :600], RATE))
    torch.testing.assert_close(out[1:, :, :600], alone)
    torch.testing.assert_close((mean[1:], gain[1:]), (own_mean, own_gain))
    assert not out[1, :, 600:].any()
    torch.testing.assert_close(out.abs().amax(dim=(1, 2)), torch.tensor([0.5, 0.5]))
    torch.testing.assert_close(out[:1] / gain[:1] + mean[:1], wave[:1])
    silent = normalise(Signal.of(torch.full((1, 1, 100), 0.25), RATE))
    assert [float(x.max()) for x in silent] == [0, 0.25, 1]


def test_the_running_mean_is_the_mean():
    log_mels = [torch.randn(2, 8, frames) for frames in (5, 11)]
    mean = RunningMean(8)
    for log_mel in log_mels:
        mean.update(log_mel)
    frames = torch.cat([log_mel.transpose(0, 1).flatten(1) for log_mel in log_mels], dim=1)
    constant = frames.mean(dim=1)[:, None]
    torch.testing.assert_close(mean.error(log_mels[0]), (log_mels[0] - constant).abs().mean(dim=(1, 2)))


@pytest.mark.parametrize("build", [tiny_vae, tiny_vocoder])
def test_held_out_measures(build):
    stage, pair = build().eval(), pair_of(1, 2)
    stage.mean_mel.update(stage.log_mel(normalise(pair.high)[0]))
    measures = stage.held_out(pair)
    assert {name: value.shape for name, value in measures.items()} == {"model": (2,), "constant": (2,)}
    assert (measures["constant"] < measures["model"]).all()  # untrained


# ---------------------------------------------------------------- settings


# How the released code and the paper's text differ, line by line; where both are silent, our choice.
OF_THE_VARIANTS = {
    "code": {
        "rolloff": 0.985,
        "prefilters": ("butterworth", "chebyshev", "elliptic", "bessel"),
        "prefilter_passes": 2,
        "prefilter_resamples": True,
        "upsample": "sinc",
        "sampler": "ddim",
        "spacing": "leading",
        "steps": 50,
        "eta": 1.0,
        "guidance": 3.5,
        "rescale": 0.0,
        "null_condition": -11.4981,
        "sample_condition": True,
        "average": False,
        "paste": "filtered",
        "seam": 0.0,
        "keep_level": False,
        "cutoff": "estimate",
    },
    "text": {
        "rolloff": 0.99,
        "prefilters": ("chebyshev",),
        "prefilter_passes": 1,
        "prefilter_resamples": False,
        "upsample": "cubic",
        "sampler": "ddim",
        "spacing": "trailing",
        "steps": 50,
        "eta": 0.0,
        "guidance": 3.5,
        "rescale": 0.7,
        "null_condition": 0.0,
        "sample_condition": False,
        "average": True,
        "paste": "input",
        "seam": 500.0,
        "keep_level": True,
        "cutoff": "estimate",
    },
}


def test_settings_follow_the_variant():
    assert {variant: asdict(settings) for variant, settings in SETTINGS.items()} == OF_THE_VARIANTS
    assert asdict(Settings.of()) == OF_THE_VARIANTS["text"]
    changed = asdict(Settings.of("code", seam=None, steps=10))
    assert changed == OF_THE_VARIANTS["code"] | {"steps": 10}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"guidence": 3.0}, "method.guidence: did you mean method.guidance"),
        ({"variant": "texts"}, "method.variant=texts.*text, code.*Did you mean text"),
        ({"spacing": "training"}, "method.spacing=training.*Did you mean trailing"),
        ({"cutoff": "estimated"}, "Did you mean estimate"),
        ({"sampler": "dimm"}, "Did you mean ddim"),
        ({"sampler": "dpm", "eta": 1.0}, "method.sampler=dpm.*method.eta=0"),
        ({"sampler": "dpm", "variant": "code"}, "method.sampler=dpm.*method.spacing=trailing"),
        ({"upsample": "none"}, "method.upsample"),
        ({"prefilters": ("butter",)}, "Did you mean butterworth"),
        ({"steps": 300}, "method.steps=300"),
        ({"steps": 1000}, "method.steps=1000"),
        ({"steps": 0}, "method.steps=0"),
    ],
)
def test_wrong_settings_are_errors_that_help(changes, message):
    with pytest.raises(UserError, match=message):
        Settings.of(**changes)


# ---------------------------------------------------------------- the method


def method_of(
    vae, vocoder, window: int = 64, overlap: int = 16, variant="text", steps=2, **settings
) -> AudioSR:
    parts = {"vae": vae, "ldm": tiny_ldm(vae=vae, variant=variant).eval(), "vocoder": vocoder}
    options = {"window": window, "overlap": overlap, "variant": variant, "steps": steps}
    return build_method("audiosr", RATE, parts, options | settings).eval()


def dark(rate: int) -> torch.Tensor:
    return 0.2 * torch.sin(2 * torch.pi * 200 * torch.arange(rate // 2) / rate)[None, None]


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(
    ("wave", "rate"),
    [
        (torch.zeros(1, 1, 20000), RATE),
        (torch.full((1, 1, 20001), 0.3), RATE),
        (dark(RATE), RATE),
        (dark(16000), 16000),
        (random_wave(1, 3 * 1600 + 1), 16000),
        (random_wave(1, 300), 44100),
    ],
    ids=["silence", "constant", "200 Hz", "200 Hz at 16 kHz", "0.3 s", "7 ms"],
)
def test_any_input_gives_finite_output_of_its_length(vae, vocoder, variant, wave, rate):
    out = method_of(vae, vocoder, variant=variant)(Signal.of(wave, rate))
    assert out.rate == RATE
    assert out.wave.shape[-1] == -(-wave.shape[-1] * RATE // rate)
    assert out.wave.isfinite().all()
    if not wave.std():  # silence and a constant have no band to add to, and so have a peak of 0
        expected = wave if variant == "text" else torch.zeros_like(wave)
        torch.testing.assert_close(out.wave, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("overlap", [16, 20])
def test_windows_share_the_noise_of_what_they_share(vae, vocoder, variant, overlap, monkeypatch):
    """Of the start, of every step and of the sampled condition: nothing else is left in these latents."""
    method, seen = method_of(vae, vocoder, variant=variant, overlap=overlap, steps=4), []
    monkeypatch.setattr(vae, "posterior", lambda image: torch.zeros(2, len(image), 4, 8, 8))
    monkeypatch.setattr(
        method.ldm, "velocity", lambda z, t, c, averaged: seen.append((z, c)) or torch.zeros_like(z)
    )
    method(Signal.of(random_wave(2, 86_400), RATE), seeds=torch.tensor([3, 4]))
    shared = -(-overlap // 8)
    assert len(seen) == 4
    for both, conditions in seen:
        z = both.chunk(2)[0].unflatten(0, (-1, 2))  # [P, B, C, N, M]
        assert len(z) == 4
        assert torch.equal(z[:-1, :, :, -shared:], z[1:, :, :, :shared])
        assert not torch.equal(z[:-1, :, :, :-shared], z[1:, :, :, :-shared])
        assert not torch.equal(z[:, 0], z[:, 1])
        condition = conditions.chunk(2)[0].unflatten(0, (-1, 2))
        assert torch.equal(condition[:-1, :, :, -shared:], condition[1:, :, :, :shared])
        assert condition.any() == (variant == "code")


def test_overlaps_leave_a_latent_frame(vae, vocoder):
    with pytest.raises(UserError, match=r"method\.overlap=57: 0 to 56 is needed"):
        method_of(vae, vocoder, overlap=57)
    assert method_of(vae, vocoder, overlap=56)(Signal.of(random_wave(1, SAMPLES + 5000), RATE)).wave.any()


def test_items_do_not_depend_on_their_batch(vae, vocoder):
    method = method_of(vae, vocoder)
    lengths = torch.tensor([14001, 9000])
    wave = 0.1 + random_wave(2, 14001)
    seeds = torch.tensor([11, 12])
    together = method(Signal(wave, 16000, lengths), seeds=seeds)
    for row, length in enumerate(lengths.tolist()):
        alone = method(Signal.of(wave[row : row + 1, :, :length], 16000), seeds=seeds[row : row + 1]).wave[0]
        torch.testing.assert_close(together.wave[row, :, : alone.shape[-1]], alone, rtol=0, atol=1e-5)
        assert not together.wave[row, :, alone.shape[-1] :].any()


def test_low_band_and_level_are_kept(vae, vocoder):
    cutoff, seam = 6000.0, 500.0
    wave = 0.02 + 0.05 * boxcar(random_wave(1, SAMPLES + 777), torch.tensor([cutoff]), RATE)
    low = Signal.of(wave, RATE)
    out = method_of(vae, vocoder)(low, cutoff=torch.tensor([cutoff])).wave
    below = boxcar(out - wave, torch.tensor([cutoff - seam - 100]), RATE)[..., 2048:-2048]
    assert rms(below) < 1e-3 * rms(wave - wave.mean())
    above = (out - boxcar(out, torch.tensor([cutoff + 100]), RATE))[..., 2048:-2048]
    assert rms(above) > 1e-2 * rms(wave - wave.mean())  # and there is something above it
    released = method_of(vae, vocoder, variant="code")(low, cutoff=torch.tensor([cutoff])).wave
    assert float(released.abs().max()) == pytest.approx(0.5)
    assert abs(float(released.mean())) < 1e-6


def test_the_level_of_the_input_is_the_level_of_the_output(vae, vocoder):
    method, wave = method_of(vae, vocoder), random_wave(1, SAMPLES)
    cutoff = torch.tensor([8000.0])
    loud, quiet = (method(Signal.of(level * wave, RATE), cutoff=cutoff).wave for level in (1.0, 0.01))
    assert rms(loud - 100 * quiet) < 1e-2 * rms(loud)


@pytest.mark.parametrize("settings", [{}, {"cutoff": "given"}, {"variant": "code"}])
def test_whose_band_edge_is_used(vae, vocoder, settings, monkeypatch):
    method, used = method_of(vae, vocoder, **settings), []
    monkeypatch.setattr(method, "resolve", lambda low, cutoff, *_: used.append(float(cutoff)) or low.wave)
    low = Signal.of(random_wave(1, SAMPLES // 3), 16000)
    method(low, cutoff=torch.tensor([3210.0]))
    method(low)
    given = settings.get("cutoff") == "given"
    assert used[0] == 3210
    if given:
        assert used[1] == 8000
    else:  # the share of the roll-off, and what the upsampling leaves of the band
        assert 7300 < used[1] <= 8000
    assert method.blind != given


@pytest.mark.parametrize(("variant", "share"), [("text", 0.99), ("code", 0.985)])
def test_the_band_edge_of_white_noise(vae, vocoder, variant, share):
    wave = boxcar(random_wave(1, RATE), torch.tensor([8000.0]), RATE)
    method = method_of(vae, vocoder, variant=variant)
    assert float(method.band_edge(Recording.of(wave, RATE), RATE / 2)) == pytest.approx(share * 8000, abs=60)
    assert (
        float(method.band_edge(Recording.of(wave, RATE), 4000)) == 4000
    )  # half the rate it came at is the most it can be
    both = method.band_edge(Recording.of(torch.cat([wave, torch.zeros_like(wave)]), RATE), RATE / 2)
    assert both[1] == RATE / 2


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_known_signal_replaces_itself(vae, vocoder, variant):
    method, wave = method_of(vae, vocoder, variant=variant), random_wave(2, 30001)
    cutoff = torch.tensor([3000.0, 12000.0])
    torch.testing.assert_close(method.replace_low_band(wave, wave, cutoff), wave, rtol=0, atol=1e-6)


def test_levels_are_matched_at_the_seam(vae, vocoder):
    """r = 1/0.9 scales the generated band up in the text, r = 0.9^-1 the known one down in the code."""
    wave, cutoff = random_wave(1, 30001), torch.tensor([6000.0])
    text, code = (method_of(vae, vocoder, variant=v) for v in VARIANTS)
    torch.testing.assert_close(text.replace_low_band(0.9 * wave, wave, cutoff), wave, rtol=0, atol=1e-6)
    torch.testing.assert_close(code.replace_low_band(0.9 * wave, wave, cutoff), 0.9 * wave, rtol=0, atol=1e-6)
    far = text.replace_low_band(0.1 * wave, wave, cutoff)  # within [0.8, 1.2]
    above = far - boxcar(far, torch.tensor([6500.0]), RATE)
    expected = 0.12 * (wave - boxcar(wave, torch.tensor([6500.0]), RATE))
    assert rms((above - expected)[..., 2048:-2048]) < 1e-2 * rms(expected)


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_prefilter_is_a_low_pass_at_the_band_edge(vae, vocoder, variant):
    method = method_of(vae, vocoder, variant=variant)
    wave = random_wave(6, 30000)
    cutoff = torch.tensor([4000.0, 4000, 4000, 4000, 4000, 24000])
    out = method.prefilter(wave, cutoff, torch.arange(6))
    above = out - boxcar(out, torch.full((6,), 12000.0), RATE)
    assert rms(above[:5, :, 1000:-1000]) < 0.01 * rms(wave)
    assert torch.equal(out[5], wave[5])
    alone = method.prefilter(wave[3:4], cutoff[3:4], torch.tensor([3]))
    torch.testing.assert_close(out[3:4], alone, rtol=0, atol=1e-6)


@pytest.mark.parametrize("variant", VARIANTS)
def test_in_use_it_has_what_use_needs(variant):
    """The average of the weights (`text`) or the weights; no critics; and the same comes out."""
    method = method_of(tiny_vae().eval(), tiny_vocoder().eval(), variant=variant)
    torch.nn.init.normal_(method.ldm.unet.conv_out.weight)  # apart from the average's
    low = Signal.of(random_wave(1, 5000), 8000)
    before, kept = method(low).wave, {"code": method.ldm.unet, "text": method.ldm.averaged}[variant]
    assert method.in_use() is method
    assert method.ldm.unet is method.ldm.averaged is kept
    assert method.ldm.vae is method.vae
    assert method.vae.critic is None and method.vocoder.critic is None
    torch.testing.assert_close(method(low).wave, before, rtol=0, atol=1e-6)


def test_under_autocast_a_window_is_in_single_precision(vae, vocoder):
    """What follows is a Fourier transform, which a GPU does not have in half."""
    method, low = method_of(vae, vocoder), Signal.of(random_wave(1, 64 * HOP), RATE)
    seeds = torch.zeros(1, dtype=torch.long)
    with torch.autocast("cpu", torch.bfloat16):
        assert method.resolve(low, torch.tensor([4000.0]), seeds, None).dtype == torch.float32
        made = GTMel(RATE, vocoder).resolve(low, None, seeds, low.wave)
    assert made.dtype == torch.float32


def test_methods_do_not_change_their_denoiser(vae, vocoder):
    ldm = tiny_ldm(vae=vae, variant="code")
    AudioSR(RATE, vae, ldm, vocoder, window=64, overlap=0, variant="text", steps=4)
    assert ldm.settings == Settings.of("code")


# ---------------------------------------------------------------- GT-Mel


class Loud(torch.nn.Module):
    """A vocoder's generator that gives a constant."""

    def __init__(self, level: float):
        super().__init__()
        self.level = level

    def forward(self, log_mel: torch.Tensor) -> torch.Tensor:
        return torch.full((len(log_mel), 1, HOP * log_mel.shape[-1]), self.level)


def test_gt_mel_takes_its_level_back():
    vocoder = tiny_vocoder()
    wave = 0.2 + random_wave(1, 5001)
    peak, mean = float((wave - wave.mean()).abs().max()), float(wave.mean())
    low = Signal.of(resample(wave, RATE, 8000), 8000)
    for level in (0.0, 0.5, -0.25):
        vocoder.generator = Loud(level)
        out = GTMel(RATE, vocoder)(low, reference=Signal.of(wave, RATE)).wave
        assert out.shape == wave.shape
        torch.testing.assert_close(out, torch.full_like(out, 2 * level * peak + mean))


@pytest.mark.parametrize("samples", [100, 1920, 4000, 1024 * HOP + 1])
def test_gt_mel_of_any_length(vocoder, samples):
    wave = random_wave(2, samples)
    lengths = torch.tensor([samples, samples - 50])
    high = Signal(wave, RATE, lengths)
    low = Signal(wave, RATE, lengths)
    out = GTMel(RATE, vocoder)(low, reference=high)
    assert out.wave.shape == wave.shape
    assert out.wave.isfinite().all()
    short = Signal.of(wave[1:, :, : samples - 50], RATE)
    alone = GTMel(RATE, vocoder)(short, reference=short)
    torch.testing.assert_close(out.wave[1:, :, : samples - 50], alone.wave, rtol=0, atol=1e-6)


def test_gt_mel_needs_the_reference(vocoder):
    with pytest.raises(UserError, match="GTMel"):
        GTMel(RATE, vocoder)(Signal.of(torch.zeros(1, 1, 100), 8000))


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("rate", [16000, RATE])
def test_a_long_recording_is_enhanced_by_stretches(vae, vocoder, variant, rate):
    """One level, band edge and pre-filter for all windows, whether it is in memory or not."""
    method, low = method_of(vae, vocoder, variant=variant, keep_level=True), 0.1 + random_wave(2, 2 * rate)
    whole = method(Signal.of(low, rate), cutoff=None, seeds=torch.tensor([3, 3])).wave
    pieces = list(method.enhance(Recording.of(low, rate), seed=3))
    assert len(pieces) > 2
    torch.testing.assert_close(torch.cat(pieces, dim=-1), whole, rtol=0, atol=1e-5)


def test_the_level_by_stretches_is_the_level_of_the_whole(monkeypatch):
    monkeypatch.setattr(frontend, "STRETCH", 700)
    wave = 0.3 + random_wave(3, 5000) * torch.tensor([1.0, 0.01, 0.0])[:, None, None]
    recording = Recording.of(wave, RATE)
    expected, mean, gain = normalise(Signal.of(wave, RATE))
    level = frontend.Level.of(recording)
    torch.testing.assert_close(level.mean, mean)
    torch.testing.assert_close(level.gain, gain, rtol=1e-4, atol=0)
    applied = level.applied(recording).read(-10, 5020)
    torch.testing.assert_close(applied[..., 10:-10], expected, rtol=0, atol=1e-4)
    assert not applied[..., :10].any()
    assert not applied[..., -10:].any()
