"""Two sets of scores on the same files: what a change of method, setting or seed is worth."""

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from experiments.averages import grouped, mean_of, paired
from experiments.configuration import PRESETS
from experiments.records import read_record, task_name
from signals.errors import UserError

TASK = ("paper", "dataset", "scale", "cutoff_hz", "loss")
TOTALS = ["mean", "std", "n", "interval low", "interval high"]  # the last lines of a CSV of evaluate.py
NO_SCORES = ("file", "lag", "level", "polarity", "rule")  # among its columns


class Scored(NamedTuple):
    """What was read from one place. alone: it is one record, named as such."""

    path: Path
    records: list[dict]
    alone: bool


def read_scores_csv(path: Path) -> dict:
    """A CSV of evaluate.py as a record without a task. Raises UserError where it is something else."""
    try:
        return _read_scores_csv(path)
    except (csv.Error, KeyError, TypeError, ValueError):  # not text, not its columns, not numbers
        raise UserError(f"{path} is not a CSV of evaluate.py.") from None


def _read_scores_csv(path: Path) -> dict:
    with path.open(newline="") as text:
        lines = list(csv.DictReader(text))
    if [line.get("file") for line in lines[-len(TOTALS) :]] != TOTALS:
        raise ValueError
    rule = json.loads(lines[-len(TOTALS)]["rule"])
    columns = [name for name in lines[0] if name not in NO_SCORES]
    files = {
        line["file"]: {name: float(line[name]) for name in columns}
        | {"group": line["file"].partition("/")[0] if "/" in line["file"] else ""}
        for line in lines[: -len(TOTALS)]
    }
    rate = rule["rates"][0] if len(rule["rates"]) == 1 else rule["rates"]
    identity = {"rule": {key: rule[key] for key in ("metrics", "bits")}, "rate": rate}
    task = dict.fromkeys(TASK) | {"cutoff_hz": rule["cutoff"]}
    more = {"average": rule["average"], "protocol": None, "preset": None, "seed": 0, "id": str(path)}
    return {"system": path.stem, "identity": identity, "files": files, **task, **more}


def read_scored(path: Path, paper: str | None, preset: str | None, protocol: str | None) -> Scored:
    """A record, a CSV, or all records of scored rows below a folder, of this paper, preset and protocol."""
    if path.is_file():
        return Scored(path, [read_scores_csv(path)], True)
    if not path.is_dir():
        raise UserError(f"no such folder or file: {path}.")
    if record := read_record(path):
        if record["kind"] == "count":
            raise UserError(f"{path} counts the parameters of {record['system']}: it has no scores.")
        if record["kind"] == "run":
            raise UserError(f"{path} is the run {record['run']}: the rows that it is part of have scores.")
        return Scored(path, [record], True)
    wanted = {"paper": paper, "preset": preset, "protocol": protocol}
    wanted = {key: value for key, value in wanted.items() if value}
    found = [read_record(file.parent) for file in sorted(path.rglob("record.json"))]
    found = [r for r in found if r["kind"] == "score" and wanted.items() <= r.items()]
    if not found:
        raise UserError(f"{path}: no scored row" + (f" of {', '.join(wanted.values())}." if wanted else "."))
    return Scored(path, found, False)


def by_row(scored: Scored) -> dict[tuple, dict]:
    """One record for each row of a table and seed: of the largest preset the newest."""
    ordered = scored.records
    if not scored.alone:
        ordered = sorted(ordered, key=lambda r: (PRESETS.index(r["preset"]), r["provenance"]["finished"]))
    return {(*(r[key] for key in TASK), r["system"], r["seed"]): r for r in ordered}


def pairs(a: Scored, b: Scored) -> list[tuple[dict, dict]]:
    """What is compared with what. Raises UserError where nothing can be."""
    if a.alone and b.alone:
        return [(a.records[0], b.records[0])]
    ours, theirs = by_row(a), by_row(b)
    shared = [key for key in ours if key in theirs]
    if not shared:
        raise UserError(f"{a.path} and {b.path} have no row in common: the same system, task and seed.")
    return [(ours[key], theirs[key]) for key in shared]


