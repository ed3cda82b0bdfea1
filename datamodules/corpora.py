"""Corpora: recordings in the layouts of their official releases, and named splits of them.

Every corpus is a function `(root, split, **options) -> Selection`; `split` is `train`, `validation` or
`test`, and no speaker (or source, or fold) is in two of them.
"""

import csv
import fnmatch
import hashlib
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from datamodules.demo_corpus import is_demo
from signals.errors import UserError

AUDIO_SUFFIXES = {".flac", ".wav", ".mp3", ".ogg", ".aiff", ".aif"}
SPLITS = ("train", "validation", "test")


class Item(NamedTuple):
    """A file of a corpus. `group` is its speaker, source or fold: what splits and macro averages go by."""

    path: Path
    id: str
    group: str


@dataclass(frozen=True)
class Selection:
    """A split of a corpus as found below a root, beside what it should hold."""

    corpus: str
    split: str
    items: tuple[Item, ...]
    expected: int | None  # files of the official split, where it has a fixed number
    stand_in: bool = False  # other recordings in the place of the named corpus
    min_bandwidth: float = 0  # Hz: recordings that reach less high are no targets for this split

    @property
    def counts(self) -> str:
        groups = len({item.group for item in self.items})
        expected = "any number" if self.expected is None else f"{self.expected:,}"
        note = ", stand-in" if self.stand_in else ""
        return f"{len(self.items):,} of {expected} files, {groups} groups{note}"


def _demand(folder: Path, corpus: str, where: str) -> Path:
    if not folder.is_dir():
        raise UserError(f"corpus {corpus}: no folder {folder}. {where}")
    return folder


def _audio_below(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in AUDIO_SUFFIXES)


# VCTK 0.92 ------------------------------------------------------------------------------------------------

VCTK_WHERE = (
    "VCTK 0.92 is at https://datashare.ed.ac.uk/handle/10283/3443 (data.download=true fetches it, 11 GB); "
    "or set data.root to the folder that holds VCTK-Corpus-0.92."
)
VCTK_TEST = {"p360", "p361", "p362", "p363", "p364", "p374", "p376", "s5"}  # ssr_eval; 2,937 utterances
VCTK_VALIDATION = {"p347", "p351"}  # ours: the paper names none
VCTK_DROPPED = {"p280", "p315"}  # ssr_eval: faults of the second microphone, no transcripts


def vctk(root: Path, split: str) -> Selection:
    """VCTK 0.92, first microphone, split as ssr_eval does (test speakers and 2,937 test utterances)."""
    folder = _demand(root / "VCTK-Corpus-0.92" / "wav48_silence_trimmed", "vctk", VCTK_WHERE)

    def belongs(speaker: str) -> bool:
        if split == "test":
            return speaker in VCTK_TEST
        if split == "validation":
            return speaker in VCTK_VALIDATION
        return speaker not in VCTK_TEST | VCTK_VALIDATION | VCTK_DROPPED

    items = [Item(path, path.stem, path.parent.name) for path in sorted(folder.glob("*/*_mic1.flac"))]
    chosen = tuple(item for item in items if belongs(item.group))
    return Selection("vctk", split, chosen, 2937 if split == "test" else None, stand_in=is_demo(root))


# Any folder -----------------------------------------------------------------------------------------------


def _shuffled(groups: Iterable[str]) -> list[str]:
    """Groups in an order that depends on nothing but their names."""
    return sorted(groups, key=lambda group: hashlib.sha256(group.encode()).digest())


