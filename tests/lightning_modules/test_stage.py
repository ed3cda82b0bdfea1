"""Stages: named losses, noise from seeds, adversarial counting, and resuming to the bit."""

import lightning
import pytest
import torch
from audiosr_tiny import OPTIMIZER, one_thread, pair_of, tiny_ldm, tiny_vae, tiny_vocoder  # noqa: F401
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.utils.data import DataLoader

from lightning_modules.stage import AdversarialStage, Stage, Unfilled, endless_noise, fill, noise, uniform
from signals.errors import UserError
from signals.types import Pair

# ---------------------------------------------------------------- noise


@pytest.mark.parametrize("draw", [lambda *args: noise((3, 5), *args), uniform])
def test_draws_do_not_depend_on_the_batch(draw):
    seeds = torch.tensor([3, 2**62 + 5, 3])
    together = draw(seeds, 7)
    torch.testing.assert_close(draw(seeds[1:2], 7), together[1:2], rtol=0, atol=0)
    assert torch.equal(together[0], together[2])


@pytest.mark.parametrize("draw", [lambda *args: noise((3, 5), *args), uniform])
def test_draws_differ_by_seed_and_by_salt(draw):
    seeds = torch.tensor([1, 2, 1 + 2**32, 1 + 2**62])  # PyTorch itself ignores the high bits
    drawn = torch.cat([draw(seeds, salt).reshape(4, -1) for salt in (0, 1, 8)])
    assert len(drawn.unique(dim=0)) == 12


def test_draws_have_their_distribution():
    seeds = torch.arange(2000)
    normal, flat = noise((4,), seeds), uniform(seeds)
    assert abs(normal.mean()) < 0.05
    assert abs(normal.std() - 1) < 0.05
    assert 0 <= flat.min() < 0.01
    assert 0.99 < flat.max() < 1
    assert abs(flat.mean() - 0.5) < 0.03
    lagged = torch.corrcoef(torch.stack([flat[:-1], flat[1:]]))[0, 1]
    assert abs(lagged) < 0.1


def test_endless_noise_is_the_same_in_whatever_it_is_cut():
    """Of any shape; the latent's is tested with its sampler."""
    seeds, firsts = torch.tensor([3, 2**62 + 5]), torch.tensor([0, 0])
    whole = endless_noise((1, 50), seeds, firsts, 8)
    torch.testing.assert_close(endless_noise((1, 50), seeds, firsts, 8), whole, rtol=0, atol=0)
    cut = endless_noise((1, 20), seeds, torch.tensor([7, 30]), 8)
    assert torch.equal(cut[0], whole[0, :, 7:27])
    assert torch.equal(cut[1], whole[1, :, 30:50])
    assert abs(float(endless_noise((1, 4000), seeds, firsts, 64).std()) - 1) < 0.05


# ---------------------------------------------------------------- weights from elsewhere


def test_a_network_is_filled_by_the_tensors_themselves():
    with Unfilled():
        net = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    state = {name: torch.ones_like(value) for name, value in net.state_dict().items()}
    fill(net.requires_grad_(False), state)
    assert net[0].weight.data_ptr() == state["0.weight"].data_ptr()
    assert not net[0].weight.requires_grad
    fill(net, {name: value.half() for name, value in state.items()})
    assert {value.dtype for value in net.state_dict().values()} == {torch.float32}
    with pytest.raises(RuntimeError, match="Missing key"):
        fill(net, {})


def test_nothing_is_drawn_for_what_will_be_filled():
    before = torch.random.get_rng_state()
    with Unfilled():
        torch.nn.Conv2d(3, 3, 3)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.nn.Conv2d(3, 3, 3)
    assert not torch.equal(torch.random.get_rng_state(), before)


# ---------------------------------------------------------------- loss terms


def side_gradients(stage, side: str) -> list[torch.Tensor]:
    pair = pair_of(1, 2, samples=32 * 480)
    made = stage.generate(pair)
    terms = stage.critic_losses(pair, made) if side == "critic" else stage.generator_losses(pair, made, True)
    parameters = list(getattr(stage, side).parameters())
    gradients = torch.autograd.grad(stage.weigh(terms), parameters, allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, gradients, strict=True)]


@pytest.mark.parametrize(
    ("build", "side", "term"),
    [
        (tiny_vae, "generator", "reconstruction"),
        (tiny_vae, "generator", "kl"),
        (tiny_vae, "generator", "adversarial"),
        (tiny_vae, "critic", "critic"),
        (tiny_vocoder, "generator", "mel"),
        (tiny_vocoder, "generator", "adversarial"),
        (tiny_vocoder, "generator", "feature_matching"),
        (tiny_vocoder, "critic", "critic"),
    ],
)
@pytest.mark.filterwarnings("ignore:You are trying to")
def test_every_loss_term_reaches_its_network(build, side, term):
    whole, again, without = (side_gradients(build(**w), side) for w in ({}, {}, {term: 0.0}))
    assert all(torch.equal(a, b) for a, b in zip(whole, again, strict=True))
    assert any(not torch.allclose(a, b) for a, b in zip(whole, without, strict=True))


