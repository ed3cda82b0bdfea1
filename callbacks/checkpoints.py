"""Checkpoints that no kill can spoil, and a training that goes on from them as if it had never stopped."""

import signal
import threading
import time
from collections.abc import Callable
from math import inf
from pathlib import Path
from zipfile import ZipFile

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


def check_whole(path: Path) -> None:
    """Raises UserError where a checkpoint is there, but not to the last byte, or more than numbers in it.

    PyTorch itself does not look whether the bytes of a tensor are those that were written.
    """
    if not path.exists():
        return
    try:
        with ZipFile(path) as parts:  # as which PyTorch writes it, with a checksum of each tensor
            whole = parts.testzip() is None
        torch.load(path, weights_only=True, mmap=True)
    except (PermissionError, MemoryError):
        raise
    except Exception:  # whatever the bytes lead to
        whole = False
    if not whole:
        raise UserError(f"{path} is damaged: remove {path.parent} to begin the run anew.")


STOPPING = [name for name in ("SIGTERM", "SIGUSR1") if hasattr(signal, name)]  # Windows has but the first


class OutOfTime(UserError):
    """The command's time is over, or it was told to stop. The message follows on the name of a run."""


class Deadline:
    """When a command must stop: so many seconds from now (None: never), or at a signal that says so."""

    def __init__(self, seconds: float | None = None):
        self.at = inf if seconds is None else time.monotonic() + seconds
        self.why = "trainer.max_time"
        self.signal: int | None = None

    @property
    def over(self) -> bool:
        return time.monotonic() >= self.at

    def check(self, otherwise: str) -> None:
        """Raises OutOfTime, which says what is `otherwise`, where it is over."""
        if self.over:
            why = f"stopped by {self.why}" if self.signal else f"{self.why} is over"
            raise OutOfTime(f"{otherwise}: {why}; the same command goes on")

    def heed(self) -> None:
        """From now on SIGTERM and SIGUSR1 (of schedulers, before they kill) let it stop, not end at once."""
        if threading.current_thread() is threading.main_thread():
            for name in STOPPING:
                signal.signal(getattr(signal, name), lambda number, _: self.tell(number))

    def tell(self, number: int) -> None:
        """It is over now, by a signal of that number."""
        self.at, self.signal, self.why = time.monotonic(), number, signal.Signals(number).name


class Checkpoints(lightning.Callback):
    """Saves `path` at the end of every epoch, and between two batches every `minutes` (None: never).

    deadline: then it saves and raises OutOfTime. Lightning's `should_stop` would end the epoch early and
    count it as complete. agree: the largest of what all processes of a training say.
    """

    def __init__(
        self,
        path: Path,
        minutes: float | None = None,
        deadline: Deadline | None = None,
        agree: Callable[[int], int] = int,
    ):
        self.path = path
        self.period = inf if minutes is None else 60 * minutes
        self.deadline, self.agree = deadline or Deadline(), agree

    def save(self, trainer):
        trainer.save_checkpoint(self.path, weights_only=False)  # optimisers and loops, too
        self.saved = time.monotonic()

    def on_train_start(self, trainer, module):
        self.saved = time.monotonic()
        self.deadline.heed()  # in the place of Lightning, which would stop without saving

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        if batch_idx % trainer.accumulate_grad_batches:  # gradients that wait for others are not saved
            return
        due = time.monotonic() - self.saved >= self.period
        wanted = self.agree(2 + (self.deadline.signal or 0) if self.deadline.over else int(due))
        # Before the first batch of an epoch, the end of the last one was saved.
        if batch_idx > 0 and wanted:
            self.save(trainer)
        if wanted > 2:  # one process was told by a signal, and all of them are now
            self.deadline.tell(wanted - 2)
        if wanted >= 2:
            steps = trainer.max_epochs * trainer.num_training_batches
            raise OutOfTime(
                f"stopped by {self.deadline.why} after {int(module.batches_seen)} of {steps} steps; "
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
            if not trainer.is_global_zero:
                return
            with replacing(self.path) as partial:
                torch.save(module.state_dict(), partial)

    def state_dict(self) -> dict:
        return {"value": self.value}

    def load_state_dict(self, state: dict) -> None:
        self.value = state["value"]


class Threads(lightning.Callback):
    """A training goes on with the threads that it began with: another number would round sums otherwise.

    fixed: the user has said how many, and that holds.
    """

    def __init__(self, fixed: bool):
        self.fixed = fixed

    def state_dict(self) -> dict:
        return {"threads": torch.get_num_threads()}

    def load_state_dict(self, state: dict) -> None:
        if not self.fixed:
            torch.set_num_threads(state["threads"])


class StepSeeds(lightning.Callback):
    """What a step draws from PyTorch's generators (dropout) follows from the seed and `batches_seen` alone.

    So their states need not be saved, and do not depend on how often a loader was started. Of several
    processes each draws its own.
    """

    def __init__(self, seed: int):
        self.seed = seed

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        # Mixed: PyTorch's CPU generator reads the low 32 bits of its seed only.
        words = [self.seed, int(module.batches_seen), *filter(None, [trainer.global_rank])]
        (state,) = np.random.SeedSequence(words).generate_state(1)
        torch.manual_seed(int(state))
