"""Records: what a finished run or row leaves, written atomically; and what a measured number is worth."""

import hashlib
import json
import os
import platform
import subprocess
import time
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path

STANDINGS = ("reproduction", "partial", "demo", "stand-in", "untrained")  # from the best to the worst


def identity_hash(identity: Mapping) -> str:
    """Twelve hexadecimal digits that name a run or row by what it is."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:12]


def write_json(path: Path, value: Mapping) -> None:
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(value, indent=1, sort_keys=True))
    os.replace(partial, path)


def read_record(folder: Path) -> dict | None:
    """The record of a finished run or row, None where it is not finished."""
    path = folder / "record.json"
    return json.loads(path.read_text()) if path.is_file() else None


def all_records(output: Path, paper: str) -> Iterator[dict]:
    for path in sorted((output / paper).glob("*/record.json")):
        yield json.loads(path.read_text())


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
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def standing(record: Mapping, unprocessed: float | None, lower_is_better: bool, metric: str) -> str:
    """What a measured cell is worth (DESIGN, Words). unprocessed: the same cell of the unprocessed input."""
    value = record["mean"].get(metric)
    if record["runs"] and unprocessed is not None and value is not None:
        worse = value > unprocessed if lower_is_better else value < unprocessed
        if worse:
            return "untrained"
    if record["stand_in"]:
        return "stand-in"
    if record["preset"] != "full":
        return "demo"
    whole = record["expected"] is None or record["files_used"] == record["expected"]
    exact = whole and record["protocol"] == "published" and not record["changes"]
    return "reproduction" if exact else "partial"
