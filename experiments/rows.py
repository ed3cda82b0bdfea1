"""Rows: a system tested on the tasks of its table's cells, each leaving a record of per-file scores."""

import itertools
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import fmean, pstdev

import lightning
from omegaconf import OmegaConf

from callbacks.progress import TestProgress
from callbacks.scores import Scores, Showcase
from datamodules.degradations import degradation
from datamodules.library import Library, corpus_of
from datamodules.pairs import PairDataModule
from experiments.configuration import LISTENER_METRICS, Column, Row, Table
from experiments.records import cause, identity_hash, provenance, read_record, write_json
from experiments.runs import Runs, count_parameters, trainer_options
from lightning_modules import build_method, find_method
from lightning_modules.super_resolver import SuperResolver
from signals.errors import UserError
from signals.metrics import METRICS


def tasks(table: Table, row: Row, config: Mapping) -> list[Column]:
    """One column of each task (dataset and cut-off or scale) that the row is tested on.

    A dataset that the configuration sets to null is left out.
    """
    cells = [c for c in table.cells(row) if c.metric not in LISTENER_METRICS]
    cells = [c for c in cells if config["datasets"][c.dataset]]
    return list({(c.dataset, c.scale, c.cutoff_hz, c.loss): c for c in cells}.values())


def means(
    files: Mapping[str, Mapping[str, float]], groups: Mapping[str, str], average: str
) -> tuple[dict, dict, dict]:
    """Mean and standard deviation by metric, and the files left out of them for want of a finite score.

    average: `file`, or `group` for the mean of the speakers' means. The deviation is over files.
    """
    mean, std, left_out = {}, {}, {}
    for metric in dict.fromkeys(itertools.chain.from_iterable(files.values())):
        values = {id_: scores[metric] for id_, scores in files.items()}
        finite = {id_: v for id_, v in values.items() if abs(v) < float("inf")}  # nan fails this, too
        if missing := sorted(set(values) - set(finite)):
            left_out[metric] = missing
        if finite:
            by_group: dict[str, list[float]] = {}
            for id_, value in finite.items():
                by_group.setdefault(groups[id_] if average == "group" else id_, []).append(value)
            mean[metric] = fmean(map(fmean, by_group.values()))
            std[metric] = pstdev(finite.values())
    return mean, std, left_out


