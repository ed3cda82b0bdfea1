"""Train and test the rows of a paper's tables: python experiments/run.py --help"""

import argparse
import os
import sys
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import replace
from inspect import signature
from pathlib import Path

from experiments.compare import show
from experiments.configuration import (
    PRESETS,
    Row,
    Table,
    changes,
    configure,
    load_corpus,
    load_paper,
    load_table,
    nearest,
    own_row,
    paper_names,
    released_key,
    scaled,
)
from experiments.places import beside_each_other, given_place
from experiments.records import cause, cell_name
from signals.errors import UserError
from signals.names import one_line

# What narrows a table down, by its flag, and what of a column it is.
COORDINATES = {"dataset": "dataset", "scale": "scale", "cutoff": "cutoff_hz", "loss": "loss"}
# Flags that are also read without hyphens, as sweeps write them: `row=Spline`.
BARE = ("paper", "table", "row", "cell", "preset", "protocol", "seeds", "method", "corpus", *COORDINATES)


def report(line: str) -> None:
    print(one_line(line, keep="\n"), flush=True)


def list_everything() -> None:
    """Papers, their tables and rows; nothing heavy is imported."""
    for paper in paper_names():
        report(f"{paper}: {load_paper(paper)['title']}")
        for name in load_paper(paper)["tables"]:
            table = load_table(paper, name)
            report(f"  {name}: {table.title}")
            for row in table.rows:
                report(f"    {row.system}")


def guest_row(method: str) -> tuple[Row, dict]:
    """The row of a method that no table names (`mine.py:Net`, or ours), and how its runs are trained."""
    from lightning_modules import find_method
    from lightning_modules.stage import Stage
    from lightning_modules.super_resolver import SuperResolver

    found = find_method(method)
    if not issubclass(found, SuperResolver):
        raise UserError(f"method {method} is not a SuperResolver, so it cannot be tested.")
    if issubclass(found, Stage):
        return own_row(found.__name__, method, {None: "guest"}), {
            "guest": {"stage": method, **found.defaults}
        }
    row = replace(own_row(found.__name__, method), parts={part: f"guest_{part}" for part in found.guests})
    given = signature(found).parameters.values()
    needed = {p.name for p in given if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD} - {"rate"}
    if needed - row.parts.keys():
        raise UserError(
            f"method {method} has parts that are trained apart: a table's row is needed (--list)."
        )
    return row, {run: dict(found.guests[part]) for part, run in row.parts.items()}


def chosen_rows(table: Table, systems: list[str] | None) -> list[Row]:
    """The rows asked for, or all. Raises UserError on one that is not there."""
    if systems is None:
        return list(table.rows)
    return [table.row(system) for system in dict.fromkeys(systems)]


def narrowed(table: Table, args: argparse.Namespace) -> Table:
    """The table with the columns asked for only: of one dataset, scale, cut-off, loss, or cell.

    Raises UserError where it has none.
    """
    columns = list(table.columns)
    for flag, key in COORDINATES.items():
        if (wanted := getattr(args, flag)) is None:
            continue
        known = dict.fromkeys(str(getattr(column, key)) for column in columns)
        columns = [column for column in columns if str(getattr(column, key)) == wanted]
        if not columns:
            raise UserError(f"{table.paper} {table.name} has no {flag} {wanted}{nearest(wanted, known)}")
    return replace(table, columns=tuple(columns))


def one_cell(table: Table, name: str) -> tuple[Table, str]:
    """The table with the columns of a cell alone (`AudioSR on vctk, 4 kHz`), and the cell's row.

    Raises UserError on a cell that is not there.
    """
    cells = {
        cell_name(row.system, vars(column)): (row, column)
        for row in table.rows
        for column in table.cells(row)
    }
    if name not in cells:
        raise UserError(f"{table.paper} {table.name} has no cell {name}{nearest(name, cells)}")
    row, cell = cells[name]
    columns = tuple(column for column in table.columns if column.task == cell.task)
    return replace(table, columns=columns), row.system


def with_weights(table: Table, rows: list[Row], config: dict, report=report) -> list[Row]:
    """The rows but those of released weights that nobody has named a file of; these are said."""
    kept = []
    for row in rows:
        runs = [config["runs"][run] | {"name": run} for run in {*row.parts.values(), *row.runs.values()}]
        lacking = sorted(run["name"] for run in runs if "released" in run and run["released"] is None)
        if lacking:
            key = released_key(table.paper, lacking[0])
            report(f"{row.system}: left out, since its weights are its authors': set {key}")
        else:
            kept.append(row)
    return kept


