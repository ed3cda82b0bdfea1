"""What a command will read and train: its corpora with their counts, and its runs in order."""

import logging
import warnings
from collections.abc import Callable, Mapping

from lightning.pytorch.utilities.exceptions import MisconfigurationException

from datamodules.library import Library, corpus_of
from experiments.configuration import Row, Table
from experiments.rows import tasks
from experiments.runs import Runs
from signals.errors import UserError

# What may end one run or row without ending the others.
FAILURES = (UserError, RuntimeError, ValueError, TypeError, OSError, MisconfigurationException)


def quiet() -> None:
    """Lightning's advice on loaders and logs would bury the lines of ours."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    logging.getLogger("lightning.fabric").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
    warnings.filterwarnings("ignore", message=".*isinstance.treespec, LeafSpec.*")


def print_corpora(
    config: Mapping,
    library: Library,
    table: Table,
    rows: list[Row],
    runs: list[str],
    report: Callable[[str], None],
) -> None:
    """Present and expected files of every split that will be read. Raises UserError on a missing corpus."""
    for mixture in dict.fromkeys(config["runs"][run]["data"]["mixture"] for run in runs):
        for name, part in config["mixtures"][mixture].items():
            for split in ("train", "validation") if part["weight"] > 0 else ():
                counts = library.select(split, **corpus_of(part)).counts
                report(f"{mixture}/{name} {split}: {counts}, weight {part['weight']}")
    for dataset in dict.fromkeys(task.dataset for row in rows for task in tasks(table, row, config)):
        report(f"{dataset} test: {library.select('test', **corpus_of(config['datasets'][dataset])).counts}")


def wanted_runs(table: Table, rows: list[Row], config: Mapping, runs: Runs) -> list[str]:
    """All runs behind these rows, in the order in which they are trained."""
    names: list[str] = []
    for row in rows:
        for task in tasks(table, row, config):
            for run in table.parts(row, task).values():
                names += [name for name in runs.needs(run) if name not in names]
    return names
