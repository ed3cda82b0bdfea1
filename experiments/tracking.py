"""Weights & Biases: one run for each row (and seed) of a command, with all that the row leaves."""

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from lightning.pytorch.loggers.logger import Logger

from callbacks.curves import CurveLogger, WandbCurves
from experiments.compare import FIELDS, lines
from experiments.configuration import Row, load_table
from experiments.plan import wanted_runs
from experiments.ranks import Abandoned
from experiments.records import cause, cell_name, identity_hash, read_record, task_name
from experiments.rows import Rows, tasks
from signals.names import file_names, shortened, wandb_name

STOPPED = 255  # the exit code by which W&B knows a run that was stopped, not one that failed
NUMBERS = ("reproduced", "measured", "std")  # which a line of the CSV has as text


def wandb_mode() -> str | None:
    """`online` with an account, `offline` where asked for, None otherwise: no account is never an error."""
    mode = os.environ.get("WANDB_MODE", "online")
    if mode == "offline":
        return mode
    if mode == "disabled":
        return None
    netrc = Path(os.environ.get("NETRC", Path.home() / ".netrc"))
    account = os.environ.get("WANDB_API_KEY") or (netrc.is_file() and "wandb" in netrc.read_text())
    return "online" if account else None


@contextmanager
def tracked(tester: Rows, row: Row, report: Callable[[str], None]) -> Iterator[None]:
    """A W&B run while a row is trained and tested; what the row has left is logged at its end.

    None without an account, nor where nothing is to do (but under a sweep, whose agent waits for the result).
    Where W&B fails, that is reported, and the row goes on without.
    """
    run = begin(tester, row, report) if wandb_mode() else None
    if run is None:
        yield
        return
    untrained = {
        name: folder for name, folder in trainings(tester, row).items() if read_record(folder) is None
    }
    code = 1
    try:
        yield
        with spared(row, report):
            log_row(run, tester, row)
            for name, folder in untrained.items():
                log_training(run, name, folder)
        code = 0 if not unfinished(tester, row) else STOPPED if tester.runs.until.over else 1
    except Abandoned:
        raise
    except (KeyboardInterrupt, SystemExit):  # Lightning turns Ctrl-C into SystemExit
        code = STOPPED
        raise
    finally:
        with spared(row, report):
            run.finish(exit_code=code)


@contextmanager
def spared(row: Row, report: Callable[[str], None]) -> Iterator[None]:
    """What W&B fails in costs no training and no row: it is reported, and this command goes on without."""
    try:
        yield
    except Exception as error:
        report(f"{row.system}: W&B failed, and is left out from here on: {cause(error)}")
        os.environ["WANDB_MODE"] = "disabled"


def begin(tester: Rows, row: Row, report: Callable[[str], None]):
    """The W&B run of a row, open, under the same id whenever and wherever that row is done; or None."""
    swept = "WANDB_SWEEP_ID" in os.environ
    if not swept and not unfinished(tester, row):
        return None
    import wandb

    table, config = tester.table, tester.config
    cells = [tester.folder(row, task).name for task in tasks(table, row, config)]
    place = {"project": os.environ.get("WANDB_PROJECT", "wideband"), "id": identity_hash({"cells": cells})}
    Path(config["output"]).mkdir(parents=True, exist_ok=True)
    with spared(row, report):
        run = wandb.init(
            **({} if swept else place),  # which a sweep has chosen
            group=f"{table.paper} {table.name}",
            name=shortened(f"{told(tester, row)} {config['preset']} seed {config['seed']}", 128),
            job_type="training" if trainings(tester, row) else "test",
            tags=[table.paper, table.name, config["preset"], tester.protocol],
            notes=table.title,
            config=coordinates(tester, row),
            dir=os.environ.get("WANDB_DIR", config["output"]),
            resume="allow",
        )
        for name in trainings(tester, row):
            run.define_metric(f"{name}/step", hidden=True)
            run.define_metric(f"{name}/*", step_metric=f"{name}/step")
        return run
    return None


def unfinished(tester: Rows, row: Row) -> bool:
    return any(tester.finished(row, task) is None for task in tasks(tester.table, row, tester.config))


def told(tester: Rows, row: Row) -> str:
    """The row, and where not all of its table is asked for, what it is tested on."""
    table = tester.table
    if len(table.columns) == len(load_table(table.paper, table.name).columns):
        return row.system
    names = [task_name(vars(task)) for task in tasks(table, row, tester.config)]
    return f"{row.system} on {' and '.join(names)}" if any(names) else row.system


