"""A training that is cut off anywhere goes on to the same end: weights, optimisers, schedules and curves."""

import io
import os
import signal
import sys
from pathlib import Path
from types import SimpleNamespace

import lightning
import numpy as np
import pytest
import torch
from torch import nn

from callbacks import checkpoints
from callbacks.checkpoints import Best, Checkpoints, Deadline, OutOfTime, StepSeeds, WholeFiles, check_whole
from callbacks.curves import CurveLogger, read_curves
from datamodules.pairs import Mixture, PairDataModule
from datamodules.store import Store
from lightning_modules.stage import AdversarialStage, Stage
from signals.errors import UserError
from signals.types import Pair

STEPS, EPOCHS = 4, 3
OPTIMIZER = {
    "lr": 0.1,
    "betas": [0.8, 0.9],
    "weight_decay": 0.01,
    "warmup": 5,
    "decay": 0.9,
    "decay_every": 3,
}


class Dropping(Stage):
    """Draws from the global generator, as dropout does, and judges what it learns."""

    def __init__(self):
        super().__init__({"error": 1.0}, OPTIMIZER | {"clip": 1.0})
        self.net = nn.Sequential(nn.Conv1d(1, 4, 3, padding=1), nn.Dropout(0.5), nn.Conv1d(4, 1, 1))

    def losses(self, pair: Pair) -> dict[str, torch.Tensor]:
        return {"error": (self.net(pair.low.wave) - pair.high.wave).square().mean()}

    def held_out(self, pair: Pair) -> dict[str, torch.Tensor]:
        error = (self.net(pair.low.wave) - pair.high.wave).square().mean(dim=(1, 2))
        return {"model": error, "constant": pair.high.wave.square().mean(dim=(1, 2))}


class Levelling(Dropping):
    """Lowers its rate at every check that is not better than those before."""

    def __init__(self):
        super().__init__()
        self.optimizer |= {"schedule": {"name": "plateau", "factor": 0.5, "patience": 0}}


class Contending(AdversarialStage):
    """Two optimisers by hand, of which one steps on every other batch and one from the third on."""

    def __init__(self):
        weights = {"real": 1.0, "fake": 1.0, "fooled": 0.1, "error": 1.0}
        super().__init__(weights, OPTIMIZER | {"clip": 0.0}, n_critic=2, critic_from=3)
        self.generator = nn.Sequential(nn.Conv1d(1, 4, 3, padding=1), nn.Dropout(0.5), nn.Conv1d(4, 1, 1))
        self.critic = nn.Conv1d(1, 1, 5)

    held_out = Dropping.held_out

    @property
    def net(self) -> nn.Module:
        return self.generator

    def generate(self, pair: Pair) -> torch.Tensor:
        return self.generator(pair.low.wave)

    def critic_losses(self, pair: Pair, made: torch.Tensor) -> dict[str, torch.Tensor]:
        real, fake = self.critic(pair.high.wave), self.critic(made.detach())
        return {"real": (1 - real).square().mean(), "fake": fake.square().mean()}

    def generator_losses(self, pair: Pair, made: torch.Tensor, adversarial: bool) -> dict[str, torch.Tensor]:
        error = (made - pair.high.wave).square().mean()
        fooled = {"fooled": (1 - self.critic(made)).square().mean()} if adversarial else {}
        return {"error": error} | fooled


def pairs(loaders: int) -> PairDataModule:
    waves = [np.random.default_rng(i).standard_normal(500).astype(np.float32) for i in range(3)]
    ids = ["a", "b", "c"]
    store = Store(Path(), 16_000, ids, ids, [8000.0] * 3, ids, waves)
    mixture = Mixture({"all": (store, 1)})
    options = {"train": mixture, "window": 64, "held_out": store, "steps": STEPS, "batch": 2}
    return PairDataModule(rate=16_000, loaders=loaders, **options)


class Killed(Exception):
    """Stands for a SIGKILL: what follows on it is thrown away."""


