"""Train and test the rows of a paper's tables: python experiments/run.py --help"""

import argparse
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path

from experiments.compare import is_built, show
from experiments.configuration import (
    PRESETS,
    Row,
    Table,
    changes,
    configure,
    load_paper,
    load_table,
    nearest,
    paper_names,
)
from experiments.records import cause
from signals.errors import UserError


def report(line: str) -> None:
    print(line, flush=True)


def list_everything() -> None:
    """Papers, their tables and rows; nothing heavy is imported."""
    for paper in paper_names():
        report(f"{paper}: {load_paper(paper)['title']}")
        for name in load_paper(paper)["tables"]:
            table = load_table(paper, name)
            report(f"  {name}: {table.title}")
            for row in table.rows:
                report(f"    {row.system}" + ("" if is_built(table, row) else " (not built yet)"))


def chosen_rows(table: Table, systems: list[str] | None) -> list[Row]:
    """The rows asked for, or all that are built. Raises UserError on one that is not built."""
    if systems is None:
        return [row for row in table.rows if is_built(table, row)]
    rows = [table.row(system) for system in systems]
    for row in rows:
        if not is_built(table, row):
            raise UserError(f"{table.paper} {table.name} {row.system}: not built yet.")
    return rows


def train_runs(rows: list[Row], runs) -> dict[str, str]:
    """Trains what is not finished. Returns why each blocked row is blocked."""
    from experiments.plan import FAILURES, wanted_runs

    failed: dict[str, str] = {}
    for name in wanted_runs(rows, runs):
        causes = [failed[other] for other in runs.needs(name)[:-1] if other in failed]
        if causes:
            failed[name] = causes[0]
            continue
        try:
            runs.stage(name)
        except FAILURES as error:
            failed[name] = f"run {name} failed: {cause(error)}"
            runs.folder(name).mkdir(parents=True, exist_ok=True)
            (runs.folder(name) / "error.txt").write_text(traceback.format_exc())
    blocked = {}
    for row in rows:
        causes = [failed[name] for run in row.parts.values() for name in runs.needs(run) if name in failed]
        if causes:
            blocked[row.system] = causes[0]
    return blocked


def test_rows(rows: list[Row], tester, blocked: Mapping[str, str]) -> dict[str, str]:
    """Tests every task that has no record yet. Returns the rows that failed, and why."""
    from callbacks.progress import progress_bar
    from experiments.plan import FAILURES
    from experiments.rows import tasks

    failed = dict(blocked)
    todo, done = [], 0
    for row in rows:
        if row.system not in failed:
            found = tasks(tester.table, row, tester.config)
            todo += [(row, task) for task in found if not tester.finished(row, task)]
            done += sum(bool(tester.finished(row, task)) for task in found)
    if done:
        report(f"{done} cells were scored before, nothing to do for them")
    with progress_bar() as bar:
        files = sum(len(tester.test_set(row, task)[0]) for row, task in todo)
        progress = bar.add_task("testing", total=files, note="")
        methods: dict[str, object] = {}
        for row, task in todo:
            if row.system in failed:
                continue
            bar.update(progress, note=f"{row.system}, {task.key}")
            try:
                if row.system not in methods:
                    methods = {row.system: tester.method(row)}
                tester.test(row, methods[row.system], task, tester.folder(row, task), bar, progress)
            except FAILURES as error:
                failed[row.system] = f"{task.key}: {cause(error)}"
        bar.update(progress, note="")
    return failed


def execute(args: argparse.Namespace, config: dict, table: Table, rows: list[Row], library) -> int:
    """Corpora, training, tests, and the table beside the published one."""
    import torch

    from experiments.plan import print_corpora, quiet, wanted_runs
    from experiments.rows import Rows, tasks
    from experiments.runs import Runs, check_trainer

    quiet()
    if config["trainer"]["threads"]:
        torch.set_num_threads(config["trainer"]["threads"])
    failed: dict[str, str] = {}
    library.make_demo()
    for seed in range(config["seed"], config["seed"] + args.seeds):
        runs = Runs(args.paper, config | {"seed": seed}, library, report)
        tester = Rows(table, config | {"seed": seed}, args.protocol, library, runs, report)
        if seed == config["seed"]:  # whatever is wrong should be known before hours of training
            check_trainer(config)
            for row in rows:
                tester.check(row)
            print_corpora(config, library, table, rows, wanted_runs(rows, runs), report)
            for row in rows:
                for task in tasks(table, row, config):
                    tester.test_set(row, task)
        failed |= test_rows(rows, tester, train_runs(rows, runs))
    show([table], Path(config["output"]), "terminal", args.preset, args.protocol)
    for system, why in failed.items():
        print(f"run.py: no number for {system}: {why}", file=sys.stderr)
    return 1 if failed else 0


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Train and test the rows of a paper's tables; print them beside the published numbers.",
        epilog="key=value changes any key of the configuration that --dry-run prints.",
    )
    parser.add_argument("--list", action="store_true", help="papers, tables and rows")
    parser.add_argument("--paper", help="one of " + ", ".join(paper_names()))
    parser.add_argument("--table", help="default: the paper's first")
    parser.add_argument("--row", action="append", help="only this row; may be given several times")
    parser.add_argument("--preset", choices=PRESETS, default="demo", help="how big (default: %(default)s)")
    parser.add_argument("--protocol", default="published", help="published (default) or aligned")
    parser.add_argument("--seeds", type=int, default=1, help="how many seeds (default: %(default)s)")
    parser.add_argument("--dry-run", action="store_true", help="configuration, runs, rows, corpora and cost")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    return parser.parse_intermixed_args(argv)


def run(args: argparse.Namespace) -> int:
    if args.list:
        list_everything()
        return 0
    if not args.paper:
        raise UserError("which paper? --paper P, or --list shows them.")
    if args.seeds < 1:
        raise UserError("--seeds needs a number above 0.")
    table = load_table(args.paper, args.table or load_paper(args.paper)["tables"][0])
    rows = chosen_rows(table, args.row)
    config = configure(args.paper, args.preset, args.overrides)
    config |= {"preset": args.preset, "changes": changes(config, args.paper, args.preset)}
    if args.protocol not in config["protocols"]:
        raise UserError(f"unknown protocol {args.protocol}" + nearest(args.protocol, config["protocols"]))
    if config["trainer"]["devices"] != 1 or config["trainer"]["num_nodes"] != 1:
        raise UserError("training one run on several devices: not built yet; set trainer.devices=1.")
    from datamodules.library import Library

    data = config["data"]
    library = Library(
        data["root"], data["folder"], download=data["download"], workers=data["workers"], report=report
    )
    if args.dry_run:
        from experiments.dry_run import describe

        return describe(args, config, table, rows, library, report)
    return execute(args, config, table, rows, library)


def main(argv: list[str] | None = None) -> int:
    args = parse(argv)
    try:
        return run(args)
    except (UserError, OSError) as error:
        print(f"run.py: {error}", file=sys.stderr)
        return 2
    except (KeyboardInterrupt, SystemExit):  # Lightning turns Ctrl-C into SystemExit
        print("run.py: interrupted; the same command goes on from the last checkpoint.", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