class Rows:
    """The rows of one table under one configuration and protocol."""

    def __init__(
        self, table: Table, config: Mapping, protocol: str, library: Library, runs: Runs, report: Callable
    ):
        self.table, self.config, self.protocol = table, config, protocol
        self.library, self.runs, self.report = library, runs, report

    def settings(self, row: Row) -> dict:
        """Of the method: the configuration's for the paper's own method, and the row's changes; resolved."""
        own = self.config["method"] if row.method == self.table.paper else {}
        return find_method(row.method).resolved({**own, **row.settings})

    def rule(self, row: Row) -> dict:
        """The protocol, with what the row changes about it."""
        return {**self.config["protocols"][self.protocol], **row.protocol}

    def rate(self, row: Row) -> int:
        return row.data.get("rate", self.config["data"]["rate"])

    def test_set(self, row: Row, task: Column):
        """Store and selection of a task's recordings, at most `data.test_files` of them."""
        corpus = corpus_of(self.config["datasets"][task.dataset])
        store, selection = self.library.store(self.rate(row), "test", **corpus)
        return store.spread(self.config["data"]["test_files"]), selection

    def identity(self, row: Row, task: Column) -> dict:
        parts = {part: self.runs.folder(run).name for part, run in row.parts.items()}
        store, _ = self.test_set(row, task)
        task_ = {"dataset": task.dataset, "scale": task.scale, "cutoff_hz": task.cutoff_hz, "loss": task.loss}
        return {
            "system": row.system,
            "method": row.method,
            "settings": self.settings(row),
            "parts": parts,
            "task": task_,
            "protocol": self.protocol,
            "rule": self.rule(row),
            "rate": self.rate(row),
            "recordings": store.fingerprint,
            "preset": self.config["preset"],
            "changes": self.config["changes"],
            "seed": self.config["seed"],
        }

    def family(self, row: Row, task: Column) -> str:
        """The same for all seeds of this number, and for nothing else."""
        config = self.config | {"seed": None}
        runs = Runs(self.table.paper, config, self.library, self.report)
        seedless = Rows(self.table, config, self.protocol, self.library, runs, self.report)
        return identity_hash(seedless.identity(row, task))

    def folder(self, row: Row, task: Column) -> Path:
        return Path(self.config["output"]) / self.table.paper / identity_hash(self.identity(row, task))

    def method(self, row: Row) -> SuperResolver:
        """The row's method from its trained parts. What fails here blocks the row."""
        parts = {part: self.runs.stage(run) for part, run in row.parts.items()}
        return build_method(row.method, self.rate(row), parts, self.settings(row)).eval()

    def check(self, row: Row) -> None:
        """Raises UserError on a setting that a stage or the method refuses, before anything is trained."""
        for run in row.parts.values():
            self.runs.check(run)
        for task in tasks(self.table, row, self.config):
            if (average := self.config["datasets"][task.dataset]["average"]) not in ("file", "group"):
                raise UserError(f"datasets.{task.dataset}.average={average}: file or group.")
        rule = self.rule(row)
        if unknown := [name for name in rule["metrics"] if name not in METRICS]:
            raise UserError(f"unknown metric {unknown[0]}: one of {', '.join(METRICS)}.")
        degradation(**rule["degradation"], cutoff=1000)
        try:
            parts = {part: count_parameters(self.config, run)[1] for part, run in row.parts.items()}
            build_method(row.method, self.rate(row), parts, self.settings(row))
        except (TypeError, ValueError) as error:
            raise UserError(f"{row.system} cannot be built: {cause(error)}") from None

    def test(self, row: Row, method: SuperResolver, task: Column, folder: Path, bar, progress) -> dict:
        """Scores one row on one task and writes its record."""
        store, selection = self.test_set(row, task)
        rule, average = self.rule(row), self.config["datasets"][task.dataset]["average"]
        data = PairDataModule(
            degradation(**rule["degradation"], cutoff=task.cutoff_hz),
            rate=self.rate(row),
            seed=self.config["seed"],
            batch=self.config["data"]["test_batch"],
            test=store,
            loaders=self.config["data"]["loaders"],
        )
        scores = Scores(rule["metrics"], rule["bits"])
        show = Showcase(folder / "recordings", sorted(store.ids)[: self.config["pictures"]])
        options = trainer_options(self.config) | {"devices": 1, "num_nodes": 1, "strategy": "auto"}
        callbacks = [scores, show, TestProgress(bar, progress)]
        trainer = lightning.Trainer(logger=False, enable_checkpointing=False, callbacks=callbacks, **options)
        started = time.perf_counter()
        trainer.test(method, datamodule=data, verbose=False)
        seconds = time.perf_counter() - started
        groups = dict(zip(store.ids, store.groups, strict=True))
        mean, std, not_finite = means(scores.files, groups, average)
        if not mean:
            raise UserError(f"{row.system} on {task.dataset}: no finite score, so no number.")
        for metric, ids in not_finite.items():
            self.report(
                f"{row.system} {task.key}: no finite {metric} for {', '.join(ids)}, left out of its mean"
            )
        identity = self.identity(row, task)
        record = {
            "kind": "score",
            "id": folder.name,
            "family": self.family(row, task),
            "paper": self.table.paper,
            "system": row.system,
            **identity["task"],
            "preset": self.config["preset"],
            "changes": self.config["changes"],
            "protocol": self.protocol,
            "exact": not (row.protocol or row.data),  # the protocol as it is, not as the row changes it
            "seed": self.config["seed"],
            "runs": identity["parts"],
            "identity": identity,
            "stand_in": selection.stand_in,
            "expected": selection.expected,
            "files_used": len(scores.files),
            "not_finite": not_finite,
            "mean": mean,
            "std": std,
            "files": {id_: {**scores.files[id_], "group": groups[id_]} for id_ in sorted(scores.files)},
            "seconds": round(seconds, 3),
            "real_time_factor": round(seconds / max(scores.audio_seconds, 1e-9), 4),
            "provenance": provenance(),
        }
        folder.mkdir(parents=True, exist_ok=True)
        OmegaConf.save(OmegaConf.create(dict(self.config)), folder / "config.yaml")
        write_json(folder / "record.json", record)
        return record

    def finished(self, row: Row, task: Column) -> dict | None:
        """The record of a task that needs no work; None where its runs or the test are still to do."""
        return read_record(self.folder(row, task))
