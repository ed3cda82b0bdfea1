"""Whether records say what is in their folders: names, weights, means, and recordings scored again."""

import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import torch
import yaml

from callbacks.scores import Scores
from datamodules.pairs import Batch, PairDataModule, item_seed
from experiments.averages import averages
from experiments.configuration import Column
from experiments.records import file_hash, identity_hash, read_record, task_name
from experiments.rows import degradation_of
from signals.audio_files import Unreadable, read_audio
from signals.errors import UserError
from signals.names import file_names
from signals.types import Pair, Signal

TOLERANCE = 1e-4  # relative, and absolute below 1: another batch, thread or device rounds otherwise


def close(value: float, other: float) -> bool:
    """Within the tolerance, or both nan, or both the same infinity."""
    both_nan = math.isnan(value) and math.isnan(other)
    return both_nan or math.isclose(value, other, rel_tol=TOLERANCE, abs_tol=TOLERANCE)


def read_recording(path: Path) -> Signal:
    """[1, 1, T]. Raises UserError where it is missing or damaged."""
    try:
        wave, rate = read_audio(path)
    except Unreadable:
        name, state = f"{path.parent.name}/{path.name}", "damaged" if path.is_file() else "missing"
        raise UserError(f"{name} is {state}") from None
    return Signal.of(torch.from_numpy(wave.T)[None], rate)


def saved(folder: Path, record: Mapping) -> list[str]:
    """Ids of the recordings that the test kept: the first few, as its configuration says."""
    config = folder / "config.yaml"
    if not config.is_file():
        raise UserError("config.yaml is missing")
    return sorted(record["files"])[: yaml.safe_load(config.read_text())["pictures"]]


def pair_again(reference: Signal, id_: str, identity: Mapping) -> Pair:
    """The pair of a recording as the test had it, with the band edge that its degradation gives."""
    task = Column("", metric="", **identity["task"])
    made = degradation_of(identity["rule"], task, identity["rate"])
    seeds = torch.tensor([item_seed(identity["seed"], "test", id_)])
    data = PairDataModule(made, rate=identity["rate"], seed=identity["seed"])
    return data.on_after_batch_transfer(Batch(reference, [id_], seeds, 0), 0)


def scored_again(folder: Path, id_: str, name: str, identity: Mapping) -> dict[str, float]:
    """Scores of one saved recording by the rule of its record. name: of its files."""
    waves = [
        read_recording(folder / "recordings" / kind / f"{name}.wav") for kind in ("estimate", "reference")
    ]
    estimate, reference = waves
    if estimate.rate != reference.rate or estimate.wave.shape != reference.wave.shape:
        raise UserError(f"{name}: estimate and reference differ in rate or length")
    scores = Scores(identity["rule"]["metrics"], identity["rule"]["bits"])
    scores.add(estimate, pair_again(reference, id_, identity))
    return scores.files[id_]


def drifts(kind: str, found: Mapping[str, float], recorded: Mapping[str, float]) -> Iterator[str]:
    """What differs from the record."""
    for metric in sorted(recorded.keys() | found.keys()):
        value, before = found.get(metric, math.nan), recorded.get(metric, math.nan)
        if not close(value, before):
            yield f"{kind}: {metric} is {value:.6g}, the record says {before:.6g}"


def check_score(folder: Path, record: Mapping) -> tuple[list[str], str]:
    """What is wrong with a scored row, and what was looked at."""
    groups = {id_: scores["group"] for id_, scores in record["files"].items()}
    files = {id_: {m: v for m, v in s.items() if m != "group"} for id_, s in record["files"].items()}
    found = averages(files, groups, record["average"])
    wrong = [*drifts("mean of files", found.mean, record["mean"]), *drifts("std", found.std, record["std"])]
    try:
        ids = saved(folder, record)
    except UserError as error:
        return [*wrong, str(error)], ""
    by_method = set(record.get("measured", ())) - set(record["identity"]["rule"]["metrics"])
    if not ids:
        wrong.append("no recordings were saved (pictures=0), so nothing can be scored again")
    names = file_names(files)
    for id_ in ids:
        try:
            recorded = {m: v for m, v in files[id_].items() if m not in by_method}
            wrong += drifts(id_, scored_again(folder, id_, names[id_], record["identity"]), recorded)
        except UserError as error:
            wrong.append(str(error))
    not_again = f", but for {', '.join(sorted(by_method))}, which no waveform shows" if by_method else ""
    return wrong, f"{len(ids)} of {len(files)} files scored again{not_again}"


def check_run(folder: Path, record: Mapping) -> tuple[list[str], str]:
    """What is wrong with a run, and what was looked at."""
    weights = folder / "weights.safetensors"
    if not weights.is_file():
        return ["weights.safetensors is missing"], ""
    if "weights" not in record:
        return ["the record does not say the hash of its weights"], ""
    wrong = [] if file_hash(weights) == record["weights"] else ["weights.safetensors is not what was trained"]
    return wrong, "weights are those of the record"


def check(folder: Path) -> tuple[str, list[str], str]:
    """What a folder's record is of, what is wrong with it, and what was looked at."""
    try:
        record = read_record(folder)
    except UserError as error:
        return "", [str(error)], ""
    if record["kind"] == "run":
        name, (wrong, looked) = f"run {record['run']}", check_run(folder, record)
    elif record["kind"] == "count":
        name, wrong, looked = f"{record['system']} {task_name(record)}", [], "a count, nothing to score again"
    else:
        name, (wrong, looked) = f"{record['system']} {task_name(record)}", check_score(folder, record)
    if not folder.resolve().name == record["id"] == identity_hash(record["identity"]):
        wrong.insert(0, f"its identity has the hash {identity_hash(record['identity'])}")
    return name, wrong, looked


def verify(place: Path, report: Callable[[str], None]) -> int:
    """Checks the record in a folder, or all below it; a line each. Returns 1 where one is not verified.

    Raises UserError where there is none.
    """
    folders = [path.parent for path in sorted(place.rglob("record.json"))]
    if not folders:
        raise UserError(f"{place}: no record.json there or below.")
    failed = 0
    for folder in folders:
        name, wrong, looked = check(folder)
        failed += bool(wrong)
        verdict = f"NOT verified: {'; '.join(wrong)}" if wrong else f"verified, {looked}"
        report(" ".join(filter(None, [str(folder), name])) + f": {verdict}")
    report(f"{len(folders) - failed} of {len(folders)} records verified (tolerance {TOLERANCE:g})")
    return 1 if failed else 0
