"""MfNet-like: scales that keep their place in time, terms, the frozen predictor, trainings."""

import numpy as np
import pytest
import torch
from audiosr_tiny import OPTIMIZER, one_thread, random_wave  # noqa: F401
from test_audioedsr import RATE, loader, pair_of, trainer_for
from torch import nn
from torch.utils.data import DataLoader
from torch.utils.flop_counter import FlopCounterMode

from callbacks.checkpoints import Checkpoints, StepSeeds
from lightning_modules import find_stage, super_resolver
from lightning_modules.audioedsr import UNet, gradient_penalty
from lightning_modules.mfnet import FusionBlock, MelPredictor, MfNet, MfNetLike, MfNetLikeGAN, Raise
from lightning_modules.stage import uniform
from lightning_modules.super_resolver import raise_rate
from signals.errors import UserError
from signals.types import Recording, Signal

NET = {"scales": [1, 2, 4], "channels": [4, 6, 8], "blocks": 2, "kernel": 3}
MEL = {"rate": RATE, "channels": [4, 8], "stride": 4, "n_fft": 128, "n_mels": 10}
CRITIC = {"channels": 2, "depth": 3}
TERMS = {"l1": 1.0, "perceptual": 0.1, "adversarial": 0.01, "critic": 1.0, "penalty": 10.0}

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*does not have many workers",
    "ignore:.*`val_dataloader`",
    "ignore:You are trying to",
    "ignore:Found .* in eval mode",
)


def predictor(seed: int = 0) -> MelPredictor:
    torch.manual_seed(seed)
    return MelPredictor({"l1": 1.0}, OPTIMIZER, **MEL)


def weights_of(*names: str) -> dict:
    return {name: TERMS[name] for name in names}


def without(seed: int = 0, **options) -> MfNetLike:
    """MfNet of Table 2."""
    torch.manual_seed(seed)
    return MfNetLike(weights_of("l1"), OPTIMIZER, RATE, **NET | options)


def plus_p(seed: int = 0, features: MelPredictor | None = None) -> MfNetLike:
    features = features or predictor()
    torch.manual_seed(seed)
    return MfNetLike(weights_of("l1", "perceptual"), OPTIMIZER, RATE, features=features, **NET)


def plus_a(seed: int = 0, n_critic: int = 2) -> MfNetLikeGAN:
    weights = weights_of("l1", "adversarial", "critic", "penalty")
    torch.manual_seed(seed)
    return MfNetLikeGAN(weights, OPTIMIZER, RATE, critic=CRITIC, n_critic=n_critic, **NET)


def plus_c(seed: int = 0, n_critic: int = 2) -> MfNetLikeGAN:
    features = predictor()
    torch.manual_seed(seed)
    return MfNetLikeGAN(TERMS, OPTIMIZER, RATE, CRITIC, n_critic=n_critic, features=features, **NET)


ALL = [without, plus_p, plus_a, plus_c]


def awake(stage: MfNetLike) -> MfNetLike:
    """As if trained: its last convolution is not zero."""
    nn.init.normal_(stage.net.tail.weight, std=0.1)
    return stage


# ---------------------------------------------------------------- the network


def test_it_is_a_tenth_of_the_audio_unet():
    with torch.device("meta"):
        ours = sum(p.numel() for p in MfNet().parameters())
        baseline = sum(p.numel() for p in UNet().parameters())
    assert ours == 5_308_241
    assert ours / baseline == pytest.approx(0.1, abs=0.01)


def test_raising_is_linear_interpolation_that_moves_no_sample():
    x = random_wave(1, 50)
    for factor in (2, 4, 8):
        expected = np.interp(np.arange(50 * factor) / factor, np.arange(50), x[0, 0])  # holds the last
        torch.testing.assert_close(Raise(factor)(x)[0, 0], torch.from_numpy(expected).float())


