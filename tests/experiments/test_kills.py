"""`kill -9` anywhere, then the same command: the same weights, curves and scores as if nothing had happened.

As a script, this file does one command in a process of its own, again after every kill, and prints how each
process ended (a negative number: by that signal).
"""

import functools
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest

HOUSE = Path(__file__).parents[2]
COMMAND = ("--paper", "audiosr", "--preset", "smoke", "--row", "GT-Mel", "--row", "Unprocessed")
SMALL = ("datasets.esc50=null", "datasets.audiostock=null", "data.test_files=1", "pictures=0")
QUICK = ("data.workers=1", "trainer.threads=1", "trainer.save_every=0")
TRAINING = ("runs.vocoder.training.steps=8", "runs.vocoder.training.check_every=4")

VOCODER = "lightning_modules.audiosr.vocoder:Vocoder"
KILLS = (  # function, at which of its calls, when
    ("datamodules.store:decode", 3, "before"),
    (f"{VOCODER}.training_step", 3, "before"),  # in the first epoch: two steps are saved
    ("torch:save", 2, "half"),  # of the third
    ("lightning_modules.stage:Stage.validation_step", 1, "before"),  # after the fourth
    (f"{VOCODER}.training_step", 3, "before"),  # in the second epoch
    ("experiments.runs:save_file", 1, "half"),
    ("experiments.runs:write_json", 1, "before"),
    ("experiments.runs:write_json", 1, "after"),  # the checkpoint is still there
    ("callbacks.scores:Scores.on_test_batch_end", 2, "before"),
)


def kill_at(target: str, call: int, when: str) -> None:
    """This process dies at a call of `target`: before it, after it, or when its file is half written."""
    module, _, path = target.partition(":")
    *owners, name = path.split(".")
    owner = functools.reduce(getattr, owners, import_module(module))
    function, calls = getattr(owner, name), 0

    @functools.wraps(function)
    def deadly(*arguments, **options):
        nonlocal calls
        calls += 1
        if calls == call and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        result = function(*arguments, **options)
        if calls == call:
            if when == "half":
                os.truncate(arguments[1], os.path.getsize(arguments[1]) // 2)
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, name, deadly)


def in_a_process(work: Callable[[], int]) -> int:
    """How it ended. Forked: what this process has imported need not be imported again."""
    pid = os.fork()
    if pid == 0:
        os._exit(work())
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def do(kills: list, arguments: list[str]) -> None:
    from experiments import run

    for module in ("experiments.rows", "lightning_modules.audiosr.vocoder"):
        import_module(module)  # once, not after every fork

    def killed(kill: list) -> int:
        kill_at(*kill)
        return run.main(arguments)

    ends = [in_a_process(functools.partial(killed, kill)) for kill in kills]
    ends.append(in_a_process(lambda: run.main(arguments)))
    Path("ends.json").write_text(json.dumps(ends))


def command(folder: Path, corpus: Path, kills: tuple = ()) -> list[int]:
    """Runs the command in `folder`, again after every kill; the prepared stores are beside it."""
    folder.mkdir()
    data = (f"data.root={corpus}", f"data.folder={folder.parent / 'data'}")
    arguments = [*COMMAND, *SMALL, *QUICK, *TRAINING, *data]
    program = [sys.executable, __file__, json.dumps(kills), *arguments]
    environment = os.environ | {"PYTHONPATH": str(HOUSE)}
    done = subprocess.run(program, cwd=folder, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    return json.loads((folder / "ends.json").read_text())


def files(folder: Path) -> set[Path]:
    """All but pages, which are drawn from records at any time."""
    return {path.relative_to(folder) for path in folder.rglob("*") if path.suffix != ".html"}


def records(folder: Path, kind: str) -> dict[str, dict]:
    found = (json.loads(path.read_text()) for path in folder.glob("runs/audiosr/*/record.json"))
    return {record["id"]: record for record in found if record["kind"] == kind}


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_killed_anywhere_it_ends_the_same(tiny_corpus, tmp_path):
    from safetensors.torch import load_file

    from callbacks.curves import read_curves

    killed, through = tmp_path / "killed", tmp_path / "through"
    assert command(killed, tiny_corpus, KILLS) == [*[-signal.SIGKILL] * len(KILLS), 0]
    assert command(through, tiny_corpus) == [0]

    assert files(killed) == files(through)  # nothing is missing or left over
    assert not list((tmp_path / "data").rglob("*.partial*"))
    (run,) = records(through, "run")
    ours, theirs = (
        load_file(folder / "runs/audiosr" / run / "weights.safetensors") for folder in (killed, through)
    )
    assert ours.keys() == theirs.keys()
    assert not [name for name in ours if not ours[name].equal(theirs[name])]
    assert read_curves(killed / "runs/audiosr" / run) == read_curves(through / "runs/audiosr" / run)
    for record in (records(folder, "run")[run] for folder in (killed, through)):
        assert record["seconds"] * record["steps_per_second"] == pytest.approx(8, rel=1e-3)  # each step once
        assert record["memory"] > 2**20
    ours, theirs = records(killed, "score"), records(through, "score")
    assert len(theirs) == 6
    for record in (*ours.values(), *theirs.values()):
        assert record["memory"] > 2**20
        assert record["seconds"] / record["audio_seconds"] == pytest.approx(
            record["real_time_factor"], rel=0.02, abs=1e-4
        )
    assert {id_: record["files"] for id_, record in ours.items()} == {
        id_: record["files"] for id_, record in theirs.items()
    }


if __name__ == "__main__":
    do(json.loads(sys.argv[1]), sys.argv[2:])
