"""Rows: a system tested on the tasks of its table's cells, each leaving a record of per-file scores."""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path

import lightning
from omegaconf import OmegaConf

from callbacks.checkpoints import Deadline
from callbacks.cost import forget_peak, peak_memory
from callbacks.progress import TestProgress
from callbacks.scores import Found, Scores, Showcase
from datamodules.degradations import degradation
from datamodules.library import Library, corpus_of
from datamodules.pairs import PairDataModule
from experiments.averages import Averages, averages
from experiments.configuration import LISTENER_METRICS, Column, Row, Table, configure, nearest
from experiments.page import write_page
from experiments.ranks import Ranks
from experiments.records import (
    cause,
    identity_hash,
    provenance,
    read_record,
    task_name,
    write_json,
    write_yaml,
)
from experiments.runs import Runs, alone, count_parameters, own_device
from experiments.threads import choose_threads
from lightning_modules import build_method, find_method, own_source
from lightning_modules.stage import Stage
from lightning_modules.super_resolver import SuperResolver
from signals import versions
from signals.errors import UserError
from signals.metrics import HALVES, METRICS
from signals.names import one_line
from signals.perceptual import check_installed


def tasks(table: Table, row: Row, config: Mapping) -> list[Column]:
    """One column of each task (dataset and cut-off or scale) that the row is tested on.

    A dataset that the configuration sets to null is left out.
    """
    cells = [c for c in table.cells(row) if c.metric not in LISTENER_METRICS]
    cells = [c for c in cells if row.published.get(c.key) != "N/A"]
    cells = [c for c in cells if c.dataset is None or config["datasets"][c.dataset]]
    found: dict[tuple, Column] = {}
    for c in cells:
        found.setdefault(c.task, c)
    return list(found.values())


def band_edge(task: Column, rate: int) -> float | None:
    """Hz up to which the input of a task reaches, None where its degradation says so itself."""
    if task.cutoff_hz:
        return task.cutoff_hz
    return rate / (2 * task.scale) if task.scale else None


def degradation_of(rule: Mapping, task: Column, rate: int):
    """How the input of a task is made at `rate` Hz. Raises UserError where it cannot be made so."""
    edge = band_edge(task, rate)
    return degradation(**{**rule["degradation"], **({"cutoff": edge} if edge else {})})