def check_comparable(a: Mapping, b: Mapping) -> None:
    """Raises UserError where two numbers under one name would not mean the same."""
    ours, theirs = a["identity"], b["identity"]

    def refuse(what: str, mine: object, other: object) -> None:
        if mine is not None and other is not None and mine != other:
            raise UserError(f"{a['id']} and {b['id']} cannot be compared: {what} {mine} and {other}.")

    if a["dataset"] and b["dataset"]:
        refuse("tested on", *(f"{r['paper']} {task_name(r)}" for r in (a, b)))
    refuse("protocol", a["protocol"], b["protocol"])
    refuse("averaged by", a["average"], b["average"])
    refuse("rate", ours["rate"], theirs["rate"])
    refuse("stored in bits", *(str(one["rule"]["bits"]) for one in (ours, theirs)))
    refuse("degradation", ours["rule"].get("degradation"), theirs["rule"].get("degradation"))
    for name, metric in ours["rule"]["metrics"].items():
        refuse(f"{name} by", metric, theirs["rule"]["metrics"].get(name))


def metrics_of(a: Mapping, b: Mapping) -> list[str]:
    """The metrics both have; those of a band only where its edge is the same."""
    scores, others = (next(iter(record["files"].values())) for record in (a, b))
    both = [name for name in scores if name in others and name != "group"]
    same_edge = (a["scale"], a["cutoff_hz"]) == (b["scale"], b["cutoff_hz"])
    return both if same_edge else [name for name in both if name in a["identity"]["rule"]["metrics"]]


def line_of(a: Mapping, b: Mapping, metric: str) -> dict | None:
    """Means and difference over the files that both have a finite score of; None where there is none."""
    ours, theirs = ({id_: s.get(metric, float("nan")) for id_, s in r["files"].items()} for r in (a, b))
    shared = [id_ for id_ in ours if id_ in theirs and abs(ours[id_] - theirs[id_]) < float("inf")]
    if not shared:
        return None
    groups = {id_: scores["group"] for id_, scores in a["files"].items()}
    means = [mean_of(grouped({i: r[i] for i in shared}, groups, a["average"])) for r in (ours, theirs)]
    line = {key: a[key] for key in TASK}
    line |= {"task": f"{a['paper']} {task_name(a)}" if a["dataset"] else task_name(a), "metric": metric}
    line["system"] = a["system"] if a["system"] == b["system"] else f"{a['system']} - {b['system']}"
    line |= {"a": means[0], "b": means[1], "difference": means[0] - means[1], "files": len(shared)}
    line |= {"record_a": a["id"], "record_b": b["id"], "low": "", "high": "", "p": ""}
    if found := paired(ours, theirs, groups, a["average"]):
        low, high = found.interval or ("", "")
        line |= {"low": low, "high": high, "p": found.p}
    return line


def differences(a: Scored, b: Scored) -> tuple[list[dict], list[str]]:
    """A line for each pair of records and metric, and what the reader must know.

    Raises UserError where there is nothing to compare or the numbers do not mean the same.
    """
    matched = pairs(a, b)
    for pair in matched:
        check_comparable(*pair)
    found = [line for pair in matched for metric in metrics_of(*pair) if (line := line_of(*pair, metric))]
    if not found:
        raise UserError(f"{a.path} and {b.path} have no metric of any file in common.")
    notes = []
    for name, side, scored in (("A", 0, a), ("B", 1, b)):
        chosen = [pair[side] for pair in matched]
        kinds = sorted({f"{r['preset']}, {r['protocol']}" for r in chosen if r["preset"]})
        notes.append(f"{name}: {scored.path}" + (f" ({'; '.join(kinds)})" if kinds else ""))
        if rest := len(scored.records) - len(chosen):
            notes.append(
                f"{rest} records of {name} stand aside: without counterpart, older, or a smaller preset"
            )
    for ours, theirs in matched:
        if alone := len(ours["files"].keys() ^ theirs["files"].keys()):
            notes.append(f"{task_name(ours)} {ours['system']}: {alone} files are in one set only".strip())
    notes.append("A - B: mean over the same files; interval by bootstrap over files; p by random signs")
    return found, notes
