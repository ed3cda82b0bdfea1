"""One run trained by several processes: the same parameters on each, the same numbers as by one.

As a script, this file does commands one after the other, each in two processes as torchrun would start them
(forked: what this process has imported need not be imported again), and prints how all ended.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from experiments.places import Place, given_place
from signals.errors import UserError

HOUSE = Path(__file__).parents[2]
QUICK = ("preset=smoke", "data.workers=1", "trainer.threads=1", "pictures=1")
ROWS = {  # a row of each paper's own method
    "audioedsr": ("table=table3", "row=AudioUNetGAN", "scale=2"),
    "audiosr": ("table=table1", "row=AudioSR", "dataset=vctk", "cutoff=8000"),
    "fma_unet": ("table=table1", "row=U-Net"),
    "qista": ("table=table2", "row=QISTA-Net-Audio"),
    "tfnet": ("table=results", "row=TFNet", "dataset=vctk", "scale=4"),
}
# Without dropout, so that two processes must learn what one does.
EXACT = ("paper=audioedsr", "table=table3", "cell=AudioEDSR on vctk, x2", "runs.edsr_x2.training.steps=8")
SPLINE = ("paper=audioedsr", "table=table3", "cell=Spline on vctk, x2")
MANY = ("data.test_files=8", "data.test_batch=2", "split=all")  # of the test set, in four batches


def ranked(rank: int, port: int) -> dict[str, str]:
    numbers = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "MASTER_PORT": port}
    return {key: str(number) for key, number in numbers.items()} | {"MASTER_ADDR": "127.0.0.1"}


def in_pods(rank: int, port: int) -> dict[str, str]:
    """As Kubeflow's PyTorchJob sets it: one process in each pod."""
    return {key: value for key, value in ranked(rank, port).items() if not key.startswith("LOCAL")}


def listening() -> None:
    """Lets this process note which files it scores, and with which parameters it ends."""
    from callbacks.scores import Scores
    from experiments import runs

    rank, add, parameter_hash = os.environ.get("RANK", "alone"), Scores.add, runs.parameter_hash

    def note(kind: str, words: object) -> None:
        with Path(f"{kind}.{rank}").open("a") as file:
            file.write(f"{words}\n")

    def noting(self, estimate, pair, measured=None):
        add(self, estimate, pair, measured)
        note("scored", "\n".join(pair.ids))

    def hashing(stage):
        found = parameter_hash(stage)
        note("parameters", f"{type(stage).__name__} {found}")
        return found

    Scores.add, runs.parameter_hash = noting, hashing


def work(folder: str, environment: dict[str, str], arguments: list[str]) -> int:
    from experiments import run

    os.environ |= environment
    os.chdir(folder)
    name = environment.get("RANK", "alone")
    with Path(f"out.{name}").open("w") as out, redirect_stdout(out), redirect_stderr(out):
        listening()
        return run.main(arguments)


def forked(job: Callable[[], int]) -> int:
    if (pid := os.fork()) == 0:
        code = 99
        try:
            code = job()
        finally:
            os._exit(code)
    return pid


def do(jobs: list[tuple[str, int, list[str]]]) -> None:
    """Each job: a folder, how many processes, and the arguments of run.py."""
    import experiments.rows
    import experiments.tracking  # noqa: F401 (once, not in all)

    ends = []
    for folder, processes, arguments in jobs:
        Path(folder).mkdir(exist_ok=True, parents=True)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        launched = in_pods if Path(folder).name == "pods" else ranked
        environments = [launched(rank, port) for rank in range(processes)] if processes > 1 else [{}]
        pids = [
            forked(lambda environment=environment: work(folder, environment, arguments))  # noqa: B023
            for environment in environments
        ]
        ends.append([os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids])
    print(json.dumps(ends))


def done(folder: Path, jobs: list[tuple[str, int, tuple]], corpus: Path) -> list[list[int]]:
    data = (f"data.root={corpus}", f"data.folder={folder / 'data'}")
    told = json.dumps([(str(folder / place), count, [*args, *QUICK, *data]) for place, count, args in jobs])
    environment = os.environ | {"PYTHONPATH": str(HOUSE)}
    program = [sys.executable, __file__, told]
    made = subprocess.run(program, env=environment, capture_output=True, text=True, timeout=280)
    assert made.returncode == 0, made.stderr
    return json.loads(made.stdout.splitlines()[-1])


