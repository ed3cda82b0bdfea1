"""What a training costs: over all resumes, with its checks, and its own peak of memory."""

import platform
from pathlib import Path

import lightning
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from callbacks import cost
from callbacks.cost import Cost, forget_peak, peak_memory

CPU = torch.device("cpu")
MIB = 2**20


class Clock:
    """Time passes where the training says so."""

    def __init__(self):
        self.now = 1000.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(cost, "time", clock)
    return clock


class Module(lightning.LightningModule):
    """A step takes 2 s, a check 10 s; at step `killed_at` the process dies."""

    def __init__(self, clock: Clock, killed_at: int | None = None):
        super().__init__()
        self.clock, self.killed_at, self.net = clock, killed_at, nn.Linear(1, 1)
        self.automatic_optimization = False

    def configure_optimizers(self):
        return None

    def training_step(self, batch, _):
        self.clock.now += 2
        if self.trainer.fit_loop.total_batch_idx + 1 == self.killed_at:
            raise KeyboardInterrupt

    def validation_step(self, batch, _):
        self.clock.now += 10


class Save(lightning.Callback):
    """At the end of every epoch, after its check."""

    def __init__(self, path: Path):
        self.path = path

    def on_train_epoch_end(self, trainer, module):
        trainer.save_checkpoint(self.path)


def train(path: Path, clock: Clock, killed_at: int | None = None) -> Cost:
    """Two epochs of three steps and a check, from the checkpoint at `path` if there is one."""
    told, loader = Cost(), DataLoader(torch.zeros(3, 1))
    trainer = lightning.Trainer(
        max_epochs=2,
        num_sanity_val_steps=0,
        accelerator="cpu",
        logger=False,
        limit_val_batches=1,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[told, Save(path)],
    )
    resume = path if path.exists() else None
    try:
        trainer.fit(Module(clock, killed_at), loader, loader, ckpt_path=resume, weights_only=resume and True)
    except SystemExit:  # what Lightning makes of a KeyboardInterrupt
        assert killed_at
    return told


def test_steps_and_checks_take_time(clock, tmp_path):
    told = train(tmp_path / "last.ckpt", clock)
    assert (told.seconds, told.steps) == (2 * (3 * 2 + 10), 6)
    assert told.steps_per_second == 6 / 32


def test_seconds_add_up_over_resumes(clock, tmp_path):
    train(tmp_path / "last.ckpt", clock, killed_at=5)
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["callbacks"]["Cost"]["seconds"] == 16
    clock.now += 1e6  # nothing is running
    told = train(tmp_path / "last.ckpt", clock)
    assert (told.seconds, told.steps) == (32, 6)  # what was lost was done again, and is counted once


def test_finished_before_it_was_resumed(clock, tmp_path):
    before = train(tmp_path / "last.ckpt", clock)
    clock.now += 1e6
    after = train(tmp_path / "last.ckpt", clock)
    assert (after.seconds, after.steps, after.memory) == (before.seconds, before.steps, before.memory)


def test_the_peak_of_all_resumes_is_kept(clock, tmp_path, monkeypatch):
    peaks = iter([700, 300])
    monkeypatch.setattr(cost, "peak_memory", lambda device: next(peaks, 200))
    train(tmp_path / "last.ckpt", clock, killed_at=5)
    assert train(tmp_path / "last.ckpt", clock).memory == 700


def test_nothing_trained_has_no_rate():
    assert Cost().steps_per_second is None


def allocate(mebibytes: int) -> None:
    torch.ones(mebibytes * MIB // 4)


@pytest.mark.skipif(platform.system() != "Linux", reason="elsewhere a process cannot forget its peak")
def test_a_peak_is_that_of_what_follows():
    forget_peak(CPU)
    before = peak_memory(CPU)
    allocate(300)
    assert peak_memory(CPU) - before == pytest.approx(300 * MIB, rel=0.1)
    forget_peak(CPU)
    assert peak_memory(CPU) - before < 100 * MIB
    allocate(150)
    assert peak_memory(CPU) - before == pytest.approx(150 * MIB, rel=0.2)


def test_without_linux_it_is_the_peak_of_the_process(monkeypatch, tmp_path):
    resource = pytest.importorskip("resource")
    monkeypatch.setattr(cost, "STATUS", tmp_path / "status")
    monkeypatch.setattr(cost, "FORGET", tmp_path / "none" / "clear_refs")
    forget_peak(CPU)
    held = torch.ones(50 * MIB // 4)
    assert peak_memory(CPU) > held.nbytes
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for system, unit in (("Linux", 1024), ("Darwin", 1)):
        monkeypatch.setattr(cost.platform, "system", lambda system=system: system)
        assert peak_memory(CPU) == peak * unit


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_tensors_are_counted():
    device = torch.device("cuda", 0)
    before = torch.cuda.memory_allocated(device)
    torch.ones(64 * MIB // 4, device=device)
    forget_peak(device)
    torch.ones(16 * MIB // 4, device=device)
    assert peak_memory(device) - before == 16 * MIB
