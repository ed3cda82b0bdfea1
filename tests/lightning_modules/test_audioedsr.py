"""King et al.'s trainings: terms, gradients over devices, precision, resuming, and the linear equaliser."""

from pathlib import Path

import lightning
import pytest
import torch
from audiosr_tiny import OPTIMIZER, one_thread, random_wave  # noqa: F401
from scipy.signal import butter, sosfilt
from torch.utils.data import DataLoader

from callbacks.checkpoints import Checkpoints, StepSeeds
from lightning_modules import find_stage
from lightning_modules.audioedsr import (
    EPSILON,
    AudioEDSR,
    AudioUNet,
    AudioUNetGAN,
    LinearEqualiser,
    gradient_penalty,
)
from lightning_modules.stage import uniform
from lightning_modules.super_resolver import raise_rate
from signals.errors import UserError
from signals.types import Pair, Signal

RATE = 12000
ROOT = Path(__file__).parents[2]
UNET = {"channels": [4, 8], "kernels": [9, 5]}
GAN = UNET | {"critic": {"channels": 2, "depth": 3}}
AS_PRINTED = {"adversarial": 1.0, "critic": 1.0, "penalty": 10.0}
AS_CODED = {"l1": 1.0, "adversarial": 0.001, "critic": 1.0, "penalty": 10.0}

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*does not have many workers",
    "ignore:.*`val_dataloader`",
    "ignore:You are trying to",
    "ignore:Found .* in eval mode",
)


def pair_of(*seeds: int, scale: int = 2, samples: int = 512) -> Pair:
    """Noise, and every scale-th sample of it."""
    high = torch.cat([random_wave(1, samples, seed) for seed in seeds])
    low = Signal.of(high[..., ::scale], RATE // scale)
    cutoff = torch.full((len(seeds),), RATE / 2 / scale)
    return Pair(low, Signal.of(high, RATE), cutoff, [str(seed) for seed in seeds], torch.tensor(seeds))


def edsr(seed: int = 0, weights=None, scale: int = 2, **options) -> AudioEDSR:
    torch.manual_seed(seed)
    options = {"channels": 4, "blocks": 2} | options
    return AudioEDSR(weights or {"l1": 1.0}, OPTIMIZER, RATE, scale=scale, **options)


def unet(seed: int = 0, weights=None, **options) -> AudioUNet:
    torch.manual_seed(seed)
    return AudioUNet(weights or {"l1": 1.0}, OPTIMIZER, RATE, **UNET | options)


def gan(seed: int = 0, weights=AS_CODED, **options) -> AudioUNetGAN:
    torch.manual_seed(seed)
    return AudioUNetGAN(weights, OPTIMIZER, RATE, **GAN | options)


def shuffled_gan(seed: int = 0) -> AudioUNetGAN:
    """Everything that is drawn: dropout, both phase shuffles, epsilon."""
    return gan(seed, phase_shuffle=1, n_critic=2, critic=GAN["critic"] | {"phase_shuffle": 2})


def equaliser(seed: int = 0, scale: int = 2, **options) -> LinearEqualiser:
    return LinearEqualiser({"l2": 1.0}, OPTIMIZER, RATE, **{"scale": scale, "taps": 9} | options)


def trainer_for(epochs: int, *callbacks: lightning.Callback, **options) -> lightning.Trainer:
    return lightning.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=list(callbacks),
        **options,
    )


def loader(batches: int, scale: int = 2) -> DataLoader:
    return DataLoader([pair_of(2 * k, 2 * k + 1, scale=scale) for k in range(batches)], batch_size=None)


# ---------------------------------------------------------------- what goes in and comes out