def trainings(tester: Rows, row: Row) -> dict[str, Path]:
    """Folders of all runs behind a row by their names, with the hash where several have the same."""
    wanted = [(name, runs.folder(name)) for runs, name in wanted_runs(tester, [row])]
    names = [name for name, _ in wanted]
    return {name if names.count(name) == 1 else f"{name} {folder.name}": folder for name, folder in wanted}


def coordinates(tester: Rows, row: Row) -> dict:
    """The resolved configuration, and which row of which table it is, with the hashes of all behind it."""
    found = tasks(tester.table, row, tester.config)
    names = [task_name(vars(task)) or task.metric for task in found]
    return {
        **tester.config,
        "method": {"name": row.method, **tester.settings(row)},
        "paper": tester.table.paper,
        "table": tester.table.name,
        "row": row.system,
        "protocol": tester.protocol,
        "tasks": names,
        "hashes": {
            "cells": {name: tester.folder(row, task).name for name, task in zip(names, found, strict=True)},
            "runs": {name: folder.name for name, folder in trainings(tester, row).items()},
        },
    }


def loggers(folder: Path, name: str, report: Callable[[str], None]) -> list[Logger]:
    """Of the curves of a training: in its folder, and in the W&B run of its row where one is open."""
    wandb = sys.modules.get("wandb")
    if not wandb_mode() or wandb is None or wandb.run is None:
        return [CurveLogger(folder)]
    hashes = wandb.run.config.get("hashes", {}).get("runs", {})
    names = {hash_: its_name for its_name, hash_ in hashes.items()}
    return [CurveLogger(folder), WandbCurves(wandb.run, names.get(folder.name, name), report)]


def log_row(run, tester: Rows, row: Row) -> None:
    """Scores into the summary; the table, recordings and their spectrograms into the history."""
    import wandb

    for task in tasks(tester.table, row, tester.config):
        if record := tester.finished(row, task):
            name = task_name(record)
            values = {f"{name}/{metric}" if name else metric: v for metric, v in record["mean"].items()}
            run.summary.update(values)
            run.log(showcase(record, tester.folder(row, task)))
    config = tester.config
    found = lines(tester.table, Path(config["output"]), config["preset"], tester.protocol)
    found = [line for line in found if line["published"] != "" or line["run"]]
    data = [[number_or_text(field, line[field]) for field in FIELDS] for line in found]
    run.log({"table": wandb.Table(columns=list(FIELDS), data=data, allow_mixed_types=True)})


def number_or_text(field: str, value: object) -> object:
    """What a cell of the CSV is in W&B, where numbers can be sorted by; None where it is empty."""
    if value == "":
        return None
    return float(value) if field in NUMBERS else value


def showcase(record: Mapping, folder: Path) -> dict[str, list]:
    """The recordings that a cell has kept, to hear and to see."""
    import wandb

    shown: dict[str, list] = {}
    cell = cell_name(record["system"], record)
    kept, names = folder / "recordings", file_names(record["files"])
    for id_ in sorted(record["files"])[: record.get("pictures", 0)]:
        name = names[id_]
        for kind in ("input", "estimate", "reference"):
            audio = wandb.Audio(str(kept / kind / f"{name}.wav"), caption=f"{id_}, {kind}: {cell}")
            shown.setdefault(f"{task_name(record)}/{kind}", []).append(audio)
        if (kept / f"{name}.png").is_file():
            picture = wandb.Image(str(kept / f"{name}.png"), caption=f"{id_}: {cell}")
            shown.setdefault(f"{task_name(record)}/spectrograms", []).append(picture)
    return shown


def log_training(run, name: str, folder: Path) -> None:
    """The loss curves of a run that has been trained, and its weights; nothing where it was not."""
    import wandb

    record = read_record(folder)
    if record is None or "released" in record["identity"]:  # these are their authors' to give
        return
    if (folder / "curves.png").is_file():
        run.log({f"curves/{name}": wandb.Image(str(folder / "curves.png"), caption=f"{name} {folder.name}")})
    metadata = {key: record[key] for key in ("id", "preset", "parameters", "held_out")}
    title = wandb_name(f"{record['paper']}-{record['run']}")
    artifact = wandb.Artifact(title, type="model", metadata=metadata)
    for file in ("weights.safetensors", "record.json", "config.yaml"):
        artifact.add_file(str(folder / file), policy="immutable")  # gigabytes are not copied
    run.log_artifact(artifact, aliases=[folder.name])
