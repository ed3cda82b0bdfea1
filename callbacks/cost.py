"""What work costs: seconds, steps per second, and the peak of memory."""

import platform
import re
import time
from contextlib import suppress
from pathlib import Path

import lightning
import torch

STATUS, FORGET = Path("/proc/self/status"), Path("/proc/self/clear_refs")  # Linux


def forget_peak(device: torch.device) -> None:
    """From here on, `peak_memory` is that of what follows, where the system can be told so."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    else:
        with suppress(OSError):  # not Linux, or not allowed: the peak is the process's of all its life
            FORGET.write_text("5")


def peak_memory(device: torch.device) -> int | None:
    """Bytes: of tensors on a CUDA device, elsewhere of this process, mapped files that it has read included.

    The most since `forget_peak`. Processes that load data are not in it. None where the system does not say.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    resident = re.search(r"VmHWM:\s+(\d+) kB", STATUS.read_text()) if STATUS.is_file() else None
    if resident:
        return int(resident[1]) * 2**10
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if platform.system() == "Darwin" else peak * 2**10


class Cost(lightning.Callback):
    """What a training costs over all its resumes: `seconds`, `steps` (batches), peak of `memory` in bytes.

    Held-out checks, checkpoints and loggers are in the seconds. What a killed process did after its last
    checkpoint is in neither seconds nor steps: it is done again.
    """

    def __init__(self):
        self.seconds, self.steps, self.memory = 0.0, 0, 0

    @property
    def steps_per_second(self) -> float | None:
        return self.steps / self.seconds if self.steps else None

    def on_train_start(self, trainer, module):
        self.device, self.counted = trainer.strategy.root_device, time.perf_counter()
        forget_peak(self.device)

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        self.steps += 1

    def on_train_end(self, trainer, module):
        self.count()

    def count(self) -> None:
        """Adds what was spent since it was last counted."""
        now = time.perf_counter()
        self.seconds, self.counted = self.seconds + now - self.counted, now
        self.memory = max(self.memory, peak_memory(self.device) or 0)

    def state_dict(self) -> dict:
        self.count()
        return {"seconds": self.seconds, "steps": self.steps, "memory": self.memory}

    def load_state_dict(self, state: dict) -> None:
        self.seconds, self.steps, self.memory = state["seconds"], state["steps"], state["memory"]