@pytest.mark.parametrize("build", [tiny_vae, tiny_vocoder])
@pytest.mark.filterwarnings("ignore:You are trying to")
def test_losses_are_both_sides_terms(build):
    stage = build()
    terms = stage.losses(pair_of(1, samples=32 * 480))
    assert set(terms) == set(stage.weights)
    assert all(term.shape == () and term.isfinite() for term in terms.values())


@pytest.mark.filterwarnings("ignore:You are trying to")
def test_the_denoiser_learns_from_v_alone():
    pair = pair_of(1, 2)
    for weight, learns in ((1.0, True), (0.0, False)):
        ldm = tiny_ldm(v=weight)
        ldm.weigh(ldm.losses(pair)).backward()
        assert any(p.grad.any() for p in ldm.unet.parameters() if p.grad is not None) == learns
        assert all(p.grad is None for p in (*ldm.vae.parameters(), *ldm.averaged.parameters()))


def test_a_loss_term_without_a_weight_is_named():
    stage = Stage({"known": 1.0}, OPTIMIZER)
    with pytest.raises(UserError, match="unheard"):
        stage.weigh({"known": torch.ones(()), "unheard": torch.ones(())})


# ---------------------------------------------------------------- counting


class Line(AdversarialStage):
    """One number against another, noting on which batch each side is asked for its losses."""

    def __init__(self, optimizer=OPTIMIZER, **options):
        super().__init__({"up": 1.0, "critic": 1.0}, optimizer, **options)
        self.generator, self.critic = torch.nn.Linear(1, 1), torch.nn.Linear(1, 1)
        self.asked: dict[str, list[int]] = {"generator": [], "adversarial": [], "critic": []}

    def generate(self, pair: Pair) -> torch.Tensor:
        return self.generator(pair.high.wave[..., :1])

    def critic_losses(self, pair: Pair, made: torch.Tensor) -> dict[str, torch.Tensor]:
        self.asked["critic"].append(int(self.batches_seen))
        return {"critic": self.critic(made.detach()).mean()}

    def generator_losses(self, pair: Pair, made: torch.Tensor, adversarial: bool) -> dict[str, torch.Tensor]:
        self.asked["generator"].append(int(self.batches_seen))
        if adversarial:
            self.asked["adversarial"].append(int(self.batches_seen))
            assert not any(p.requires_grad for p in self.critic.parameters())
        return {"up": self.critic(made).mean() if adversarial else made.mean()}


class Single(Stage):
    """As `Line`, with one side."""

    def __init__(self, optimizer=OPTIMIZER):
        super().__init__({"up": 1.0}, optimizer)
        self.generator = torch.nn.Linear(1, 1)

    def losses(self, pair: Pair) -> dict[str, torch.Tensor]:
        return {"up": self.generator(pair.high.wave[..., :1]).mean()}


def loader(batches: int, samples: int = 480) -> DataLoader:
    return DataLoader([pair_of(2 * k, 2 * k + 1, samples=samples) for k in range(batches)], batch_size=None)


def trainer_for(epochs: int, *callbacks: lightning.Callback) -> lightning.Trainer:
    return lightning.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=any(isinstance(c, ModelCheckpoint) for c in callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=list(callbacks),
    )


pytestmark = pytest.mark.filterwarnings(
    "ignore:.*does not have many workers",
    "ignore:.*`val_dataloader`",
    "ignore:The dirpath has changed",
    "ignore:Found .* in eval mode",
)


def test_sides_take_turns_by_batches_seen():
    stage = Line(n_critic=3, critic_from=2)
    trainer_for(2).fit(stage, loader(4))
    assert stage.asked == {"generator": [0, 3, 6], "adversarial": [3, 6], "critic": [2, 3, 4, 5, 6, 7]}
    assert stage.batches_seen == 8
    assert all(p.requires_grad for p in stage.critic.parameters())


def test_turns_go_on_from_the_saved_count():
    stage = Line(n_critic=3)
    stage.batches_seen += 2
    trainer_for(1).fit(stage, loader(3))
    assert stage.asked["generator"] == [3]
    assert stage.asked["critic"] == [2, 3, 4]


def test_a_critic_that_is_not_due_stays_as_it_is():
    stage = Line(critic_from=100)
    before = {name: tensor.clone() for name, tensor in stage.state_dict().items()}
    trainer_for(1).fit(stage, loader(3))
    changed = {n for n, tensor in stage.state_dict().items() if not torch.equal(tensor, before[n])}
    assert changed == {"generator.weight", "generator.bias", "batches_seen"}


class Rates(lightning.Callback):
    def __init__(self):
        self.seen: list[list[float]] = []

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        self.seen.append([optimizer.param_groups[0]["lr"] for optimizer in trainer.optimizers])


