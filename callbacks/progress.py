"""Progress of a whole training, and of the files of a whole table."""

import lightning
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Column
from rich.text import Text

from signals.names import one_line
from signals.types import Pair


class Plain(TextColumn):
    """A text as it is, on one line: no [markup] and no :emoji: in it."""

    def render(self, task):
        return Text(one_line(self.text_format.format(task=task)))


def progress_bar() -> Progress:
    """A bar for tasks that have a `note`."""
    return Progress(
        Plain("{task.description}", table_column=Column(no_wrap=True, min_width=18)),
        BarColumn(bar_width=None, table_column=Column(ratio=1, min_width=8)),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        Plain("{task.fields[note]}", table_column=Column(no_wrap=True, ratio=2)),
        expand=True,
    )


class TrainingProgress(lightning.Callback):
    """One bar over all steps of a run, resumed or not, with its losses."""

    def __init__(self, name: str, steps: int):
        self.name, self.steps = name, steps
        self.bar: Progress | None = None

    def on_train_start(self, trainer, module):
        if trainer.is_global_zero:
            self.bar = progress_bar()
            self.bar.start()
            done = int(module.batches_seen)
            self.task = self.bar.add_task(f"training {self.name}", total=self.steps, completed=done, note="")

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        if self.bar:
            losses = {k.removeprefix("train/"): v for k, v in trainer.progress_bar_metrics.items()}
            note = " ".join(f"{name} {float(value):.3g}" for name, value in losses.items() if "/" not in name)
            self.bar.update(self.task, advance=1, note=note)

    def stop(self):
        if self.bar:
            self.bar.stop()
            self.bar = None

    def on_train_end(self, trainer, module):
        self.stop()

    def on_exception(self, trainer, module, exception):
        self.stop()


class TestProgress(lightning.Callback):
    """Advances one task of a shared bar by every file tested here, and by those tested elsewhere."""

    def __init__(self, bar: Progress, task):
        self.bar, self.task, self.done = bar, task, 0

    def advance(self, files: int) -> None:
        self.done += files
        self.bar.advance(self.task, files)

    def on_test_batch_end(self, trainer, module, outputs, pair: Pair, batch_idx, dataloader_idx=0):
        self.advance(len(pair.ids))