def records(folder: Path, kind: str) -> list[dict]:
    found = (json.loads(path.read_text()) for path in sorted(folder.glob("runs/*/*/record.json")))
    return [record for record in found if record["kind"] == kind]


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.is_file() else []


forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


@pytest.fixture(scope="module")
def by_two(tiny_corpus, tmp_path_factory) -> Path:
    """A row of every paper by two processes, and what there is to compare with."""
    if not hasattr(os, "fork"):
        pytest.skip("needs fork")
    folder = tmp_path_factory.mktemp("by_two")
    jobs = [(paper, 2, (f"paper={paper}", *row)) for paper, row in ROWS.items()]
    jobs += [(f"exact{count}", count, (*EXACT, *MANY[:2])) for count in (1, 2)]
    jobs += [("pods", 2, (*EXACT, *MANY[:2]))]
    jobs += [(f"spline{count}", count, (*SPLINE, *MANY)) for count in (1, 2)]
    ends = done(folder, jobs, tiny_corpus)
    for (place, *_), codes in zip(jobs, ends, strict=True):
        assert not any(codes), (place, codes, (folder / place / "out.0").read_text())
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("paper", ROWS)
def test_all_processes_end_with_the_same_parameters(by_two, paper):
    ours, theirs = (lines(by_two / paper / f"parameters.{rank}") for rank in (0, 1))
    runs = records(by_two / paper, "run")
    assert ours == theirs and len(ours) == len(runs) > 0
    assert {run["processes"] for run in runs} == {2}
    assert not list(by_two.glob(f"{paper}/runs/{paper}/*/last.ckpt"))


@pytest.mark.slow
@pytest.mark.parametrize("place", [*ROWS, "exact2", "spline2"])
def test_every_file_is_scored_once(by_two, place):
    scored = [lines(by_two / place / f"scored.{rank}") for rank in (0, 1)]
    found = sorted(id_ for record in records(by_two / place, "score") for id_ in record["files"])
    assert sorted(scored[0] + scored[1]) == found
    assert len(found) > 0
    if place == "spline2":
        assert len(found) == 8 and all(len(part) == 4 for part in scored)


@pytest.mark.slow
def test_two_processes_learn_what_one_does(by_two):
    (one,), (two,) = (records(by_two / f"exact{count}", "run") for count in (1, 2))
    assert one["id"] == two["id"]  # how many there were does not name a run
    ours, theirs = (
        load_file(by_two / f"exact{count}/runs/audioedsr" / one["id"] / "weights.safetensors")
        for count in (2, 1)
    )
    for name in theirs:
        torch.testing.assert_close(ours[name], theirs[name], rtol=1e-4, atol=1e-6)
    assert two["held_out"] == pytest.approx(one["held_out"], rel=1e-4)


@pytest.mark.slow
def test_pods_learn_and_score_what_processes_of_torchrun_do(by_two):
    (theirs,), (ours,) = (records(by_two / place, "run") for place in ("exact2", "pods"))
    assert (ours["weights"], ours["processes"]) == (theirs["weights"], 2)
    assert lines(by_two / "pods/parameters.0") == lines(by_two / "pods/parameters.1") != []
    (theirs,), (ours,) = (records(by_two / place, "score") for place in ("exact2", "pods"))
    assert ours["files"] == theirs["files"]


@pytest.mark.slow
def test_two_processes_score_as_one_does(by_two):
    (one,), (two,) = (records(by_two / f"spline{count}", "score") for count in (1, 2))
    same = ("id", "files", "mean", "std", "median", "files_used", "audio_seconds")
    assert {key: one[key] for key in same} == {key: two[key] for key in same}
    kept = [sorted(by_two.glob(f"spline{count}/runs/audioedsr/*/recordings/*/*.wav")) for count in (1, 2)]
    assert [path.name for path in kept[0]] == [path.name for path in kept[1]] != []


@pytest.mark.slow
def test_only_one_process_reports(by_two):
    assert "trains on" in (by_two / "exact2/out.0").read_text()
    assert (by_two / "exact2/out.1").read_text() == ""


# Started by the command itself -----------------------------------------------------------------------------


def started(folder: Path, corpus: Path, *arguments: str) -> subprocess.Popen:
    environment = os.environ | {"PYTHONPATH": str(HOUSE), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(HOUSE / "experiments/run.py"), *arguments, *QUICK, f"data.root={corpus}"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(command, cwd=folder, env=environment, **pipes)


def children(pid: int) -> list[int]:
    """Of processes on Linux, those that rank 0 started."""
    told = subprocess.run(["ps", "-o", "pid=,args=", "--ppid", str(pid)], capture_output=True, text=True)
    return [int(line.split()[0]) for line in told.stdout.splitlines() if "experiments.ranks" in line]


def alive(pid: int) -> bool:
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True).stdout
    return bool(state.strip()) and not state.startswith("Z")


