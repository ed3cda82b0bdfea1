"""Checkpoints that no kill can spoil, and a training that goes on from them as if it had never stopped."""

import time
from math import inf
from pathlib import Path

import lightning
import numpy as np
import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO

from signals.errors import UserError
from signals.files import replacing


class WholeFiles(TorchCheckpointIO):
    """Lightning writes in the folder of temporary files: moved from another disk, a file is there half."""

    def save_checkpoint(self, checkpoint, path, storage_options=None):
        with replacing(Path(path)) as partial:
            torch.save(checkpoint, partial)


class OutOfTime(UserError):
    """`trainer.max_time` is over. The message follows on the name of a run."""


class Checkpoints(lightning.Callback):
    """Saves `path` at the end of every epoch, and between two batches every `minutes` (None: never).

    deadline: in seconds of time.monotonic (None: never); then it saves and raises OutOfTime. Lightning's
    `should_stop` would end the epoch early and count it as complete.
    """

    def __init__(self, path: Path, minutes: float | None = None, deadline: float | None = None):
        self.path = path
        self.period = inf if minutes is None else 60 * minutes
        self.deadline = inf if deadline is None else deadline

    def save(self, trainer):
        trainer.save_checkpoint(self.path, weights_only=False)  # optimisers and loops, too
        self.saved = time.monotonic()

    def on_train_start(self, trainer, module):
        self.saved = time.monotonic()

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        now = time.monotonic()
        if batch_idx % trainer.accumulate_grad_batches:  # gradients that wait for others are not saved
            return
        # Before the first batch of an epoch, the end of the last one was saved.
        if batch_idx > 0 and (now >= self.deadline or now - self.saved >= self.period):
            self.save(trainer)
        if now >= self.deadline:
            steps = trainer.max_epochs * trainer.num_training_batches
            raise OutOfTime(
                f"stopped by trainer.max_time after {int(module.batches_seen)} of {steps} steps; "
                "the same command goes on"
            )

    def on_train_epoch_end(self, trainer, module):
        self.save(trainer)

    def on_save_checkpoint(self, trainer, module, checkpoint):
        """A batch that is ready but not started comes again: Lightning would count it twice in the curves."""
        batches = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]
        if batches["current"]["ready"] > batches["current"]["started"]:
            for counts in (batches["current"], batches["total"]):
                counts["ready"] = counts["started"]


class Best(lightning.Callback):
    """Keeps the weights of the check with the lowest `held_out/model` in `path`, over all resumes."""

    def __init__(self, path: Path):
        self.path, self.value = path, inf

    def on_validation_end(self, trainer, module):
        value = float(trainer.callback_metrics["held_out/model"])
        if trainer.state.fn == "fit" and value < self.value:
            self.value = value
            with replacing(self.path) as partial:
                torch.save(module.state_dict(), partial)

    def state_dict(self) -> dict:
        return {"value": self.value}

    def load_state_dict(self, state: dict) -> None:
        self.value = state["value"]


class StepSeeds(lightning.Callback):
    """What a step draws from PyTorch's generators (dropout) follows from the seed and `batches_seen` alone.

    So their states need not be saved, and do not depend on how often a loader was started.
    """

    def __init__(self, seed: int):
        self.seed = seed

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        # Mixed: PyTorch's CPU generator reads the low 32 bits of its seed only.
        (state,) = np.random.SeedSequence([self.seed, int(module.batches_seen)]).generate_state(1)
        torch.manual_seed(int(state))