class Kill(lightning.Callback):
    def __init__(self, step: int | None):
        self.step = step

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        if module.batches_seen == self.step:
            raise Killed


class Clock(lightning.Callback):
    """A batch takes a minute, and nothing else takes time."""

    def __init__(self):
        self.minutes = 0

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        self.minutes += 1

    def monotonic(self) -> float:
        return 60 * self.minutes


def train(
    folder: Path, stage: type, killed_at: int | None = None, loaders: int = 0, accumulate: int = 1, **options
) -> dict:
    """Trains, from the last checkpoint if there is one, and returns the one it leaves."""
    path, best = folder / "last.ckpt", folder / "best.ckpt"
    clock = checkpoints.time if isinstance(checkpoints.time, Clock) else Clock()
    torch.set_num_threads(1)
    lightning.seed_everything(3, verbose=False)
    module = stage()
    trainer = lightning.Trainer(
        max_epochs=EPOCHS,
        limit_train_batches=STEPS,
        accumulate_grad_batches=accumulate,
        num_sanity_val_steps=0,
        log_every_n_steps=1,
        accelerator="cpu",
        logger=CurveLogger(folder),
        callbacks=[StepSeeds(3), Best(best), Checkpoints(path, **options), Kill(killed_at), clock],
        plugins=[WholeFiles()],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    resume = path if path.exists() else None
    trainer.fit(module, pairs(loaders), ckpt_path=resume, weights_only=True if resume else None)
    return torch.load(path, weights_only=True) | {"best": torch.load(best, weights_only=True)}


@pytest.fixture(scope="module", params=[Dropping, Levelling, Contending])
def uninterrupted(request, tmp_path_factory) -> tuple[type, dict, dict]:
    folder = tmp_path_factory.mktemp("uninterrupted")
    return request.param, train(folder, request.param), measured(folder, request.param)


def differences(ours, theirs, place: str = "") -> list[str]:
    """Where two checkpoints are not the same to the last bit."""
    if isinstance(ours, dict):
        assert ours.keys() == theirs.keys(), place
        return [found for key in ours for found in differences(ours[key], theirs[key], f"{place}/{key}")]
    if isinstance(ours, list | tuple):
        assert len(ours) == len(theirs), place
        return [found for i in range(len(ours)) for found in differences(ours[i], theirs[i], f"{place}/{i}")]
    same = ours.equal(theirs) if isinstance(ours, torch.Tensor) else ours == theirs
    return [] if same else [f"{place}: {ours} {theirs}"]


def measured(folder: Path, stage: type) -> dict[str, list]:
    """The curves at the steps where they were measured: Lightning repeats what a batch did not log."""
    curves = read_curves(folder)
    if stage is Contending:
        for name in ("train/error", "train/fooled"):  # of the generator, on every other batch
            curves[name] = [(step, value) for step, value in curves[name] if step % 2 == 0]
    return curves


def same(folder: Path, stage: type, ours: dict, theirs: dict, curves: dict) -> None:
    assert not differences(ours, theirs)
    assert measured(folder, stage) == curves


@pytest.mark.parametrize("step", range(1, STEPS * EPOCHS + 1))
def test_killed_after_any_step(uninterrupted, tmp_path, step):
    stage, through, curves = uninterrupted
    with pytest.raises(Killed):
        train(tmp_path, stage, step, minutes=0)
    if step > 1:
        assert torch.load(tmp_path / "last.ckpt", weights_only=True)["state_dict"]["batches_seen"] == step - 1
    same(tmp_path, stage, train(tmp_path, stage, minutes=0), through, curves)


def test_killed_again_and_again_with_loaders(uninterrupted, tmp_path):
    stage, through, curves = uninterrupted
    for step in (3, 3, 5, 8, 12):
        with pytest.raises(Killed):
            train(tmp_path, stage, step, minutes=0, loaders=1)
    same(tmp_path, stage, train(tmp_path, stage, loaders=1), through, curves)


def test_without_minutes_only_checks_are_saved(uninterrupted, tmp_path):
    stage, through, curves = uninterrupted
    with pytest.raises(Killed):
        train(tmp_path, stage, 3)
    assert not (tmp_path / "last.ckpt").exists()
    with pytest.raises(Killed):
        train(tmp_path, stage, 7)
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["state_dict"]["batches_seen"] == STEPS
    same(tmp_path, stage, train(tmp_path, stage), through, curves)


def test_losses_are_logged_at_every_step_and_held_out_at_every_check(uninterrupted):
    stage, _, curves = uninterrupted
    turns = range(0, STEPS * EPOCHS, 2 if stage is Contending else 1)
    assert [step for step, _ in curves["train/error"]] == list(turns)
    assert [step for step, _ in curves["held_out/model"]] == [3, 7, 11]


def test_the_weights_of_the_best_check_are_kept(uninterrupted):
    _, through, curves = uninterrupted
    checks = [value for _, value in curves["held_out/model"]]
    assert through["best"]["batches_seen"] == STEPS * (checks.index(min(checks)) + 1)
    assert through["callbacks"]["Best"]["value"] == pytest.approx(min(checks))


def test_the_rate_falls_where_the_held_out_error_does_not(uninterrupted):
    stage, through, curves = uninterrupted
    if stage is not Levelling:
        return
    rate, best = OPTIMIZER["lr"], float("inf")
    for _, value in curves["held_out/model"]:
        rate, best = (rate, value) if value < best * (1 - 1e-4) else (rate / 2, best)
    assert through["optimizer_states"][0]["param_groups"][0]["lr"] == rate < OPTIMIZER["lr"]


def test_saved_every_so_many_minutes(tmp_path, monkeypatch):
    saved = []
    save = Checkpoints.save
    monkeypatch.setattr(checkpoints, "time", Clock())
    monkeypatch.setattr(Checkpoints, "save", lambda *_: (saved.append(checkpoints.time.minutes), save(*_)))
    train(tmp_path, Dropping, minutes=3)
    assert saved == [3, 4, 7, 8, 11, 12]


def test_stopped_in_time_three_times(uninterrupted, tmp_path, monkeypatch):
    stage, through, curves = uninterrupted
    for minutes, done in ((2, 2), (2, 4), (5, 9)):
        monkeypatch.setattr(checkpoints, "time", Clock())
        with pytest.raises(OutOfTime) as stop:
            train(tmp_path, stage, deadline=Deadline(60 * minutes))
        assert str(stop.value) == (
            f"stopped by trainer.max_time after {done} of 12 steps; the same command goes on"
        )
        assert torch.load(tmp_path / "last.ckpt", weights_only=True)["state_dict"]["batches_seen"] == done
    same(tmp_path, stage, train(tmp_path, stage), through, curves)


class Tell(lightning.Callback):
    """A scheduler that wants this process gone soon."""

    def __init__(self, step: int, number: int):
        self.step, self.number = step, number

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        if module.batches_seen == self.step:
            os.kill(os.getpid(), self.number)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_lets_it_save_and_stop(tmp_path, monkeypatch, number):
    before, deadline = signal.getsignal(number), Deadline()
    monkeypatch.setattr(sys.modules[__name__], "Kill", lambda step: Tell(6, number))
    with pytest.raises(OutOfTime, match=f"stopped by {signal.Signals(number).name} after 6 of 12 steps"):
        train(tmp_path, Dropping, deadline=deadline)
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["state_dict"]["batches_seen"] == 6
    assert deadline.signal == number
    assert signal.getsignal(number) == before  # elsewhere it ends the process, as ever
    with pytest.raises(OutOfTime, match=f"not begun: stopped by {signal.Signals(number).name}; the same"):
        deadline.check("not begun")


def test_out_of_time_before_the_first_step(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "time", Clock())
    with pytest.raises(OutOfTime, match="after 0 of 12 steps"):
        train(tmp_path, Dropping, deadline=Deadline(0))
    assert not (tmp_path / "last.ckpt").exists()


def test_what_is_drawn_follows_from_seed_and_step(uninterrupted):
    class Module:
        batches_seen = torch.tensor(7)

    def drawn(seed: int, rank: int = 0) -> list:
        torch.rand(5)
        StepSeeds(seed).on_train_batch_start(SimpleNamespace(global_rank=rank), Module, None, 0)
        return torch.rand(5).tolist()

    first = drawn(0)
    assert first == drawn(0) != drawn(1)
    assert first != drawn(0, rank=1) != drawn(0, rank=2)
    Module.batches_seen += 1
    assert first != drawn(0)


def test_a_checkpoint_is_written_beside_its_place(tmp_path, monkeypatch):
    """Not in /tmp, from where it would be copied."""
    written = []
    monkeypatch.setattr(torch, "save", lambda _, path: (written.append(Path(path)), path.write_text("x")))
    WholeFiles().save_checkpoint({}, str(tmp_path / "last.ckpt"))
    assert [path.parent for path in written] == [tmp_path]
    assert written[0].name != "last.ckpt"
    assert [file.name for file in tmp_path.iterdir()] == ["last.ckpt"]


def test_gradients_that_wait_for_others_are_not_saved(tmp_path):
    class Waiting(Dropping):
        """Two batches make a step."""

    def through(folder: Path, killed_at: int | None = None) -> dict:
        return train(folder, Waiting, killed_at, minutes=0, accumulate=2)

    (tmp_path / "a").mkdir(), (tmp_path / "b").mkdir()
    whole = through(tmp_path / "a")
    for step in (4, 6):
        with pytest.raises(Killed):
            through(tmp_path / "b", step)
        assert (
            torch.load(tmp_path / "b" / "last.ckpt", weights_only=True)["state_dict"]["batches_seen"] % 2 == 0
        )
    assert not differences(through(tmp_path / "b"), whole)


# What is damaged ------------------------------------------------------------------------------------------


def saved(value: object) -> bytes:
    file = io.BytesIO()
    torch.save(value, file)
    return file.getvalue()


CHECKPOINT = saved({"state_dict": {"weight": torch.zeros(10_000)}, "steps": 3})
DAMAGES = {
    "cut": CHECKPOINT[: len(CHECKPOINT) // 2],
    "without its end": CHECKPOINT[:-10],
    "empty": b"",
    "zeros": bytes(5000),
    "garbage": bytes(range(256)) * 20,
    "text": b"hello world",
    "other bytes": CHECKPOINT[:20_000] + bytes(range(256)) + CHECKPOINT[20_256:],  # of the weights alone
    "no numbers": saved({"state_dict": {}, "path": Path("a")}),  # which could execute something
    "no checkpoint": b"\x80\x02}q\x00X\n\x00\x00\x00state_dictq\x01}q\x02s.",  # a pickled dict
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_named_with_the_remedy(tmp_path, damage):
    path = tmp_path / "last.ckpt"
    path.write_bytes(DAMAGES[damage])
    with pytest.raises(UserError) as told:
        check_whole(path)
    assert str(told.value) == f"{path} is damaged: remove {tmp_path} to begin the run anew."


def test_a_checkpoint_of_ours_is_whole(tmp_path):
    train(tmp_path, Dropping)
    check_whole(tmp_path / "last.ckpt")
    check_whole(tmp_path / "nothing yet.ckpt")


@pytest.mark.parametrize("error", [PermissionError, MemoryError])
def test_a_checkpoint_that_cannot_be_read_now_is_not_called_damaged(tmp_path, monkeypatch, error):
    def refused(path):
        raise error

    (tmp_path / "last.ckpt").write_bytes(CHECKPOINT)
    monkeypatch.setattr(checkpoints, "ZipFile", refused)
    with pytest.raises(error):
        check_whole(tmp_path / "last.ckpt")