def until(true: Callable[[], object], seconds: float = 90) -> object:
    end = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.1)
    return found


LONG = (*EXACT[:-1], "runs.edsr_x2.training.steps=200000", "runs.edsr_x2.training.check_every=100000")
OFTEN = "trainer.save_every=0.01"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="needs ps as Linux has it")
def test_a_process_that_is_killed_ends_the_command_and_the_next_one_goes_on(tiny_corpus, workplace):
    def saved() -> list[Path]:
        return list(workplace.glob("runs/audioedsr/*/last.ckpt"))

    command = started(workplace, tiny_corpus, *LONG, OFTEN, "trainer.devices=2")
    until(saved)
    (other,) = children(command.pid)
    os.kill(other, signal.SIGKILL)
    told, _ = command.communicate(timeout=60)
    assert command.returncode == 1
    assert "process 1 of 2 failed" in told or "run edsr_x2 failed: of 2 processes one failed" in told

    command = started(workplace, tiny_corpus, *LONG, OFTEN, "trainer.devices=2")
    (other,) = until(lambda: children(command.pid))
    (checkpoint,) = saved()
    before = checkpoint.stat().st_mtime
    until(lambda: checkpoint.stat().st_mtime > before)
    os.kill(other, signal.SIGUSR1)  # one is enough
    told, _ = command.communicate(timeout=60)
    assert "goes on from its last checkpoint" in told
    assert "stopped by SIGUSR1 after" in told
    assert command.returncode == 128 + signal.SIGUSR1
    until(lambda: not alive(other), 10)


@forks
def test_what_a_killed_process_has_started_ends_with_it(tmp_path):
    """Forked: a process that starts another one, and is gone."""
    from experiments.ranks import ends_with

    def looked_after() -> int:
        ends_with(parent=os.getppid())
        (tmp_path / "started").touch()
        time.sleep(60)
        return 0

    parent = forked(lambda: (tmp_path / "pid").write_text(str(forked(looked_after))) and time.sleep(60))
    until((tmp_path / "started").exists)
    other = int((tmp_path / "pid").read_text())
    assert alive(other)
    os.kill(parent, signal.SIGKILL)
    os.waitpid(parent, 0)
    until(lambda: not alive(other), 10)


@pytest.mark.parametrize(("ended", "queued"), [(128 + signal.SIGUSR1, ["requeue 4711"]), (0, []), (1, [])])
def test_a_job_that_was_told_to_stop_goes_back_into_the_queue(workplace, ended, queued):
    """slurm/run.sbatch with commands that stand in for SLURM's and for Python."""
    stand_ins = {
        "srun": 'while [[ $1 == --* ]]; do shift; done; exec "$@"',
        "scontrol": 'echo "$@" >> queue',
        "python": f'echo "$@" > asked; exit {ended}',
    }
    for name, script in stand_ins.items():
        path = workplace / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/usr/bin/env bash\n{script}\n")
        path.chmod(0o755)
    environment = os.environ | {"PATH": f"{workplace / 'bin'}:{os.environ['PATH']}", "SLURM_JOB_ID": "4711"}
    command = ["bash", str(HOUSE / "slurm/run.sbatch"), "paper=audiosr", "row=GT-Mel"]
    assert subprocess.run(command, env=environment).returncode == ended
    assert lines(workplace / "asked") == ["experiments/run.py paper=audiosr row=GT-Mel"]
    assert lines(workplace / "queue") == queued


# What cannot be --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["trainer.devices=3"], "runs.edsr_x2.training.batch=2 is not to be shared by 3 processes"),
        (["trainer.devices=0"], "trainer.devices=0: a number from 1 on is needed, or -1 for all GPUs"),
        (["trainer.num_nodes=2"], "by torchrun or srun"),
        (["trainer.strategy=fsdp"], "auto, or one of Lightning's that begin with ddp"),
        (["trainer.scale=bath"], "trainer.scale=bath (did you mean batch?)"),
    ],
)
def test_what_cannot_be_is_said(tiny_corpus, workplace, capsys, arguments, told):
    from experiments import run

    assert run.main([*EXACT, *QUICK, f"data.root={tiny_corpus}", *arguments]) == 2
    error = capsys.readouterr().err
    assert told in error and error.count("\n") == 1


