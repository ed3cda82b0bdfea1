"""Any folder of audio, and ESC-50."""

import csv
from collections.abc import Iterable
from pathlib import Path

from datamodules.corpora.listing import contents
from datamodules.corpora.selection import (
    Item,
    Selection,
    demand,
    demand_audio,
    ids_of,
    split_groups,
    without,
)
from datamodules.demo_corpus import is_demo
from signals.errors import UserError

# Any folder -----------------------------------------------------------------------------------------------


def folder(
    root: Path, split: str, path: str, leave_out: str | Iterable[str] = (), min_bandwidth: float = 0
) -> Selection:
    """`path` below `root`, one subfolder a speaker (or source); files beside them form groups of their own.

    leave_out: patterns of groups to leave out (speakers that are test speakers elsewhere). min_bandwidth: Hz.
    """
    base = demand(
        root / Path(path).expanduser(),
        path,
        f"Put audio into {path}/<speaker or source>/ below {root} (data.root, or a root of its own), "
        "or choose other parts.",
    )
    found = demand_audio(base, path, split)
    files = {file: file.relative_to(base) for file in found}
    items = []
    for (file, inside), id_ in zip(files.items(), ids_of(files.values()), strict=True):
        items.append(Item(file, id_, inside.parts[0] if len(inside.parts) > 1 else inside.stem))
    items = without(items, leave_out)
    if not items:
        raise UserError(
            f"corpus {path}: leave_out={leave_out} leaves none of {len(files):,} files below {base}."
        )
    groups = {item.group for item in items}
    if len(groups) < 3:
        raise UserError(f"corpus {path}: a split needs three subfolders (speakers or sources) below {base}.")
    chosen = split_groups(groups, split)
    return Selection(
        path,
        split,
        tuple(item for item in items if item.group in chosen),
        None,
        stand_in=is_demo(root),
        min_bandwidth=min_bandwidth,
        left_out=found.left_out,
    )


# ESC-50 ---------------------------------------------------------------------------------------------------

ESC50_WHERE = "ESC-50 is at https://github.com/karolpiczak/ESC-50: unpack it as ESC-50/ below data.root."
ESC50_FOLDS = {"train": (1, 2, 3), "validation": (4,), "test": (5,)}  # AudioSR tests on fold 5


def esc50(root: Path, split: str) -> Selection:
    """ESC-50 by its folds, which keep clips of one recording together: 5 is test, 400 clips a fold."""
    base = demand(root / "ESC-50", "esc50", ESC50_WHERE)
    table = base / "meta" / "esc50.csv"
    if not table.is_file():
        raise UserError(f"corpus esc50: no {table}. {ESC50_WHERE}")
    folds = ESC50_FOLDS[split]
    with table.open(newline="") as lines:
        reader = csv.DictReader(lines)
        if not {"filename", "fold"} <= set(reader.fieldnames or ()):
            raise UserError(f"corpus esc50: {table} has no columns filename and fold. {ESC50_WHERE}")
        rows = [row for row in reader if row["fold"] in map(str, folds)]
    items = [Item(base / "audio" / r["filename"], Path(r["filename"]).stem, f"fold{r['fold']}") for r in rows]
    present = tuple(sorted((item for item in items if item.path.is_file()), key=lambda item: item.id))
    if items and not present:
        audio = base / "audio"
        instead = contents(audio) if audio.is_dir() else "no such folder"
        raise UserError(f"corpus esc50: none of {len(items):,} files like {items[0].path}, but {instead}.")
    return Selection("esc50", split, present, 400 * len(folds), stand_in=is_demo(root))