@pytest.mark.parametrize(
    ("build", "scale"), [(edsr, 2), (edsr, 4), (equaliser, 2), (equaliser, 3), (unet, None), (gan, None)]
)
def test_any_length_and_rate_in_the_same_time_out(build, scale):
    method = (build(scale=scale) if scale else build()).eval()
    for rate in (RATE // (scale or 3), 4800, RATE, 44100):
        low = Signal(random_wave(2, 501), rate, torch.tensor([501, 333]))
        out = method(low)
        assert out.rate == RATE
        assert out.lengths.tolist() == [-(-length * RATE // rate) for length in (501, 333)]
        assert out.wave.shape[-1] == out.lengths.max()


@pytest.mark.parametrize("build", [edsr, unet, gan, equaliser])
@torch.no_grad()
def test_its_network_takes_its_example(build):
    stage = build().eval()
    out = stage.network(*stage.example(3, 400))
    assert out.shape == (3, 1, 400)
    counted = {id(p) for p in stage.network.parameters()}
    critics = {id(p) for p in stage.critic.parameters()} if build is gan else set()
    assert counted | critics == {id(p) for p in stage.parameters()}
    assert not counted & critics


def test_stages_are_found_by_name():
    for stage in (AudioEDSR, AudioUNet, AudioUNetGAN, LinearEqualiser):
        assert find_stage(f"audioedsr.{stage.__name__}") is stage


def test_what_does_not_fit_is_said():
    with pytest.raises(UserError, match=r"powers of two .* not by 3"):
        edsr(scale=3)
    with pytest.raises(UserError, match="no multiple of the scale 8"):
        AudioEDSR({"l1": 1.0}, OPTIMIZER, 44100, scale=8)
    with pytest.raises(UserError, match="learns from 3000 Hz, not from 4000 Hz: set its scale to 3"):
        edsr(scale=4).losses(pair_of(1, scale=3))
    with pytest.raises(UserError, match="needs a weight above 0 for l1 or l2"):
        unet(weights={"l1": 0.0}).losses(pair_of(1))
    with pytest.raises(UserError, match="an odd number of them, not 8"):
        equaliser(taps=8)
    with pytest.raises(UserError, match="windows of 256 low-rate samples for 301 taps"):
        trainer_for(1).fit(equaliser(taps=301), loader(1))


# ---------------------------------------------------------------- terms


@pytest.mark.parametrize("build", [edsr, unet])
def test_the_weights_choose_the_loss(build):
    pair = pair_of(1, 2)
    both = build(weights={"l1": 1.0, "l2": 2.0}).eval()
    with torch.no_grad():
        error = both(pair.low).wave - pair.high.wave
        terms = both.losses(pair)
    torch.testing.assert_close(terms, {"l1": error.abs().mean(), "l2": error.square().mean()})
    assert set(build(weights={"l1": 0.0, "l2": 1.0}).losses(pair)) == {"l2"}
    assert set(build(weights={"l1": 1.0}).losses(pair)) == {"l1"}


def test_the_adversarial_terms_are_algorithm_3s():
    """With the square and the argument that it lacks."""
    stage, pair = gan(dropout=0.0), pair_of(1, 2)
    made, real = stage.generate(pair), pair.high.wave
    terms = stage.losses(pair)
    of_real, of_fake = stage.critic(real), stage.critic(made)
    epsilon = uniform(pair.seeds, stage.salt(EPSILON))
    torch.testing.assert_close(terms["critic"], of_fake.mean() - of_real.mean())
    torch.testing.assert_close(terms["penalty"], gradient_penalty(stage.critic, real, made, epsilon))
    torch.testing.assert_close(terms["adversarial"], -of_fake.mean())
    torch.testing.assert_close(terms["l1"], (made - real).abs().mean())
    assert set(gan(weights=AS_PRINTED).losses(pair)) == set(AS_PRINTED)


def test_the_critics_losses_do_not_reach_the_generator():
    stage, pair = gan(), pair_of(1, 2)
    stage.weigh(stage.critic_losses(pair, stage.generate(pair))).backward()
    assert all(p.grad is None for p in stage.generator.parameters())
    assert all(p.grad.any() for p in stage.critic.parameters() if p.ndim > 1)  # biases may cancel


def test_both_pulls_at_the_estimate_are_logged():
    stage = gan(weights=AS_CODED | {"adversarial": 0.5}, dropout=0.0)
    trainer = trainer_for(1)
    before = {name: p.clone() for name, p in stage.critic.state_dict().items()}
    trainer.fit(stage, DataLoader([pair_of(1, 2)], batch_size=None))
    logged = trainer.callback_metrics
    assert logged["train/gradient_l1"] == pytest.approx(512**-0.5, rel=1e-4)
    fresh, pair = gan(dropout=0.0), pair_of(1, 2)
    fresh.critic.load_state_dict(stage.critic.state_dict())  # the generator is judged by the stepped one
    made = fresh.generate(pair).detach().requires_grad_()
    (gradient,) = torch.autograd.grad(fresh.critic(made).sum(), made)
    expected = 0.5 * gradient.flatten(1).norm(dim=1).mean().item()
    assert logged["train/gradient_adversarial"] == pytest.approx(expected, rel=1e-4)
    assert any(not torch.equal(p, before[name]) for name, p in stage.critic.state_dict().items())


def test_what_is_drawn_differs_by_batch_in_training_and_not_in_use():
    stage, pair = unet(dropout=0.0, phase_shuffle=2), pair_of(1, 2)
    first, again = stage.estimate(pair), stage.estimate(pair)
    used = stage.eval()(pair.low, seeds=pair.seeds).wave
    stage.batches_seen += 1
    later = stage.train().estimate(pair)
    assert torch.equal(first, again)
    assert not torch.equal(first, later)
    assert torch.equal(used, stage.eval()(pair.low, seeds=pair.seeds).wave)
    alone = stage(Signal.of(pair.low.wave[1:], pair.low.rate), seeds=pair.seeds[1:]).wave
    torch.testing.assert_close(alone, used[1:])


def test_held_out_is_judged_by_squared_error():
    pair = pair_of(1, 2)
    for stage in (edsr(), unet(), gan(), equaliser()):
        with torch.no_grad():
            measures = stage.eval().held_out(pair)
            error = stage(pair.low).wave - pair.high.wave
        torch.testing.assert_close(measures["model"], error.square().mean((1, 2)))
        torch.testing.assert_close(measures["constant"], pair.high.wave.square().mean((1, 2)))


# ---------------------------------------------------------------- training


@pytest.mark.parametrize("build", [edsr, unet, shuffled_gan, equaliser])
def test_a_resumed_run_is_the_same_to_the_bit(build, tmp_path):
    def trained(epochs: int, name: str, resume: str | None = None, seed: int = 0) -> dict:
        stage = build(seed)
        trainer = trainer_for(epochs, StepSeeds(0), Checkpoints(tmp_path / name))
        trainer.fit(stage, loader(3), ckpt_path=resume, weights_only=True if resume else None)
        return stage.state_dict()

    straight, first = trained(2, "straight.ckpt"), trained(1, "first.ckpt")
    resumed = trained(2, "second.ckpt", str(tmp_path / "first.ckpt"), seed=5)
    assert straight.keys() == resumed.keys()
    assert [name for name in straight if not torch.equal(straight[name], resumed[name])] == []
    assert [name for name in straight if not torch.equal(straight[name], first[name])]
    assert straight["batches_seen"] == 6


@pytest.mark.parametrize("build", [edsr, unet, lambda: gan(n_critic=1)])
def test_it_learns(build):
    stage = build()
    stage.optimizer |= {"decay": 1.0}
    pair = pair_of(1, 2)
    with torch.no_grad():
        before = stage.eval().held_out(pair)["model"].mean()
    batches = DataLoader([pair] * 60, batch_size=None)
    trainer_for(1, StepSeeds(0)).fit(stage.train(), batches)
    with torch.no_grad():
        after = stage.eval().held_out(pair)["model"].mean()
    assert after < 0.9 * before


@pytest.mark.parametrize("precision", ["16-mixed", "16-true", "16"])
def test_half_precision_is_refused(precision):
    with pytest.raises(UserError, match=f"AudioUNetGAN cannot be trained in {precision}"):
        AudioUNetGAN.check_precision(precision)
    AudioEDSR.check_precision(precision)
    AudioUNetGAN.check_precision("bf16-mixed")


@pytest.mark.parametrize("build", [edsr, unet, shuffled_gan])
def test_bf16_mixed_works(build):
    stage = build()
    before = {name: tensor.clone() for name, tensor in stage.state_dict().items()}
    trainer = trainer_for(1, precision="bf16-mixed")
    trainer.fit(stage, loader(1))
    weights = {name: p for name, p in stage.named_parameters() if p.ndim > 1}
    assert [name for name, weight in weights.items() if torch.equal(weight, before[name])] == []
    assert all(p.isfinite().all() and p.dtype == torch.float32 for p in stage.parameters())


# ---------------------------------------------------------------- the linear equaliser


def fitted(pairs: list[Pair], **options) -> LinearEqualiser:
    stage = equaliser(**options)
    trainer_for(1).fit(stage, DataLoader(pairs, batch_size=None))
    return stage.eval()


def test_the_equaliser_finds_a_known_filter():
    torch.manual_seed(0)
    taps = torch.randn(3, 1, 9)
    pairs = []
    for seed in range(3):
        low = random_wave(2, 300, seed)
        phases = torch.nn.functional.conv1d(low, taps, padding=4)
        high = phases.mT.reshape(2, 1, 900)
        seeds = torch.tensor([0, 1])
        pairs.append(Pair(Signal.of(low, 4000), Signal.of(high, RATE), seeds + 2000.0, ["a", "b"], seeds))
    stage = fitted(pairs, scale=3, ridge=1e-12)
    torch.testing.assert_close(stage.net[0].weight, taps, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(stage(pairs[0].low).wave, pairs[0].high.wave, rtol=1e-4, atol=1e-5)
    assert sum(p.numel() for p in stage.network.parameters()) == 27


def test_a_ridge_shrinks_and_knows_no_level():
    pairs = [pair_of(1, 2)]
    loud = [pairs[0]._replace(low=s.low._replace(wave=100 * s.low.wave)) for s in pairs]
    weights = [fitted(p, ridge=r).net[0].weight for p, r in ((pairs, 1e-9), (pairs, 1.0), (loud, 1.0))]
    assert weights[1].norm() < 0.8 * weights[0].norm()
    torch.testing.assert_close(100 * weights[2], weights[1])


def test_silence_gives_silence():
    silent = pair_of(1)
    silent = silent._replace(low=silent.low._replace(wave=0 * silent.low.wave))
    assert not fitted([silent]).net[0].weight.any()


@pytest.mark.parametrize("scale", [2, 4])
def test_the_equaliser_undoes_a_causal_filters_delay(scale):
    """King et al.'s input: Butterworth of order 8, forward only, every scale-th sample."""

    def pair(seed: int) -> Pair:
        band = butter(8, 0.9 * RATE / 2 / scale, fs=RATE, output="sos")  # nothing is lost, but its timing
        high = sosfilt(band, random_wave(2, 6000, seed).double().numpy())
        low = sosfilt(butter(8, RATE / 2 / scale, fs=RATE, output="sos"), high)[..., ::scale]
        low, high = (torch.from_numpy(wave.copy()).float() for wave in (low, high))
        seeds = torch.tensor([0, 1])
        return Pair(Signal.of(low, RATE // scale), Signal.of(high, RATE), seeds + 1.0, ["a", "b"], seeds)

    stage, heard = fitted([pair(k) for k in range(4)], scale=scale, taps=97), pair(9)

    def snr(estimate: torch.Tensor) -> float:
        error = (estimate - heard.high.wave)[..., 500:-500]
        return 10 * torch.log10(heard.high.wave[..., 500:-500].square().mean() / error.square().mean()).item()

    delayed = raise_rate(heard.low, heard.high.rate, "spline").wave
    print(f"spline {snr(delayed):.1f} dB, equaliser {snr(stage(heard.low).wave):.1f} dB")
    assert snr(delayed) < 5
    assert snr(stage(heard.low).wave) > 15