def test_started_beside_others_the_launcher_says_how_many(monkeypatch):
    from experiments.configuration import configure
    from experiments.run import processes

    config = configure("audioedsr", "smoke")
    assert processes(config) == 1
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert processes(config) == 1  # something else's
    monkeypatch.setenv("RANK", "0")
    assert processes(config) == 4
    with monkeypatch.context() as patch:
        patch.setenv("WANDB_SWEEP_ID", "sweep")  # agents side by side are no ranks
        assert processes(config) == 1
    config["trainer"] |= {"devices": 2, "num_nodes": 2}
    assert processes(config) == 4
    config["trainer"] |= {"num_nodes": 3}
    with pytest.raises(UserError, match="4 processes were started"):
        processes(config)


@pytest.fixture
def nowhere(monkeypatch) -> pytest.MonkeyPatch:
    """No launcher has started this process, and what a test sets is forgotten."""
    for key in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "NODE_RANK", "GROUP_RANK"):
        monkeypatch.setenv(key, "")
        monkeypatch.delenv(key)
    for key in ("MASTER_ADDR", "MASTER_PORT", "SLURM_STEP_NUM_TASKS", "SLURM_PROCID"):
        monkeypatch.setenv(key, "")
        monkeypatch.delenv(key)
    return monkeypatch


def launched(nowhere: pytest.MonkeyPatch, **told: object) -> None:
    told = {"RANK": 3, "WORLD_SIZE": 4, "MASTER_ADDR": "job-master-0", "MASTER_PORT": 23456} | told
    for key, value in told.items():
        if value is not None:
            nowhere.setenv(key, str(value))


@pytest.mark.parametrize(
    ("told", "place", "node"),
    [
        ({}, (3, 4, 0, 1), 3),  # a process in each pod
        ({"LOCAL_WORLD_SIZE": 2}, (3, 4, 1, 2), 1),
        ({"LOCAL_WORLD_SIZE": 2, "LOCAL_RANK": 1}, (3, 4, 1, 2), 1),
        ({"LOCAL_WORLD_SIZE": 4, "LOCAL_RANK": 3, "GROUP_RANK": 0}, (3, 4, 3, 4), 0),  # torchrun
    ],
)
def test_the_place_among_processes_of_a_launcher(nowhere, told, place, node):
    from lightning.fabric.plugins.environments import LightningEnvironment

    launched(nowhere, **told)
    assert given_place() == Place(*place)
    lightning = LightningEnvironment()
    assert lightning.creates_processes_externally  # it starts none itself
    assert (lightning.local_rank(), lightning.node_rank()) == (place[2], node)
    assert node * place[3] + place[2] == place[0]  # as Lightning counts its own rank


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"RANK": "x"}, "RANK=x: a launcher sets it to a number from 0 on."),
        ({"RANK": "-1"}, "RANK=-1: a launcher sets it to a number from 0 on."),
        ({"RANK": 4}, "RANK=4 must be below WORLD_SIZE=4: ranks count from 0."),
        ({"WORLD_SIZE": "four"}, "WORLD_SIZE=four: a launcher sets it to a number from 0 on."),
        ({"WORLD_SIZE": None}, "WORLD_SIZE is not set, though RANK is"),
        ({"LOCAL_WORLD_SIZE": 3}, "WORLD_SIZE=4 is no multiple of LOCAL_WORLD_SIZE=3: as many processes"),
        ({"LOCAL_WORLD_SIZE": 0}, "WORLD_SIZE=4 is no multiple of LOCAL_WORLD_SIZE=0"),
        ({"LOCAL_WORLD_SIZE": "all"}, "LOCAL_WORLD_SIZE=all: a launcher sets it to a number from 0 on."),
        ({"LOCAL_RANK": 0}, "LOCAL_WORLD_SIZE is not set, though RANK is"),
        ({"LOCAL_RANK": 2, "LOCAL_WORLD_SIZE": 2}, "LOCAL_RANK=2 must be below LOCAL_WORLD_SIZE=2"),
        ({"LOCAL_RANK": "a", "LOCAL_WORLD_SIZE": 2}, "LOCAL_RANK=a: a launcher sets it to a number"),
        ({"MASTER_ADDR": None}, "MASTER_ADDR is not set, though RANK is: a launcher sets both"),
        ({"MASTER_PORT": None}, "MASTER_PORT is not set, though RANK is"),
        ({"MASTER_PORT": "http"}, "MASTER_PORT=http: a launcher sets it to a number"),
    ],
)
def test_a_launcher_that_says_it_by_half_is_one_line(nowhere, workplace, capsys, wrong, told):
    from experiments import run

    launched(nowhere, **wrong)
    assert run.main([*SPLINE, *QUICK]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"run.py: {told}") and error.count("\n") == 1
    assert not list(workplace.iterdir())