def split_groups(groups: Iterable[str], split: str) -> set[str]:
    """A fifth of the groups for test, a tenth (at least one) for validation, the rest for training."""
    order = _shuffled(set(groups))
    tests = max(1, len(order) // 5)
    validations = max(1, len(order) // 10)
    bounds = {
        "test": order[:tests],
        "validation": order[tests : tests + validations],
        "train": order[tests + validations :],
    }
    return set(bounds[split])


def folder(
    root: Path,
    split: str,
    path: str,
    leave_out: Iterable[str] = (),
    everything: bool = False,
    min_bandwidth: float = 0,
) -> Selection:
    """`path` below `root`, one subfolder a speaker (or source); files beside them form groups of their own.

    leave_out: patterns of groups to leave out (speakers that are test speakers elsewhere). everything: all
    groups, whatever the split: for a corpus that is used for one split only. min_bandwidth: Hz.
    """
    base = _demand(
        root / path,
        path,
        f"Put audio into {path}/<speaker or source>/ below data.root={root}, or choose other parts.",
    )
    files = {file: file.relative_to(base) for file in _audio_below(base)}
    names = Counter(inside.with_suffix("") for inside in files.values())
    items = []
    for file, inside in files.items():
        group = inside.parts[0] if len(inside.parts) > 1 else inside.stem
        id_ = inside.with_suffix("") if names[inside.with_suffix("")] == 1 else inside  # a.wav beside a.flac
        if not any(fnmatch.fnmatch(group, pattern) for pattern in leave_out):
            items.append(Item(file, id_.as_posix(), group))
    if not items:
        raise UserError(f"corpus {path}: no audio ({', '.join(sorted(AUDIO_SUFFIXES))}) below {base}.")
    groups = {item.group for item in items}
    if not everything and len(groups) < 3:
        raise UserError(f"corpus {path}: a split needs three subfolders (speakers or sources) below {base}.")
    chosen = groups if everything else split_groups(groups, split)
    return Selection(
        path,
        split,
        tuple(item for item in items if item.group in chosen),
        None,
        stand_in=is_demo(root),
        min_bandwidth=min_bandwidth,
    )


# ESC-50 ---------------------------------------------------------------------------------------------------

ESC50_WHERE = "ESC-50 is at https://github.com/karolpiczak/ESC-50: unpack it as ESC-50/ below data.root."
ESC50_FOLDS = {"train": (1, 2, 3), "validation": (4,), "test": (5,)}  # AudioSR tests on fold 5


def esc50(root: Path, split: str) -> Selection:
    """ESC-50 by its folds, which keep clips of one recording together: 5 is test, 400 clips a fold."""
    base = _demand(root / "ESC-50", "esc50", ESC50_WHERE)
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
    return Selection("esc50", split, present, 400 * len(folds), stand_in=is_demo(root))


# AudioStock -----------------------------------------------------------------------------------------------

AUDIOSTOCK_TRACKS = 100
AUDIOSTOCK_WHERE = (
    "Its tracks are licensed at https://audiostock.net: list yours in AudioStock/tracks.txt, one path a line."
)


def audiostock(root: Path, split: str, stand_in: dict | None = None) -> Selection:
    """AudioSR's 100 hand-picked AudioStock tracks: a licensed catalogue, and the list was never published.

    `AudioStock/tracks.txt` below the root names a user's own licensed tracks, one path a line, relative to
    it; all are for test. Without it, `stand_in` (the options of `folder`) takes the column, and says so.
    """
    base = root / "AudioStock"
    listing = base / "tracks.txt"
    if listing.is_file():
        names = [line.strip() for line in listing.read_text().splitlines() if line.strip()]
        missing = [name for name in names if not (base / name).is_file()]
        if missing:
            raise UserError(f"corpus audiostock: {listing} names {missing[0]}, which is not there.")
        tracks = [Item(base / name, Path(name).with_suffix("").as_posix(), name) for name in sorted(names)]
        items = tuple(tracks) if split == "test" else ()
        return Selection("audiostock", split, items, AUDIOSTOCK_TRACKS, stand_in=is_demo(root))
    if stand_in is None:
        raise UserError(f"corpus audiostock: no {listing}. {AUDIOSTOCK_WHERE}")
    found = folder(root, split, **stand_in)
    return Selection(found.corpus, split, found.items, AUDIOSTOCK_TRACKS, True, found.min_bandwidth)


CORPORA: dict[str, Callable[..., Selection]] = {
    "vctk": vctk,
    "folder": folder,
    "esc50": esc50,
    "audiostock": audiostock,
}


def select(root: Path, split: str, corpus: str, **options) -> Selection:
    """The files of one split. Raises UserError where the corpus is unknown, missing or has none in it."""
    if corpus not in CORPORA:
        raise UserError(f"unknown corpus {corpus}: one of {', '.join(CORPORA)}.")
    selection = CORPORA[corpus](root, split, **options)
    if not selection.items:
        raise UserError(f"corpus {selection.corpus}: no files of its {split} split below {root}.")
    return selection