def test_every_scale_hears_every_other_in_one_block():
    torch.manual_seed(0)
    scales = [random_wave(1, 64 // scale).expand(1, 2, -1).clone().requires_grad_() for scale in (1, 2, 4, 8)]
    block = FusionBlock((1, 2, 4, 8), (2, 2, 2, 2), 3, 0.1, targets=4)
    for target, out in enumerate(block(scales)):
        assert out.shape == scales[target].shape
        gradients = torch.autograd.grad(out.square().sum(), scales, retain_graph=True)
        assert all(gradient.any() for gradient in gradients)


def test_untrained_it_is_the_identity():
    for samples in (1, 2, 7, 8, 9, 501):
        wave = random_wave(2, samples)
        assert torch.equal(MfNet(**NET)(wave), wave)
    low = Signal.of(random_wave(2, 501), RATE // 2)
    assert torch.equal(without()(low).wave, raise_rate(low, RATE, "spline").wave)


@torch.no_grad()
def test_what_it_adds_lies_around_what_it_was_given():
    """With layers that are symmetric in time, the answer to an impulse is; half a sample shows at once."""
    net = awake(without(scales=[1, 2, 4, 8], channels=[3, 3, 3, 3])).net
    for layer in net.modules():
        if isinstance(layer, nn.Conv1d):
            layer.weight.copy_((layer.weight + layer.weight.flip(-1)) / 2)
            layer.bias.zero_()
    at = 512
    for sign in (1.0, -1.0):
        wave = torch.zeros(1, 1, 1032)
        wave[..., at] = sign
        added = (net(wave) - wave)[0, 0, : 2 * at + 1]
        assert added.abs().max() > 1e-4
        torch.testing.assert_close(added, added.flip(0), rtol=1e-4, atol=1e-6)
        assert not added[:100].any()  # reaches so far and no further


@torch.no_grad()
def test_moved_by_its_grid_it_answers_the_same():
    net = awake(without()).net
    wave = random_wave(1, 1000)
    torch.testing.assert_close(net(wave)[..., 304:700], net(wave[..., 4:])[..., 300:696])


@pytest.mark.parametrize("build", ALL)
@torch.no_grad()
def test_any_length_and_rate_in_the_same_time_out(build):
    method = awake(build()).eval()
    for rate in (RATE // 2, RATE // 3, 4800, RATE, 44100):
        out = method(Signal(random_wave(2, 501), rate, torch.tensor([501, 333])))
        assert out.rate == RATE
        assert out.lengths.tolist() == [-(-length * RATE // rate) for length in (501, 333)]
        assert out.wave.shape[-1] == out.lengths.max()


@pytest.mark.parametrize("training", [True, False])
@torch.no_grad()
def test_an_item_is_the_same_in_any_batch(training):
    stage = awake(plus_c()).train(training)
    waves = torch.cat([random_wave(1, 300, seed) * 10**seed for seed in range(3)])
    for network in (stage.net, stage.predictor, stage.critic):
        together = network(waves)
        for item in range(3):
            torch.testing.assert_close(network(waves[item : item + 1]), together[item : item + 1])
    together = stage(Signal(waves, RATE // 2, torch.tensor([300, 211, 100]))).wave
    alone = stage(Signal.of(waves[1:2, :, :211], RATE // 2)).wave
    torch.testing.assert_close(together[1:2, :, :422], alone)


@torch.no_grad()
def test_a_long_recording_is_the_whole_of_its_pieces(monkeypatch):
    method, low = awake(without()).eval(), random_wave(1, 20_000)
    whole = method(Signal.of(low, RATE // 2)).wave
    monkeypatch.setattr(super_resolver, "LONG_WINDOW", 8000)
    pieces = list(method.enhance(Recording.of(low, RATE // 2)))
    assert len(pieces) > 5
    joined = torch.cat(pieces, dim=-1)
    assert joined.shape == whole.shape
    # Neighbours share 1200 samples, and what is cut off reaches fewer than 100 of them.
    places = torch.arange(whole.shape[-1])
    shared = (places >= 6800) & (places % 6800 < 1200)
    torch.testing.assert_close(joined[..., ~shared][..., :-100], whole[..., ~shared][..., :-100])
    added = whole - raise_rate(Signal.of(low, RATE // 2), RATE, method.upsample).wave
    assert (joined - whole)[..., :-100].abs().max() < 0.1 * added.abs().max()


# ---------------------------------------------------------------- the predictor


@torch.no_grad()
def test_the_log_mel_is_librosas():
    import librosa

    wave, stage = random_wave(2, 1000), predictor()
    expected = librosa.feature.melspectrogram(
        y=wave[:, 0].numpy(), sr=RATE, n_fft=128, hop_length=16, n_mels=10, power=1, pad_mode="constant"
    )
    found = stage.log_mel(wave)
    assert found.shape == stage(wave).shape == (2, 10, 63)
    torch.testing.assert_close(found, torch.from_numpy(np.log(expected)), rtol=1e-4, atol=1e-4)
    assert torch.equal(stage.log_mel(torch.zeros(1, 1, 32)), torch.full((1, 10, 2), 1e-5).log())


def test_its_features_are_its_hidden_layers():
    stage, wave = predictor(), random_wave(2, 100)
    first, second = stage.features(wave)
    assert first.shape == (2, 4, 25)
    assert second.shape == (2, 8, 7)
    torch.testing.assert_close(stage.head(second), stage(wave))


def test_it_is_judged_against_the_mean_it_was_trained_on():
    stage = predictor()
    stage.optimizer |= {"decay": 1.0, "lr": 3e-3}
    pairs = [pair_of(2 * k, 2 * k + 1) for k in range(60)]
    for k, pair in enumerate(pairs):  # noise of many levels
        pair.high.wave.mul_(0.1 ** (k % 2))
    trainer_for(1, StepSeeds(0)).fit(stage, DataLoader(pairs, batch_size=None))
    with torch.no_grad():
        log_mels = torch.cat([stage.log_mel(pair.high.wave) for pair in pairs])
        mean = log_mels.mean((0, 2))
        torch.testing.assert_close((stage.total / stage.frames).float(), mean)
        measures = stage.eval().held_out(pairs[0])
    expected = (log_mels[:2] - mean[:, None]).abs().mean((1, 2))
    torch.testing.assert_close(measures["constant"], expected)
    assert measures["model"].mean() < 0.7 * measures["constant"].mean()


# ---------------------------------------------------------------- terms


def test_the_terms_are_what_they_are_called():
    stage, pair = awake(plus_c()), pair_of(1, 2)
    made, real = stage.generate(pair), pair.high.wave
    terms = stage.losses(pair)
    assert set(terms) == set(TERMS)
    layers = zip(stage.predictor.features(made), stage.predictor.features(real), strict=True)
    torch.testing.assert_close(terms["l1"], (made - real).abs().mean())
    torch.testing.assert_close(terms["perceptual"], sum((a - b).abs().mean() for a, b in layers) / 2)
    torch.testing.assert_close(terms["adversarial"], -stage.critic(made).mean())
    torch.testing.assert_close(terms["critic"], stage.critic(made).mean() - stage.critic(real).mean())
    penalty = gradient_penalty(stage.critic, real, made, uniform(pair.seeds, 0))
    torch.testing.assert_close(terms["penalty"], penalty)
    assert stage.perceptual(real, real) == 0


@pytest.mark.parametrize(
    ("build", "names"),
    [
        (without, {"l1"}),
        (plus_p, {"l1", "perceptual"}),
        (plus_a, {"l1", "adversarial", "critic", "penalty"}),
        (plus_c, set(TERMS)),
    ],
)
def test_each_has_its_terms(build, names):
    assert set(build().losses(pair_of(1, 2))) == names


@pytest.mark.parametrize("term", ["l1", "perceptual", "adversarial"])
def test_each_term_moves_the_whole_generator_alone(term):
    stage, pair = awake(plus_c()), pair_of(1, 2)
    terms = stage.generator_losses(pair, stage.generate(pair), adversarial=True)
    terms[term].backward()
    assert all(p.grad is not None and p.grad.any() for p in stage.net.parameters())
    assert all(p.grad is None for p in stage.predictor.parameters())


def test_the_critics_losses_move_the_critic_alone():
    stage, pair = awake(plus_c()), pair_of(1, 2)
    stage.weigh(stage.critic_losses(pair, stage.generate(pair))).backward()
    others = [*stage.net.parameters(), *stage.predictor.parameters()]
    assert all(p.grad is None for p in others)
    assert all(p.grad.any() for p in stage.critic.parameters() if p.ndim > 1)  # biases may cancel


def test_the_penalty_is_drawn_anew_for_a_batch_that_recurs():
    stage, pair = awake(plus_a()), pair_of(1, 2)
    first, again = (stage.losses(pair)["penalty"].item() for _ in range(2))
    stage.batches_seen += 1
    assert first == again != stage.losses(pair)["penalty"].item()


def test_what_does_not_fit_is_said():
    for wrong in ([1, 2, 3], [2, 4, 8], [1, 2], [1, 4, 4]):
        with pytest.raises(UserError, match="each scale a multiple of the one before"):
            without(scales=wrong)
    with pytest.raises(UserError, match=r"perceptual has a weight: .*uses: {features"):
        MfNetLike(weights_of("l1", "perceptual"), OPTIMIZER, RATE, **NET)
    with pytest.raises(UserError, match="needs a weight above 0 for l1, l2 or perceptual"):
        MfNetLike({"l1": 0.0}, OPTIMIZER, RATE, **NET).losses(pair_of(1))
    unweighed = MfNetLike(weights_of("l1"), OPTIMIZER, RATE, features=predictor(), **NET)
    with pytest.raises(UserError, match="no weight for the loss terms perceptual"):
        unweighed.weigh(unweighed.losses(pair_of(1)))


# ---------------------------------------------------------------- the house


def test_stages_are_found_by_name():
    for stage in (MelPredictor, MfNetLike, MfNetLikeGAN):
        assert find_stage(f"mfnet.{stage.__name__}") is stage


@pytest.mark.parametrize("build", [predictor, *ALL])
def test_it_is_counted_without_memory(build):
    with torch.device("meta"):
        stage = build()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        stage.network(*stage.example(3, 400))
    assert counter.get_total_flops() > 0
    counted = sum(p.numel() for p in stage.network.parameters())
    assert counted == sum(p.numel() for p in (predictor() if build is predictor else without()).parameters())


@pytest.mark.parametrize("build", [plus_p, plus_c])
def test_the_predictor_is_neither_trained_nor_saved(build):
    stage = awake(build())
    before = {name: tensor.clone() for name, tensor in stage.predictor.state_dict().items()}
    trainer_for(1).fit(stage, loader(3))
    after = stage.predictor.state_dict()
    assert [name for name in before if not torch.equal(before[name], after[name])] == []
    assert all(p.grad is None for p in stage.predictor.parameters())
    saved = stage.state_dict()
    assert [name for name in saved if "predictor" in name] == []
    fresh = build(seed=1)
    fresh.load_state_dict(saved)
    assert [name for name in saved if not torch.equal(saved[name], fresh.state_dict()[name])] == []
    pair = pair_of(7)
    torch.testing.assert_close(fresh.losses(pair), stage.losses(pair))


@pytest.mark.parametrize("build", [predictor, plus_p, plus_c])
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


@pytest.mark.parametrize("build", [without, plus_p, lambda: plus_a(n_critic=1), lambda: plus_c(n_critic=1)])
def test_it_learns(build):
    """That its input is twice as loud."""
    stage, pair = build(), pair_of(1, 2)
    stage.optimizer |= {"decay": 1.0, "lr": 3e-3}
    pair = pair._replace(high=Signal.of(0.5 * stage.heard(pair).wave, RATE))
    with torch.no_grad():
        before = stage.eval().held_out(pair)["model"].mean()
    batches = DataLoader([pair] * 60, batch_size=None)
    trainer_for(1, StepSeeds(0)).fit(stage.train(), batches)
    with torch.no_grad():
        after = stage.eval().held_out(pair)["model"].mean()
    assert after < 0.5 * before


def test_half_precision_is_refused():
    for precision in ("16-mixed", "16-true", "16"):
        with pytest.raises(UserError, match=f"MfNetLikeGAN cannot be trained in {precision}"):
            MfNetLikeGAN.check_precision(precision)
        MfNetLike.check_precision(precision)
    MfNetLikeGAN.check_precision("bf16-mixed")


@pytest.mark.parametrize("build", [predictor, without, plus_c])
def test_bf16_mixed_works(build):
    stage = build() if build is predictor else awake(build())
    before = {name: tensor.clone() for name, tensor in stage.state_dict().items()}
    trainer_for(1, precision="bf16-mixed").fit(stage, loader(1))
    trained = {name for name, p in stage.named_parameters() if p.requires_grad and p.ndim > 1}
    assert [name for name in trained if torch.equal(stage.state_dict()[name], before[name])] == []
    assert all(p.isfinite().all() and p.dtype == torch.float32 for p in stage.parameters())