def test_a_process_is_started_from_no_file_of_the_current_folder(workplace, monkeypatch):
    """Where a stranger may have an `experiments/ranks.py`."""
    from experiments import ranks

    started = []
    two = ranks.Ranks(2)
    with monkeypatch.context() as patch:
        patch.setattr(ranks.subprocess, "Popen", lambda command, env, **_: started.append((command, env)))
        patch.setattr(ranks.Ranks, "_watch", lambda self: None)
        two._start()
    two._forget()
    ((command, environment),) = started
    (workplace / "experiments").mkdir()
    (workplace / "experiments/__init__.py").touch()
    where = [*command[: command.index("-m")], "-c", "import experiments; print(experiments.__file__)"]
    found = subprocess.run(where, env=environment, capture_output=True, text=True, check=True)
    assert Path(found.stdout.strip()) == HOUSE / "experiments/__init__.py"


def test_the_place_among_the_tasks_of_a_job(nowhere, monkeypatch):
    assert given_place() is None
    job = {
        "NTASKS": 4,
        "JOB_ID": 16_001,
        "PROCID": 3,
        "LOCALID": 1,
        "NODEID": 1,
        "STEP_NODELIST": "node[07-08]",
    }
    for key, value in job.items():
        monkeypatch.setenv(f"SLURM_{key}", str(value))
    assert given_place() is None  # a job of four tasks, but no srun
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "4")
    monkeypatch.setenv("SLURM_STEP_NUM_NODES", "2")
    assert given_place() == Place(rank=3, size=4, local_rank=1, local_size=2)
    assert Place(3, 4, 1, 2).nodes == 2
    assert os.environ["MASTER_ADDR"] == "node07"
    assert os.environ["NODE_RANK"] == "1"


@pytest.mark.parametrize(("scale", "batch", "lr"), [(None, 2, 1), ("batch", 8, 1), ("batch_and_lr", 8, 4)])
def test_what_scales_with_the_processes_is_in_the_configuration(scale, batch, lr):
    from experiments.configuration import changes, configure, scaled

    config, preset = (
        configure("audioedsr", "smoke", [f"trainer.scale={scale}"]),
        configure("audioedsr", "smoke"),
    )
    run, before = scaled(config, 4)["runs"]["edsr_x2"], preset["runs"]["edsr_x2"]
    assert run["training"]["batch"] == batch
    assert run["optimizer"]["lr"] == lr * before["optimizer"]["lr"]
    changed = changes(scaled(config, 4), preset)
    assert (f"runs.edsr_x2.training.batch={batch}" in changed) == (scale is not None)
    assert scaled(config, 1) == config


def test_other_weights_on_another_process_are_no_result(tiny_corpus, workplace, monkeypatch, capsys):
    from experiments import run
    from experiments.ranks import Ranks

    command = [*EXACT, *QUICK, f"data.root={tiny_corpus}"]
    with monkeypatch.context() as patch:
        patch.setattr(Ranks, "together", lambda self, mine, *_, **__: [mine(), "others"])
        assert run.main(command) == 1
    assert "the processes ended with different weights" in capsys.readouterr().err
    assert not list(workplace.glob("runs/*/*/record.json"))
    assert run.main(command) == 0  # the same command trusts nothing of it
    assert "goes on from" not in capsys.readouterr().out


def test_alone_a_process_takes_one_device_of_many(monkeypatch):
    import lightning
    from lightning.pytorch.accelerators import CPUAccelerator
    from lightning.pytorch.strategies import SingleDeviceStrategy

    from experiments.configuration import configure
    from experiments.ranks import Ranks
    from experiments.runs import own_device, trainer_options

    monkeypatch.setattr(CPUAccelerator, "auto_device_count", staticmethod(lambda: 4))
    config = configure("audioedsr", "smoke")
    for options in (trainer_options(config), trainer_options(config, Ranks(1)), own_device(config, Ranks(2))):
        trainer = lightning.Trainer(logger=False, enable_checkpointing=False, **options)
        assert isinstance(trainer.strategy, SingleDeviceStrategy) and trainer.world_size == 1


if __name__ == "__main__":
    do(json.loads(sys.argv[1]))
