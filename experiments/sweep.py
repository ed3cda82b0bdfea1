"""Run a sweep, with a W&B account or without one: python experiments/sweep.py --help"""

import argparse
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from experiments.configuration import Row, Table, load_table
from experiments.grids import (
    PROGRAM,
    SWEEPS,
    changed,
    grid,
    literal,
    load_sweep,
    own_methods,
    write_sweeps,
)
from experiments.records import cell_name
from experiments.run import COORDINATES, configured, parse, report, selected, with_weights
from signals.errors import UserError
from signals.names import one_line, say

TICK = 0.2  # seconds between looks at what is running


# The cells of a sweep -------------------------------------------------------------------------------------


@dataclass
class Job:
    """One run of a sweep: its command, and what is known before it is started."""

    number: int
    command: list[str]
    table: Table  # of the columns that it fills
    rows: list[Row]
    args: argparse.Namespace
    config: Mapping
    name: str = ""
    needs: set[Path] = field(default_factory=set)  # folders of runs behind it
    finished: bool = False
    blocked: str = ""  # why it cannot be run

    @property
    def cells(self) -> list[str]:
        """What it tests, by name: its cell, or its rows."""
        from experiments.rows import tasks

        found = [(row, task) for row in self.rows for task in tasks(self.table, row, self.config)]
        names = [cell_name(row.system, vars(task)).removesuffix(" on ") for row, task in found]
        return names if len(names) == 1 else [row.system for row in self.rows]

    @property
    def output(self) -> Path:
        return Path(self.config["output"])

    @property
    def log(self) -> Path:
        return self.output / self.table.paper / "sweeps" / self.table.name / f"{self.number:03}.log"


def varying(sweep: Mapping) -> list[str]:
    """Parameters with several values that a cell's name does not tell."""
    told = {"cell", "row", *COORDINATES}
    return [key for key, p in sweep["parameters"].items() if len(p.get("values", ())) > 1 and key not in told]


def jobs_of(sweep: Mapping) -> list[Job]:
    """Every run of a grid, without those of weights that nobody has named a file of, which are said.

    Raises UserError on a parameter that run.py does not know. No corpus is looked at.
    """
    found: list[Job] = []
    tables: dict[tuple, tuple[Table, dict]] = {}  # by what the cells of a table share: to read it takes long
    for number, parameters in enumerate(grid(sweep), 1):
        command = literal(sweep, parameters)
        args = parse(command[command.index(sweep["program"]) + 1 :])
        if not args.paper:
            raise UserError("the sweep needs a parameter paper.")
        shared = (args.paper, args.table, args.preset, args.protocol, args.method, args.corpus)
        if (key := (*shared, *args.overrides)) not in tables:
            tables[key] = configured(args)
        table, rows = selected(args, tables[key][0])
        job = Job(number, command, table, rows, args, tables[key][1])
        job.name = ", ".join((*job.cells, *(f"{key}={parameters[key]}" for key in varying(sweep))))
        found.append(job)
    lines: dict[str, None] = {}  # once, though a row has many cells
    kept = [
        job for job in found if with_weights(job.table, job.rows, job.config, lines.setdefault) == job.rows
    ]
    for line in lines:
        report(line)
    return kept


def look(jobs: Iterable[Job], prepare: bool = True) -> None:
    """Which jobs are finished and which runs the others need, as run.py finds it.

    Recordings are prepared for that, once for all jobs. prepare: false where only what is there is to be
    looked at: without any record, or the demo corpus that it is of, nothing can be finished.
    """
    from datamodules.library import Library
    from datamodules.store import Unprepared
    from experiments.plan import quiet, wanted_runs, without_missing
    from experiments.rows import Rows, tasks
    from experiments.runs import Runs

    quiet()
    libraries: dict[tuple, Library] = {}
    for job in jobs:
        args, data = job.args, job.config["data"]
        if not prepare and not any((job.output / job.table.paper).glob("*/record.json")):
            continue
        place = (data["root"], data["folder"], data["download"], data["workers"])
        if place not in libraries:
            download = data["download"] and prepare
            libraries[place] = Library.of(data, download=download, prepare=prepare, report=report)
            if not args.corpus and prepare:
                libraries[place].make_demo()
        library, config, done = libraries[place], job.config, []
        if library.demo and not library.root.is_dir():
            continue
        try:
            if not args.corpus:
                config = without_missing(config, library, job.table, lambda line: None)
            for seed in range(config["seed"], config["seed"] + args.seeds):
                runs = Runs(args.paper, config | {"seed": seed}, library, report)
                tester = Rows(job.table, runs.config, args.protocol, library, runs, report)
                for row in job.rows:
                    done += [tester.finished(row, task) for task in tasks(job.table, row, config)]
                job.needs |= {each.folder(name) for each, name in wanted_runs(tester, job.rows)}
        except Unprepared:
            continue
        except UserError as error:
            job.blocked = str(error)
        else:
            job.finished = all(done)


