"""Two commands at once on the same runs and cells: each is done once, also where the one at work is killed.

As a script, this file does a command in two processes, lets the second catch the first at work, and prints
how both ended (a negative number: by that signal).
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path

import pytest

HOUSE = Path(__file__).parents[2]
COMMAND = ("--paper", "audiosr", "--preset", "smoke", "--row", "GT-Mel")
SMALL = ("datasets.esc50=null", "datasets.audiostock=null", "data.test_files=1", "pictures=0")
QUICK = ("data.workers=1", "trainer.threads=1", "trainer.save_every=0")
TRAINING = ("runs.vocoder.training.steps=4", "runs.vocoder.training.check_every=4")


def wait_for(words: str, process: str) -> None:
    """Until `process` has reported these words."""
    end = time.monotonic() + 60
    while words not in Path(process).read_text():
        assert time.monotonic() < end, f"{process} never said: {words}"
        time.sleep(0.02)


def first(arguments: list[str], ending: str) -> int:
    """Trains until it is seen at work, and then on, or is killed; tests its first cell until seen at that."""
    from experiments import run
    from experiments.rows import Rows
    from lightning_modules.audiosr.vocoder import Vocoder

    step, score = Vocoder.training_step, Rows.score

    def training_step(self, pair, batch):
        if self.batches_seen == 3:
            wait_for("another process trains it, waiting", "second")
            if ending == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
        return step(self, pair, batch)

    def seen(self, *task):
        wait_for("another process tests it, waiting", "second")
        return score(self, *task)

    Vocoder.training_step, Rows.score = training_step, seen
    return run.main(arguments)


def second(arguments: list[str]) -> int:
    from experiments import run

    wait_for("trains on", "first")
    return run.main(arguments)


def start(name: str, work: Callable[[], int]) -> int:
    """A process of its own, forked, that writes what it reports to the file `name`."""
    if (pid := os.fork()) == 0:
        code = 99
        try:
            with Path(name).open("w") as out, redirect_stdout(out):
                code = work()
        finally:
            os._exit(code)
    return pid


def do(ending: str, arguments: list[str]) -> None:
    import experiments.rows  # noqa: F401 (once, not in both)

    for name in ("first", "second"):
        Path(name).touch()
    pids = [
        start("first", lambda: first(arguments, ending)),
        start("second", lambda: second(arguments)),
    ]
    print(json.dumps([os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]))


def together(folder: Path, corpus: Path, ending: str) -> list[int]:
    arguments = [*COMMAND, *SMALL, *QUICK, *TRAINING, f"data.root={corpus}"]
    program = [sys.executable, __file__, ending, *arguments]
    environment = os.environ | {"PYTHONPATH": str(HOUSE)}
    done = subprocess.run(program, cwd=folder, env=environment, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def records(folder: Path) -> list[dict]:
    return [json.loads(path.read_text()) for path in folder.glob("runs/audiosr/*/record.json")]


forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


@pytest.mark.slow
@forks
def test_two_at_once_do_everything_once(tiny_corpus, workplace):
    assert together(workplace, tiny_corpus, "through") == [0, 0]
    (run,) = [record for record in records(workplace) if record["kind"] == "run"]
    told = (workplace / "second").read_text()
    assert f"run vocoder {run['id']}: another process trains it, waiting" in told
    assert f"run vocoder {run['id']}: finished" in told
    assert "trains on" not in told
    assert told.count("GT-Mel vctk_4k: another process tests it, waiting") == 1
    assert len(records(workplace)) == 1 + 3
    assert not list(workplace.rglob("*.partial*"))


@pytest.mark.slow
@forks
def test_who_waits_for_one_that_is_killed_goes_on_with_its_work(tiny_corpus, workplace):
    assert together(workplace, tiny_corpus, "killed") == [-signal.SIGKILL, 0]
    told = (workplace / "second").read_text()
    assert "another process trains it, waiting" in told
    assert "goes on from its last checkpoint" in told
    assert len(records(workplace)) == 1 + 3


def test_nobody_waits_beyond_the_time_of_the_command(tmp_path):
    from callbacks.checkpoints import Deadline, OutOfTime
    from experiments.runs import alone

    told = []
    with alone(tmp_path / "run", "busy", told.append):
        late = alone(tmp_path / "run", "busy", told.append, until=Deadline(0.1))
        with pytest.raises(OutOfTime, match="waited"), late:
            pytest.fail("two at once")
        with alone(tmp_path / "other", "busy", told.append):
            pass
    with alone(tmp_path / "run", "busy", told.append):
        pass
    assert told == ["busy"]


if __name__ == "__main__":
    do(sys.argv[1], sys.argv[2:])
