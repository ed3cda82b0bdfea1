"""Records: what a finished run or row leaves, written atomically; and what a measured number is worth."""

import hashlib
import json
import os
import platform
import subprocess
import time
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.metadata import version
from pathlib import Path

import yaml

from signals.errors import UserError
from signals.files import replacing

STANDINGS = ("reproduction", "partial", "demo", "stand-in", "untrained")  # from the best to the worst


def identity_hash(identity: Mapping) -> str:
    """Twelve hexadecimal digits that name a run or row by what it is."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:12]


def file_hash(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@cache
def _hash_of(path: Path, size: int, modified: int) -> str:
    return file_hash(path)


def known_hash(path: Path) -> str:
    """`file_hash` of a file that is asked for again and again: computed once until it changes."""
    stat = path.stat()
    return _hash_of(path.resolve(), stat.st_size, stat.st_mtime_ns)


def write_json(path: Path, value: Mapping) -> None:
    with replacing(path) as partial:
        partial.write_text(json.dumps(value, indent=1, sort_keys=True))


def write_yaml(path: Path, value: Mapping) -> None:
    dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)  # ten times as fast
    with replacing(path) as partial:
        partial.write_text(yaml.dump(dict(value), Dumper=dumper, sort_keys=False, allow_unicode=True))


def read_record(folder: Path) -> dict | None:
    """The record of a finished run or row, None where it is not finished.

    Raises UserError where it is damaged.
    """
    path = folder / "record.json"
    if not path.is_file():
        return None
    try:
        return json.loads(path.read_text())
    except ValueError:  # not JSON, or not text
        raise UserError(f"{path} is damaged: remove {folder} to make it again.") from None


def all_records(output: Path, paper: str) -> Iterator[dict]:
    for path in sorted((output / paper).glob("*/record.json")):
        yield read_record(path.parent)


def _accelerator() -> str:
    import torch

    return f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""


def provenance() -> dict:
    """Commit, versions, machine and time."""
    here = Path(__file__).parent
    git = ["git", "-C", str(here)]
    try:
        commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True).stdout.strip()
        dirty = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True).stdout.strip()
    except OSError:  # no git on this machine
        commit, dirty = "", ""
    packages = ("torch", "torchaudio", "lightning", "diffusers", "numpy", "scipy")
    return {
        "commit": commit + ("+changes" if dirty else ""),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in packages},
        "machine": f"{platform.machine()}, {os.cpu_count()} cores{_accelerator()}",
        "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def task_name(record: Mapping) -> str:
    """What a row was tested on, as `vctk, 4 kHz`."""
    band = f"{record['cutoff_hz'] / 1000:g} kHz" if record["cutoff_hz"] else ""
    scale = f"x{record['scale']}" if record["scale"] else ""
    return ", ".join(part for part in (record["dataset"], scale, band, record["loss"]) if part)


def cell_name(system: str, record: Mapping) -> str:
    """What is scored, as `AudioSR on vctk, 4 kHz`."""
    return f"{system} on {task_name(record)}"


def files_scored(record: Mapping, metric: str) -> int:
    """How many recordings are in a mean: those without a finite score are not."""
    return record["files_used"] - len(record["not_finite"].get(metric, []))


def cause(error: BaseException) -> str:
    """The first line of what went wrong, with its kind unless it is made for the user."""
    line = next((line for line in str(error).splitlines() if line.strip()), "")
    return line if isinstance(error, UserError) else f"{type(error).__name__}: {line}".rstrip(": ")


def standing(record: Mapping, unprocessed: float | None, lower_is_better: bool, metric: str) -> str:
    """What a measured cell is worth (README). unprocessed: the same cell of the unprocessed input."""
    if record["kind"] == "count":
        return "reproduction"
    value = record["mean"].get(metric)
    trained = bool(record["runs"])
    if trained and unprocessed is not None and value is not None:
        worse = value > unprocessed if lower_is_better else value < unprocessed
        if worse:
            return "untrained"
    if record["stand_in"]:
        return "stand-in"
    if record["preset"] != "full":
        return "demo"
    whole = files_scored(record, metric) == record["expected"]
    exact = record["exact"] and record["protocol"] == "published" and not record["changes"]
    judged = not trained or unprocessed is not None  # the unprocessed input was scored beside it
    return "reproduction" if whole and exact and judged else "partial"