def train_runs(tester, row: Row, missing: dict[tuple, str]) -> None:
    """Trains what is not finished of the runs behind a row. What fails joins `missing`, with why."""
    from callbacks.checkpoints import OutOfTime
    from experiments.plan import wanted_runs
    from experiments.ranks import Abandoned

    for runs, name in wanted_runs(tester, [row]):
        if (runs, name) in missing:
            continue
        causes = [missing[runs, other] for other in runs.needs(name)[:-1] if (runs, other) in missing]
        if causes:
            missing[runs, name] = causes[0]
            continue
        try:
            runs.stage(name)
        except OutOfTime as stop:
            missing[runs, name] = f"run {name} {stop}"
        except Abandoned as stop:
            leave_traceback(runs.folder(name))
            raise Abandoned(f"run {name} failed: {stop}") from stop
        except Exception as error:  # whatever it is, it ends this run only
            missing[runs, name] = f"run {name} failed: {cause(error)}"
            leave_traceback(runs.folder(name))
        else:
            (runs.folder(name) / "error.txt").unlink(missing_ok=True)


def leave_traceback(folder: Path) -> None:
    """What went wrong in full, for whoever mends it; a user has been told in one line."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "error.txt").write_text(traceback.format_exc(), encoding="utf-8", errors="backslashreplace")


def test_row(tester, row: Row, missing: Mapping[tuple, str]) -> dict[tuple[str, str], str]:
    """Tests every task that has no record yet. Returns the cells (system, column) that failed, and why.

    missing: runs, and why they are.
    """
    from callbacks.progress import progress_bar
    from experiments.rows import tasks

    table, todo, failed = tester.table, [], {}
    for task in tasks(table, row, tester.config):
        runs = tester.runs_of(row, task)
        needed = [(runs, name) for run in table.parts(row, task).values() for name in runs.needs(run)]
        if causes := [missing[run] for run in needed if run in missing]:
            failed[row.system, task.key] = causes[0]
        elif not tester.finished(row, task):
            todo.append(task)
    if not todo:
        return failed
    with progress_bar() as bar:
        files = sum(tester.files(row, task) for task in todo)
        progress = bar.add_task(f"testing {row.system}", total=files, note="")
        built, method = None, None
        for task in todo:
            bar.update(progress, note=task.key)
            try:
                tester.runs.check_time("not tested")
                if task.dataset is None:
                    tester.count(row, task, tester.folder(row, task))
                    continue
                wanted = tester.runs_of(row, task), table.parts(row, task), tester.rate(row, task)
                if built != wanted:
                    built, method = wanted, tester.method(row, task)
                tester.test(row, method, task, tester.folder(row, task), bar, progress)
            except UserError as error:
                failed[row.system, task.key] = cause(error)
            except Exception as error:  # whatever it is, it ends this cell only
                failed[row.system, task.key] = cause(error)
                leave_traceback(tester.folder(row, task))
            else:
                (tester.folder(row, task) / "error.txt").unlink(missing_ok=True)
        bar.update(progress, note="")
    return failed


def count_finished(tester, rows: list[Row]) -> int:
    """How many cells were scored before."""
    from experiments.rows import tasks

    return sum(
        tester.finished(row, task) is not None
        for row in rows
        for task in tasks(tester.table, row, tester.config)
    )


def execute(args: argparse.Namespace, config: dict, table: Table, rows: list[Row], library, ranks) -> int:
    """Corpora, training, tests, and the table beside the published one."""
    from experiments.figures import draw_of
    from experiments.page import write_index
    from experiments.plan import print_corpora, quiet, without_missing
    from experiments.rows import Rows, tasks
    from experiments.runs import Runs, check_trainer, deadline
    from experiments.threads import choose_threads
    from experiments.tracking import tracked

    quiet()
    choose_threads(config, ranks.place.local_size)
    failures: list[dict[tuple[str, str], str]] = []  # of each seed
    until = deadline(config)
    if not args.corpus:
        library.make_demo()
        config = without_missing(config, library, table, report)
    for seed in range(config["seed"], config["seed"] + args.seeds):
        runs = Runs(args.paper, config | {"seed": seed}, library, report, until, ranks)
        tester = Rows(table, config | {"seed": seed}, args.protocol, library, runs, report)
        if seed == config["seed"]:  # whatever is wrong should be known before hours of training
            check_trainer(config, ranks)
            for row in rows:
                tester.check(row)
            print_corpora(config, library, tester, rows)
            for row in rows:
                for task in tasks(table, row, config):
                    tester.files(row, task)
        if done := count_finished(tester, rows):
            report(f"{done} cells were scored before, nothing to do for them")
        missing: dict[tuple, str] = {}
        failures.append({})
        for row in rows:
            with tracked(tester, row, report):
                train_runs(tester, row, missing)
                failures[-1] |= test_row(tester, row, missing)
    draw_of(table, Path(config["output"]), args.preset, args.protocol, report)
    write_index(Path(config["output"]))
    show([table], Path(config["output"]), "terminal", args.preset, args.protocol)
    wanted = {row.system: [task.key for task in tasks(table, row, config)] for row in rows}
    for line in dict.fromkeys(line for failed in failures for line in reasons(failed, wanted)):
        print(one_line(f"run.py: {line}"), file=sys.stderr)
    if until.signal:  # as if it had ended there: schedulers and shells know what that means
        return 128 + until.signal
    return 1 if any(failures) else 0


def reasons(failed: Mapping[tuple[str, str], str], wanted: Mapping[str, list[str]]) -> Iterator[str]:
    """A line for each reason: the rows, or what of their tasks, that have no number for it."""
    for why in dict.fromkeys(failed.values()):
        told = []
        for system, tasks in wanted.items():
            keys = [key for key in tasks if failed.get((system, key)) == why]
            if keys:
                told.append(system if keys == tasks else f"{system} ({', '.join(keys)})")
        yield f"no number for {', '.join(told)}: {why}"


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Train and test the rows of a paper's tables; print them beside the published numbers.",
        epilog="key=value changes any key of the configuration that --dry-run prints. "
        "An option may be written so, too, as the agents of sweeps do: row=Spline.",
    )
    parser.add_argument("--list", action="store_true", help="papers, tables and rows")
    parser.add_argument("--verify", type=Path, metavar="RUN", help="check a record, or all below a folder")
    parser.add_argument("--paper", help="one of " + ", ".join(paper_names()))
    parser.add_argument("--table", help="default: the paper's first")
    parser.add_argument("--row", action="append", help="only this row; may be given several times")
    parser.add_argument("--cell", help="only this cell, as in `AudioSR on vctk, 4 kHz`")
    for flag, what in (
        ("dataset", "only this test set"),
        ("scale", "only this scale"),
        ("cutoff", "only this cut-off, in Hz"),
        ("loss", "only what is trained with this loss"),
    ):
        parser.add_argument(f"--{flag}", help=f"{what} of the table")
    parser.add_argument("--preset", choices=PRESETS, default="demo", help="how big (default: %(default)s)")
    parser.add_argument("--protocol", default="published", help="published (default) or aligned")
    parser.add_argument("--seeds", type=int, default=1, help="how many seeds (default: %(default)s)")
    parser.add_argument("--dry-run", action="store_true", help="configuration, runs, rows, corpora and cost")
    parser.add_argument(
        "--method", metavar="FILE.py:CLASS", help="a method of your own as one more row; the file is executed"
    )
    parser.add_argument("--corpus", metavar="FILE.yaml", help="a corpus of your own instead of the paper's")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    return parser.parse_intermixed_args(list(map(hyphenated, sys.argv[1:] if argv is None else argv)))


def hyphenated(text: str) -> str:
    """`row=Spline`, as an agent of a sweep says it, is `--row=Spline`, and `--seed=0` is `seed=0`."""
    name, equals, _ = text.partition("=")
    if equals and name in BARE:
        return f"--{text}"
    if equals and name.startswith("--") and name[2:] not in (*BARE, "verify"):
        return text[2:]
    return text


def configured(args: argparse.Namespace) -> tuple[Table, dict]:
    """The whole table of a command, and its configuration. Raises UserError."""
    table = load_table(args.paper, args.table or load_paper(args.paper)["tables"][0])
    guests, corpus = {}, load_corpus(Path(args.corpus)) if args.corpus else None
    if args.method:
        row, guests = guest_row(args.method)
        known = {each.system: each.method for each in table.rows}
        if known.get(row.system, args.method) != args.method:
            raise UserError(f"{row.system} is a row of this table already: name the class otherwise.")
        if row.system not in known:
            table = replace(table, rows=(*table.rows, row))
        args.row = [*(args.row or []), row.system]
    over = {"guests": guests, "corpus": corpus, "table": table.config}
    config = configure(args.paper, args.preset, args.overrides, **over)
    config = scaled(config, processes(config))
    changed = changes(config, configure(args.paper, args.preset, **over))
    config |= {"preset": args.preset, "changes": changed, "corpus": args.corpus}
    if args.protocol not in config["protocols"]:
        raise UserError(f"unknown protocol {args.protocol}" + nearest(args.protocol, config["protocols"]))
    return table, config


def selected(args: argparse.Namespace, table: Table) -> tuple[Table, list[Row]]:
    """The table with the columns that are asked for, and the rows. Raises UserError on what it has not."""
    systems = args.row
    if args.cell:
        table, system = one_cell(table, args.cell)
        systems = [*(systems or []), system]
    return narrowed(table, args), chosen_rows(table, systems)


def processes(config: Mapping) -> int:
    """How many train one run together. Raises UserError where they cannot."""
    devices, nodes = config["trainer"]["devices"], config["trainer"]["num_nodes"]
    if (started := beside_each_other()) > 1:  # by torchrun or srun, which know best
        if devices * nodes not in (1, started):
            told = f"trainer.devices={devices} times trainer.num_nodes={nodes}"
            raise UserError(f"{told}, but {started} processes were started: leave both out.")
        return started
    if nodes > 1:
        raise UserError(
            f"trainer.num_nodes={nodes}: start a process for each device of each node, by torchrun or srun "
            "(see slurm/), which say how many there are."
        )
    if devices == -1:
        import torch

        return max(1, torch.cuda.device_count())
    if devices < 1:
        raise UserError(f"trainer.devices={devices}: a number from 1 on is needed, or -1 for all GPUs.")
    return devices


def run(args: argparse.Namespace, ranks=None) -> int:
    """ranks: the processes that were started beside this one, if any were."""
    if args.list:
        list_everything()
        return 0
    if args.verify:
        from experiments.verification import verify

        return verify(args.verify, report)
    if not args.paper:
        raise UserError("which paper? --paper P, or --list shows them.")
    if args.seeds < 1:
        raise UserError("--seeds needs a number above 0.")
    table, config = configured(args)
    table, rows = selected(args, table)
    if not (args.row or args.cell) or "WANDB_SWEEP_ID" in os.environ:  # a sweep names every row of its table
        rows = with_weights(table, rows, config)
    from datamodules.library import Library

    library = Library.of(config["data"], report=report)
    from experiments.rows import tasks

    if rows and not any(tasks(table, row, config) for row in rows):
        raise UserError(f"all test sets of {table.paper} {table.name} are null: there is nothing to test.")
    if args.dry_run:
        from experiments.dry_run import describe

        return describe(args, config, table, rows, library, report)
    from experiments.ranks import Ranks

    ranks = ranks or Ranks(processes(config))
    try:
        return execute(args, config, table, rows, library, ranks)
    finally:
        ranks.dismiss()


def run_beside_others(args: argparse.Namespace) -> int:
    """Rank 0 runs the command; the others do with it what it says."""
    from experiments.ranks import Ranks

    ranks = Ranks(place=given_place())
    if ranks.place.rank:
        ranks.follow()
        return 0
    ranks.join()
    try:
        return run(args, ranks)
    finally:
        ranks.dismiss()


def main(argv: list[str] | None = None) -> int:
    args = parse(argv)
    if args.method:
        from lightning_modules import trust

        trust(args.method)
    try:
        return run_beside_others(args) if beside_each_other() > 1 else run(args)
    except (UserError, OSError) as error:
        print(one_line(f"run.py: {error}"), file=sys.stderr)
        return 2
    except (KeyboardInterrupt, SystemExit) as stop:  # Lightning turns Ctrl-C into SystemExit
        if isinstance(why := stop.args[0] if stop.args else None, str):
            print(f"run.py: {why}; the same command goes on from the last checkpoint.", file=sys.stderr)
            return 1
        print("run.py: interrupted; the same command goes on from the last checkpoint.", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