# Without an account: the grid, here -----------------------------------------------------------------------


def unfinished(folders: Iterable[Path]) -> set[Path]:
    return {folder for folder in folders if not (folder / "record.json").is_file()}


def next_job(waiting: Iterable[Job], running: Iterable[Job]) -> Job | None:
    """The first job that would not wait for a run that another one trains."""
    trained = unfinished({folder for job in running for folder in job.needs})
    return next((job for job in waiting if not job.needs & trained), None)


def gpus() -> list[str]:
    """What CUDA_VISIBLE_DEVICES calls those that this process may use."""
    import torch

    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = visible.split(",") if visible else list(map(str, range(torch.cuda.device_count())))
    return [name.strip() for name in names][: torch.cuda.device_count()]


def environments(agents: int | None) -> list[dict[str, str]]:
    """What each of so many processes sees: one GPU each in turn, or a share of the cores.

    agents: None is one for each GPU, and one where there is none.
    """
    devices = gpus()
    agents = agents or max(1, len(devices))
    here = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", "")))
    shared = {**os.environ, "PATH": here}  # `python` is the one that runs this
    if devices:
        return [shared | {"CUDA_VISIBLE_DEVICES": devices[slot % len(devices)]} for slot in range(agents)]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if agents == 1:  # which looks for itself how many are free
        return [shared]
    return [{"OMP_NUM_THREADS": str(max(1, cores // agents)), **shared} for _ in range(agents)]


def last_line(log: Path, pattern: str = "") -> str:
    """The last line of a log that is not empty, and matches."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 8192))
        lines = file.read().decode(errors="replace").splitlines()
    return next((line.strip() for line in reversed(lines) if line.strip() and re.match(pattern, line)), "")


def reason(log: Path, code: int) -> str:
    """Why a process gave no number: in run.py's words, or by its last line."""
    if code < 0:
        return f"killed by {signal.Signals(-code).name}; the same command goes on"
    said = last_line(log, "run.py: ") or last_line(log) or f"exit status {code}"
    return re.sub(r"^run\.py: (no number for .*?: )?", "", said)


@contextmanager
def interruptible() -> Iterator[None]:
    """SIGINT and SIGTERM raise KeyboardInterrupt, even where a shell has had them ignored.

    (What ignores a signal has children that ignore it.)
    """

    def interrupt(*_):
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def stop(children: Iterable[subprocess.Popen]) -> None:
    """Interrupts processes and waits: they leave a checkpoint. A second interrupt ends them at once."""
    children = list(children)
    try:
        for child in children:
            child.send_signal(signal.SIGINT)
        for child in children:
            child.wait()
    except KeyboardInterrupt:
        for child in children:
            child.kill()
            child.wait()


def start(job: Job, environment: Mapping[str, str]) -> subprocess.Popen:
    """Its own process group: Ctrl-C reaches it once, from `stop`."""
    job.log.parent.mkdir(parents=True, exist_ok=True)
    with job.log.open("wb") as log:
        return subprocess.Popen(
            job.command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, process_group=0
        )


def work(jobs: list[Job], slots: list[dict[str, str]], total: int) -> dict[str, str]:
    """Runs every job, as many at a time as there are slots. Returns those without a number, and why.

    What failed to train a run is not tried again by the others that need it. total: jobs, with those that
    were finished before.
    """
    from callbacks.progress import progress_bar

    waiting, failed, lost = list(jobs), {}, {}
    running: dict[int, tuple[Job, subprocess.Popen, float]] = {}
    bar = progress_bar()
    bar.disable = not sys.stdout.isatty()
    whole = bar.add_task("cells", total=total, completed=total - len(jobs), note="")
    lines = [bar.add_task("", total=None, visible=False, note="") for _ in slots]

    def end(job: Job, why: str = "") -> None:
        if why:
            failed[job.name] = f"{why} (log {job.log})" if job.log.is_file() else why
        bar.advance(whole)
        bar.update(whole, note=f"{len(failed)} failed" if failed else "")

    def tell(line: str) -> None:
        if bar.disable:
            report(line)
        else:
            say(bar.console, line)

    with bar, interruptible():
        try:
            while waiting or running:
                for job in [job for job in waiting if job.needs & lost.keys() or job.blocked]:
                    waiting.remove(job)
                    end(job, job.blocked or next(lost[run] for run in job.needs if run in lost))
                for slot, environment in enumerate(slots):
                    job = next_job(waiting, (job for job, *_ in running.values()))
                    if slot in running or job is None:
                        continue
                    waiting.remove(job)
                    running[slot] = job, start(job, environment), time.monotonic()
                    bar.reset(lines[slot], description=job.name, visible=True, note="", total=None)
                    tell(f"started {job.name} (log {job.log})")
                time.sleep(TICK)
                for slot, (job, child, started) in list(running.items()):
                    if not bar.disable:
                        bar.update(lines[slot], note=last_line(job.log))
                    if (code := child.poll()) is None:
                        continue
                    del running[slot]
                    bar.update(lines[slot], visible=False)
                    why = reason(job.log, code) if code else ""
                    if code == 1:  # it has tried
                        lost |= dict.fromkeys(unfinished(job.needs), why)
                    end(job, why)
                    told = f"no number for {job.name}: {why}" if why else f"finished {job.name}"
                    tell(f"{told} ({time.monotonic() - started:.0f} s)")
        except BaseException:
            stop(child for _, child, _ in running.values())
            raise
    return failed


def conclude(jobs: Iterable[Job]) -> None:
    """The tables with what there is now, their figures, and the index, as run.py leaves them."""
    from experiments.compare import show
    from experiments.figures import draw_of
    from experiments.page import write_index

    for place in dict.fromkeys(
        (job.table.paper, job.table.name, job.output, job.args.preset, job.args.protocol) for job in jobs
    ):
        paper, name, output, preset, protocol = place
        table = load_table(paper, name)
        draw_of(table, output, preset, protocol, report)
        write_index(output)
        show([table], output, "terminal", preset, protocol)


def run_here(sweep: Mapping, agents: int | None) -> int:
    """The grid on this machine. Returns 1 where a cell has no number."""
    jobs = jobs_of(sweep)
    look(jobs)
    todo = [job for job in jobs if not job.finished]
    if len(todo) < len(jobs):
        report(f"{len(jobs) - len(todo)} of {len(jobs)} cells were scored before, nothing to do for them")
    failed = work(todo, environments(agents), len(jobs)) if todo else {}
    conclude(jobs)
    for name, why in failed.items():
        print(one_line(f"sweep.py: no number for {name}: {why}"), file=sys.stderr)
    return 1 if failed else 0


def print_commands(sweep: Mapping) -> int:
    """Every run's command, and what is finished of them."""
    if sweep["method"] != "grid":
        report(shlex.join(literal(sweep, {key: parameter_told(p) for key, p in sweep["parameters"].items()})))
        report(f"{sweep['method']} search: W&B chooses what is in braces")
        return 0
    jobs = jobs_of(sweep)
    look(jobs, prepare=False)
    for job in jobs:
        told = "finished" if job.finished else job.blocked
        report(shlex.join(job.command) + (f"  # {told}" if told else ""))
    report(f"{len(jobs)} cells, {sum(job.finished for job in jobs)} finished")
    return 0


def parameter_told(parameter: Mapping) -> object:
    """The value of a parameter, or what it is chosen from."""
    if "value" in parameter:
        return parameter["value"]
    if "values" in parameter:
        return "{" + ", ".join(map(str, parameter["values"])) + "}"
    return f"{{{parameter.get('min')} to {parameter.get('max')}}}"


# With an account ------------------------------------------------------------------------------------------


def start_agents(sweep_id: str, project: str, slots: Iterable[Mapping[str, str]]) -> list[subprocess.Popen]:
    """One `wandb agent` for each slot. A few rows that fail in a row are no reason for it to stop."""
    patient = {"WANDB_AGENT_DISABLE_FLAPPING": "true", "WANDB_AGENT_MAX_INITIAL_FAILURES": "1000000"}
    command = [sys.executable, "-m", "wandb", "agent", "--forward-signals", "--project", project, sweep_id]
    return [
        subprocess.Popen(command, env={**slot, **patient}, stdin=subprocess.DEVNULL, process_group=0)
        for slot in slots
    ]


def wait_for(agents: list[subprocess.Popen]) -> int:
    """Waits for all, and interrupts all when interrupted. Returns the exit status of the worst."""
    with interruptible():
        try:
            return max(128 - code if code < 0 else code for code in [agent.wait() for agent in agents])
        except KeyboardInterrupt:
            stop(agents)
            raise


def run_with_wandb(sweep: Mapping, agents: int | None) -> int:
    """Creates the sweep on the server, and works on it with every GPU of this machine."""
    import wandb

    project = os.environ.get("WANDB_PROJECT") or sweep.get("project", "wideband")
    if sweep["method"] == "grid":
        jobs_of(sweep)  # an unknown parameter would fail in every run
    sweep_id = wandb.sweep(dict(sweep), project=project)  # which prints its id and URL
    report(f"on other machines, in the repository: wandb agent --project {project} {sweep_id}")
    return wait_for(start_agents(sweep_id, project, environments(agents)))


# The command ----------------------------------------------------------------------------------------------


def account() -> bool:
    from experiments.tracking import wandb_mode

    return wandb_mode() == "online"


def agents_wanted(text: str) -> int | None:
    """None is `auto`. Raises UserError."""
    if text == "auto":
        return None
    if not text.isdecimal() or int(text) < 1:
        raise UserError(f"--agents {text}: a number from 1 on, or auto.")
    return int(text)


def check_methods(sweep: Mapping, args: argparse.Namespace) -> None:
    """Trusts the methods that the person at the command names. Raises UserError on one of the file alone."""
    from lightning_modules import trust

    for method in own_methods(sweep):
        if f"method={method}" not in args.changes:
            raise UserError(
                f"{args.file} names {method}, which would be executed: if you trust it, add method={method}"
            )
        trust(method)


def run(args: argparse.Namespace) -> int:
    agents = agents_wanted(args.agents)
    if args.write:
        for path in write_sweeps(SWEEPS):
            report(str(path))
        return 0
    if args.file is None:
        raise UserError("which sweep? python experiments/sweep.py sweeps/X.yaml")
    sweep = changed(load_sweep(args.file), args.changes)
    check_methods(sweep, args)
    if args.dry_run:
        return print_commands(sweep)
    if not Path(PROGRAM).is_file():
        raise UserError(f"no {PROGRAM} here: run this in the repository's folder.")
    if not args.local and account():
        return run_with_wandb(sweep, agents)
    if sweep["method"] != "grid":
        raise UserError(f"a {sweep['method']} search needs W&B's server: `wandb login` first.")
    return run_here(sweep, agents)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description="Run a sweep: by `wandb agent` on every GPU with a W&B account, and the same grid here "
        "without one. Finished cells are skipped; the same command goes on where it was stopped."
    )
    parser.add_argument("file", nargs="?", type=Path, metavar="sweeps/X.yaml")
    parser.add_argument("changes", nargs="*", metavar="key=value", help="replaces or adds a parameter")
    parser.add_argument("--agents", default="auto", metavar="N", help="at a time (auto: one for each GPU)")
    parser.add_argument("--dry-run", action="store_true", help="every command, and what is finished of them")
    parser.add_argument("--local", action="store_true", help="here, though there is an account")
    parser.add_argument("--write", action="store_true", help=f"write {SWEEPS.name}/ from the tables")
    try:
        return run(parser.parse_intermixed_args(argv))
    except (UserError, OSError) as error:
        print(one_line(f"sweep.py: {error}"), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("sweep.py: interrupted; the same command goes on.", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