class Rows:
    """The rows of one table under one configuration and protocol."""

    def __init__(
        self, table: Table, config: Mapping, protocol: str, library: Library, runs: Runs, report: Callable
    ):
        self.table, self.config, self.protocol = table, config, protocol
        self.library, self.runs, self.report = library, runs, report
        self.outlines: dict[str, Stage] = {}  # of the runs that were checked, on the meta device

    def settings(self, row: Row) -> dict:
        """Of the method: the configuration's for the paper's own method, and the row's changes; resolved."""
        own = self.config["method"] if row.method == self.table.paper else {}
        return find_method(row.method).resolved({**own, **row.settings})

    def rule(self, row: Row, task: Column) -> dict:
        """The protocol, with what the row and the test set change about it, for a test."""
        changes = self.config["datasets"][task.dataset].get("protocol", {})
        rule = {**self.config["protocols"][self.protocol], **row.protocol, **changes}
        return {key: value for key, value in rule.items() if key != "training"}

    def runs_of(self, row: Row, task: Column) -> Runs:
        """The runs, trained on what the protocol and the row make of their data (`training`).

        A run whose degradation leaves its cut-off open (null) learns the task's, and one that leaves its
        mixture open learns from the one that is called as the task's dataset.
        """
        rules = (self.config["protocols"][self.protocol], row.protocol)
        data = OmegaConf.merge(*(rule.get("training", {}) for rule in rules))
        used = [self.config["runs"][run]["data"] for run in self.table.parts(row, task).values()]
        if any(run["degradation"].get("cutoff", "none") is None for run in used):
            data = OmegaConf.merge(data, {"degradation": {"cutoff": band_edge(task, self.rate(row, task))}})
        if any(run["mixture"] is None for run in used):
            data = OmegaConf.merge(data, {"mixture": task.dataset})
        return self.runs.under(OmegaConf.to_container(data))

    def rate(self, row: Row, task: Column) -> int:
        """Hz, of the row, or of the test set, or of all."""
        dataset = self.config["datasets"][task.dataset] if task.dataset else {}
        return row.data.get("rate", dataset.get("rate", self.config["data"]["rate"]))

    def files(self, row: Row, task: Column) -> int:
        """How many recordings a task scores."""
        return len(self.test_set(row, task)[0]) if task.dataset else 0

    def test_set(self, row: Row, task: Column):
        """Store and selection of a task's recordings, at most `data.test_files` of them."""
        corpus = corpus_of(self.config["datasets"][task.dataset])
        how = {"resampling": self.rule(row, task).get("resampling", "soxr")}
        store, selection = self.library.store(self.rate(row, task), self.table.split, **how, **corpus)
        return store.spread(self.config["data"]["test_files"]), selection

    def identity(self, row: Row, task: Column) -> dict:
        task_ = {"dataset": task.dataset, "scale": task.scale, "cutoff_hz": task.cutoff_hz, "loss": task.loss}
        table = {"table": self.table.config} if self.table.config else {}
        if task.dataset is None:  # what the paper's full networks have, whatever was trained
            full = configure(self.table.paper, "full", table=self.table.config)["runs"]
            built = {part: full[run] for part, run in self.table.parts(row, task).items()}
            return {
                "system": row.system,
                "method": row.method,
                "task": task_,
                **table,
                "metric": task.metric,
                "runs": built,
            }
        runs = self.runs_of(row, task)
        parts = {part: runs.folder(run).name for part, run in self.table.parts(row, task).items()}
        store, selection = self.test_set(row, task)
        return {
            "system": row.system,
            "method": row.method,
            "source": own_source(row.method),
            "versions": [find_method(row.method).version, versions.DEGRADATIONS, versions.METRICS],
            "settings": self.settings(row),
            "parts": parts,
            "task": task_,
            **table,
            "protocol": self.protocol,
            "rule": self.rule(row, task),
            "rate": self.rate(row, task),
            "split": self.table.split,
            "recordings": store.fingerprint,
            "average": self.config["datasets"][task.dataset]["average"],
            "stand_in": bool(selection.stand_in or self.config.get("corpus") or row.stand_in),
            "expected": selection.expected,
            "preset": self.config["preset"],
            "changes": self.changes(row, task),
            "seed": self.config["seed"],
        }

    def changes(self, row: Row, task: Column) -> list[str]:
        """Of the configuration's changes, those that the row follows from."""
        runs = self.runs_of(row, task)
        needed = {name for run in self.table.parts(row, task).values() for name in runs.needs(run)}

        def counts(change: str) -> bool:
            section, _, rest = change.partition(".")
            if not needed:
                return section in ("data", "datasets", "protocols")
            return section != "runs" or rest.partition(".")[0] in needed

        return [change for change in self.config["changes"] if counts(change)]

    def family(self, row: Row, task: Column) -> str:
        """The same for all seeds of this number, and for nothing else."""
        config = self.config | {"seed": None}
        runs = Runs(self.table.paper, config, self.library, self.report)
        seedless = Rows(self.table, config, self.protocol, self.library, runs, self.report)
        return identity_hash(seedless.identity(row, task))

    def folder(self, row: Row, task: Column) -> Path:
        return Path(self.config["output"]) / self.table.paper / identity_hash(self.identity(row, task))

    def method(self, row: Row, task: Column) -> SuperResolver:
        """The row's method from its trained parts. What fails here blocks the cell."""
        runs = self.runs_of(row, task)
        parts = {part: runs.stage(run) for part, run in self.table.parts(row, task).items()}
        return build_method(row.method, self.rate(row, task), parts, self.settings(row)).eval()

    def check(self, row: Row) -> None:
        """Raises UserError on a setting that a stage or the method refuses, before anything is trained."""
        found = tasks(self.table, row, self.config)
        for task in found:
            if task.dataset is None:
                continue
            if (average := self.config["datasets"][task.dataset]["average"]) not in ("file", "group"):
                raise UserError(f"datasets.{task.dataset}.average={average}: file or group.")
            rule = self.rule(row, task)
            if unknown := [name for name in rule["metrics"].values() if name not in METRICS]:
                raise UserError(f"unknown metric {unknown[0]}" + nearest(unknown[0], METRICS))
            for name in rule["metrics"].values():
                check_installed(name)
            degradation_of(rule, task, self.rate(row, task))
        wanted = {
            (self.runs_of(row, task), self.rate(row, task), *self.table.parts(row, task).items())
            for task in found
        }
        for runs, rate, *parts in wanted:
            for _, run in parts:
                runs.check(run)
                self.check_parts(row, dict(parts), run)
                trained_at = self.config["data"]["rate"]
                if rate != trained_at and "released" not in self.config["runs"][run]:
                    raise UserError(
                        f"{row.system} is trained at {trained_at} Hz, a test set of this table is at {rate}"
                        " Hz: set data.rate to that, or the test set to null."
                    )
            try:
                built = {part: count_parameters(self.config, run, self.outlines)[1] for part, run in parts}
                build_method(row.method, rate, built, self.settings(row))
            except UserError:
                raise
            except Exception as error:  # a method of one's own may raise anything
                raise UserError(f"{row.system} cannot be built: {cause(error)}") from error

    def check_parts(self, row: Row, parts: Mapping[str, str], run: str) -> None:
        """Raises UserError where a part of the method has learnt with another than the row's own."""
        for part, used in self.config["runs"][run]["uses"].items():
            if parts.get(part, used) != used:
                raise UserError(
                    f"{row.system}: {run} has learnt with {used}, but its {part} is {parts[part]}: a row of "
                    f"its own is needed, with both."
                )

    def test(self, row: Row, method: SuperResolver, task: Column, folder: Path, bar, progress) -> dict:
        """The record of one row on one task, which another process may have written meanwhile."""
        busy = f"{row.system} {task.key}: another process tests it, waiting"
        with alone(folder, busy, self.report, self.runs.until):
            return self.finished(row, task) or self.score(row, method, task, folder, bar, progress)

    def measure(
        self, row: Row, method: SuperResolver, task: Column, watching: Iterable[lightning.Callback] = ()
    ) -> Found:
        """Scores of this process's share of a task's recordings, of which it keeps the first few."""
        store, _ = self.test_set(row, task)
        rule, ranks = self.rule(row, task), self.runs.ranks
        data = PairDataModule(
            degradation_of(rule, task, self.rate(row, task)),
            rate=self.rate(row, task),
            seed=self.config["seed"],
            batch=self.config["data"]["test_batch"],
            test=store,
            crop=rule.get("crop"),
            peaks=rule.get("peaks", False),
            loaders=self.config["data"]["loaders"],
            share=(ranks.place.rank, ranks.size),
        )
        scores = Scores(rule["metrics"], rule["bits"])
        kept = self.folder(row, task) / "recordings"
        show = Showcase(kept, sorted(store.ids)[: self.config["pictures"]], self.report)
        options = own_device(self.config, ranks)
        callbacks = [scores, show, *watching]
        trainer = lightning.Trainer(logger=False, enable_checkpointing=False, callbacks=callbacks, **options)
        forget_peak(trainer.strategy.root_device)
        trainer.test(method, datamodule=data, verbose=False)
        return scores.found._replace(memory=peak_memory(trainer.strategy.root_device))

    def score(self, row: Row, method: SuperResolver, task: Column, folder: Path, bar, progress) -> dict:
        """Scores one row on one task, with all ranks, and writes its record."""
        store, _ = self.test_set(row, task)
        dataset = self.config["datasets"][task.dataset]
        average = dataset["average"]
        shown = TestProgress(bar, progress)
        mine = partial(self.measure, row, method, task, [shown])
        asked = (self.table, dict(self.config), self.protocol, row, task)
        scores = Found.joined(self.runs.ranks.together(mine, measure_along, *asked))
        shown.advance(len(scores.files) - shown.done)
        groups = dict(zip(store.ids, store.groups, strict=True))
        found = averages(scores.files, groups, average)
        identity = self.identity(row, task)
        if not found.mean:
            raise UserError(f"{row.system} on {task.dataset}: no finite score, so no number.")
        lacking = {metric: ids for metric, ids in found.not_finite.items() if not metric.endswith(HALVES)}
        for ids in dict.fromkeys(map(tuple, lacking.values())):
            metrics = ", ".join(metric for metric, missing in lacking.items() if tuple(missing) == ids)
            more = f" and {len(ids) - 8:,} more" if len(ids) > 8 else ""
            which = f"{', '.join(ids[:8])}{more}"
            told = f"{row.system} {task_name(identity['task'])}: no finite {metrics} of {which}"
            self.report(one_line(told))
        record = {
            "kind": "score",
            "id": folder.name,
            "family": self.family(row, task),
            "paper": self.table.paper,
            "system": row.system,
            **identity["task"],
            "preset": self.config["preset"],
            "changes": identity["changes"],
            "protocol": self.protocol,
            # The protocol as it is, not as the row or the test set changes it.
            "exact": not (row.protocol or row.data or {"protocol", "rate"} & dataset.keys()),
            "seed": self.config["seed"],
            "runs": identity["parts"],
            "identity": identity,
            "stand_in": identity["stand_in"],
            "expected": identity["expected"],
            "pictures": min(self.config["pictures"], len(store)),
            "files_used": len(scores.files),
            "average": average,
            **found._asdict(),
            "measured": sorted(scores.measured),
            "files": {id_: {**scores.files[id_], "group": groups[id_]} for id_ in sorted(scores.files)},
            "seconds": round(scores.seconds, 6),
            "audio_seconds": round(scores.audio_seconds, 3),
            "real_time_factor": round(scores.seconds / max(scores.audio_seconds, 1e-9), 4),
            "memory": scores.memory,
            "provenance": provenance(),
        }
        folder.mkdir(parents=True, exist_ok=True)
        write_yaml(folder / "config.yaml", self.config)
        write_json(folder / "record.json", record)
        write_page(folder)
        return record

    def count(self, row: Row, task: Column, folder: Path) -> dict:
        """Counts the parameters of a row's networks at their full size, and writes that as a record."""
        full = configure(self.table.paper, "full", table=self.table.config)
        total = sum(count_parameters(full, run)[0] for run in self.table.parts(row, task).values())
        identity = self.identity(row, task)
        record = {
            "kind": "count",
            "id": folder.name,
            "family": folder.name,
            "paper": self.table.paper,
            "system": row.system,
            **identity["task"],
            "preset": "full",
            "changes": [],
            "protocol": self.protocol,
            "seed": self.config["seed"],
            "runs": {},
            "identity": identity,
            "stand_in": False,
            "expected": None,
            "files_used": 0,
            "average": "file",
            **Averages({task.metric: total}, {}, {task.metric: 0}, {}, {})._asdict(),
            "files": {},
            "provenance": provenance(),
        }
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "record.json", record)
        return record

    def finished(self, row: Row, task: Column) -> dict | None:
        """The record of a task that needs no work; None where it is to do, or to do with more pictures."""
        record = read_record(self.folder(row, task))
        wanted = min(self.config["pictures"], self.files(row, task))
        return record if record and record.get("pictures", 0) >= wanted else None


def measure_along(
    ranks: Ranks, table: Table, config: Mapping, protocol: str, row: Row, task: Column
) -> Found:
    """What the other ranks do while rank 0 tests a row on a task."""
    choose_threads(config, ranks.place.local_size)
    if ranks.kept.get("asked") != (table, config, protocol):  # trained parts stay for the next task
        library = Library.of(config["data"], report=lambda line: None)
        runs = Runs(table.paper, config, library, lambda line: None, Deadline(), ranks)
        tester = Rows(table, config, protocol, library, runs, lambda line: None)
        ranks.kept = {"asked": (table, config, protocol), "tester": tester}
    tester = ranks.kept["tester"]
    return tester.measure(row, tester.method(row, task), task)
