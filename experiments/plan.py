"""What a command will read and train: its corpora with their counts, and its runs in order."""

import logging
import warnings
from collections.abc import Callable, Mapping

from datamodules.corpora import Missing
from datamodules.library import Library, corpus_of
from experiments.configuration import Row, Table
from experiments.corpora import spelled, spelling
from experiments.rows import Rows, tasks
from experiments.runs import Runs


def quiet() -> None:
    """Lightning's advice on loaders and logs would bury the lines of ours."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    logging.getLogger("lightning.fabric").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
    warnings.filterwarnings("ignore", message=".*isinstance.treespec, LeafSpec.*")


def print_corpora(config: Mapping, library: Library, tester: Rows, rows: list[Row]) -> None:
    """Present and expected files of every split that will be read. Raises UserError on a missing corpus."""
    with spelling(config):
        print_found(config, library, tester, rows)


def print_found(config: Mapping, library: Library, tester: Rows, rows: list[Row]) -> None:
    """As `print_corpora`, which says what is missing in the keys of the configuration."""
    table, report = tester.table, tester.report
    trained = [runs.config["runs"][run] for runs, run in wanted_runs(tester, rows)]
    for mixture in dict.fromkeys(run["data"]["mixture"] for run in trained if "released" not in run):
        for name, part in config["mixtures"][mixture].items():
            for split in ("train", "validation") if part["weight"] > 0 else ():
                counts = library.select(split, **corpus_of(part)).counts
                report(f"{mixture}/{name} {split}: {counts}, weight {part['weight']}")
    for dataset in dict.fromkeys(task.dataset for row in rows for task in tasks(table, row, config)):
        if dataset:
            counts = library.select(table.split, **corpus_of(config["datasets"][dataset])).counts
            report(f"{dataset} {table.split}: {counts}")


def without_missing(config: dict, library: Library, table: Table, report: Callable[[str], None]) -> dict:
    """The configuration without the test sets whose corpus is not there, which are said: their columns stay
    empty. Raises Missing where no test set is left.
    """
    datasets, gone = dict(config["datasets"]), {}
    for name in dict.fromkeys(column.dataset for column in table.columns):
        if name and datasets[name]:
            try:
                library.select(table.split, **corpus_of(datasets[name]))
            except Missing as missing:
                datasets[name], gone[name] = None, spelled(missing, config)
    if gone and not any(column.dataset and datasets[column.dataset] for column in table.columns):
        raise next(iter(gone.values()))
    for name, missing in gone.items():
        report(f"{name}: left out: {missing}")
    return config | {"datasets": datasets}


def wanted_runs(tester: Rows, rows: list[Row]) -> list[tuple[Runs, str]]:
    """All runs behind these rows, in the order in which they are trained."""
    wanted: list[tuple[Runs, str]] = []
    for row in rows:
        for task in tasks(tester.table, row, tester.config):
            if task.dataset is None:  # nothing is tested
                continue
            runs = tester.runs_of(row, task)
            for run in tester.table.parts(row, task).values():
                wanted += [(runs, name) for name in runs.needs(run) if (runs, name) not in wanted]
    return wanted
