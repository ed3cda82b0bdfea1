"""Bars: over the whole of a run, resumed or not, and over the files of a table."""

from types import SimpleNamespace

import pytest
import torch

from callbacks.progress import TestProgress as FilesProgress
from callbacks.progress import TrainingProgress, progress_bar


def trainer(zero: bool = True) -> SimpleNamespace:
    return SimpleNamespace(
        is_global_zero=zero, progress_bar_metrics={"train/mel": torch.tensor(2.5), "epoch": 1}
    )


@pytest.fixture
def started():
    """A run of ten steps that goes on after the third."""
    progress = TrainingProgress("vocoder", 10)
    progress.on_train_start(trainer(), SimpleNamespace(batches_seen=torch.tensor(3)))
    yield progress
    progress.stop()


def test_a_resumed_run_goes_on_where_it_was(started):
    (task,) = started.bar.tasks
    assert (task.description, task.total, task.completed) == ("training vocoder", 10, 3)
    started.on_train_batch_end(trainer(), None, None, None, 0)
    (task,) = started.bar.tasks
    assert task.completed == 4
    assert "mel 2.5" in task.fields["note"]


@pytest.mark.parametrize("end", ["on_train_end", "on_exception"])
def test_the_bar_stops_with_the_training(started, end):
    bar = started.bar
    arguments = (trainer(), None) if end == "on_train_end" else (trainer(), None, KeyboardInterrupt())
    getattr(started, end)(*arguments)
    assert not bar.live.is_started
    assert started.bar is None


def test_one_process_of_several_has_the_bar():
    progress = TrainingProgress("vocoder", 10)
    progress.on_train_start(trainer(zero=False), SimpleNamespace(batches_seen=torch.tensor(0)))
    progress.on_train_batch_end(trainer(zero=False), None, None, None, 0)
    progress.on_train_end(trainer(zero=False), None)
    assert progress.bar is None


def test_files_are_counted_by_batches_of_any_size():
    bar = progress_bar()
    task = bar.add_task("testing", total=5, note="")
    for size in (4, 1):
        pair = SimpleNamespace(ids=["x"] * size)
        FilesProgress(bar, task).on_test_batch_end(None, None, None, pair, 0)
    assert bar.tasks[0].finished


def test_a_bar_shows_texts_as_they_are():
    import io

    from rich.console import Console

    from callbacks.progress import progress_bar

    bar = progress_bar()
    bar.live.console = Console(file=io.StringIO(), width=200)
    for name in ("[red]x[/]", "[/x]", ":smile:", "a[b]"):
        bar.add_task(name, total=1, note=name)
    bar.live.console.print(bar.get_renderable())
    shown = bar.live.console.file.getvalue()
    assert all(shown.count(name) == 2 for name in ("[red]x[/]", "[/x]", ":smile:", "a[b]"))