@pytest.mark.parametrize("build", [Single, Line, lambda o: Line(o, n_critic=3)])
def test_the_rate_warms_up_by_steps_and_decays_by_batches(build):
    rates = Rates()
    trainer_for(3, rates).fit(
        build(OPTIMIZER | {"lr": 1.0, "warmup": 0, "decay": 0.5, "decay_every": 3}), loader(3)
    )
    sides = torch.tensor(rates.seen).T
    assert sides.shape[1] == 9
    assert sides[-1].tolist() == [1, 1, 1, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25]
    rates = Rates()
    trainer_for(1, rates).fit(build(OPTIMIZER | {"lr": 1.0, "warmup": 4, "decay": 1.0}), loader(6))
    assert torch.tensor(rates.seen).T[-1].tolist() == [0.25, 0.5, 0.75, 1, 1, 1]


def test_the_rate_falls_polynomially():
    rates, schedule = Rates(), {"name": "polynomial", "power": 0.5, "last": 0.1, "steps": 4}
    trainer_for(2, rates).fit(Single(OPTIMIZER | {"lr": 1.0, "schedule": schedule}), loader(3))
    expected = [0.1 + 0.9 * (1 - step / 4) ** 0.5 for step in range(4)] + [0.1, 0.1]
    assert torch.tensor(rates.seen)[:, 0].tolist() == pytest.approx(expected)


def test_an_unknown_schedule_is_an_error():
    with pytest.raises(UserError, match="schedule cosine: polynomial or plateau"):
        Single(OPTIMIZER | {"schedule": {"name": "cosine"}}).configure_optimizers()
    plateau = {"schedule": {"name": "plateau", "factor": 0.5, "patience": 2}}
    with pytest.raises(UserError, match="two sides have none in common"):
        Line(OPTIMIZER | plateau).configure_optimizers()


def test_a_generator_that_steps_seldom_decays_by_batches_too():
    """At its next step: what it has until then is what the last step left."""
    rates = Rates()
    options = OPTIMIZER | {"lr": 1.0, "warmup": 0, "decay": 0.5, "decay_every": 3}
    trainer_for(3, rates).fit(Line(options, n_critic=3), loader(3))
    assert [generator for generator, _ in rates.seen] == [1, 1, 1, 1, 0.5, 0.5, 0.5, 0.25, 0.25]


def test_the_gradient_is_clipped():
    for clip in (0.0, 0.25):
        stage = Single(OPTIMIZER | {"clip": clip})
        (100 * stage.generator.weight.sum()).backward()
        stage.clip(stage.make_optimizer(stage.parameters())[0])
        assert stage.generator.weight.grad.norm() == pytest.approx(clip or 100, rel=1e-4)


# ---------------------------------------------------------------- resuming


def trained(build, epochs: int, folder, resume: str | None = None):
    stage = build()
    torch.manual_seed(epochs + 17)  # nothing may depend on the global generator
    keeper = ModelCheckpoint(folder, "last", save_on_train_epoch_end=True, enable_version_counter=False)
    options = {"ckpt_path": resume, "weights_only": True} if resume else {}
    trainer_for(epochs, keeper).fit(stage, loader(3, samples=64 * 480), **options)
    return stage


@pytest.mark.parametrize(
    "build",
    [
        lambda seed=0: tiny_vae(seed, critic_from=2),
        lambda seed=0: tiny_ldm(seed, scale_batches=4),
        lambda seed=0: tiny_ldm(seed, cache_latents=True),
        lambda seed=0: tiny_ldm(seed, variant="code"),
    ],
    ids=["vae", "ldm", "ldm, cached", "ldm, code"],
)
def test_a_resumed_run_is_the_same_to_the_bit(build, tmp_path):
    straight = trained(build, 2, tmp_path / "straight").state_dict()
    first = trained(build, 1, tmp_path / "first").state_dict()
    path = str(tmp_path / "first" / "last.ckpt")
    resumed = trained(lambda: build(seed=5), 2, tmp_path / "second", path).state_dict()
    assert straight.keys() == resumed.keys()
    assert [name for name in straight if not torch.equal(straight[name], resumed[name])] == []
    assert [name for name in straight if not torch.equal(straight[name], first[name])]
    assert straight["batches_seen"] == 6


def test_a_checkpoint_within_an_epoch_has_the_average_of_its_weights(tmp_path):
    """Lightning saves before the module's own end of batch."""
    stage = tiny_ldm()
    start = {name: p.detach().clone() for name, p in stage.unet.named_parameters()}
    keeper = ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=1, save_top_k=-1)
    trainer_for(1, keeper).fit(stage, loader(2, samples=64 * 480))
    saved = torch.load(tmp_path / "step=1.ckpt", weights_only=True)["state_dict"]
    assert saved["batches_seen"] == 1
    for name, before in start.items():
        averaged = before.lerp(saved[f"unet.{name}"], 1 - 2 / 11)
        torch.testing.assert_close(saved[f"averaged.{name}"], averaged)
    assert not torch.equal(saved["averaged.conv_out.bias"], start["conv_out.bias"])
