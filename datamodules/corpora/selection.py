"""What all corpora share: items, selections, what is said of a missing folder, and splits by name."""

import fnmatch
import hashlib
import inspect
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

from datamodules.download import DOWNLOADS, download
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


class Missing(UserError):
    """A folder that a corpus needs is not there; `fetch()` brings it (None: it cannot be had so)."""

    def __init__(self, message: str, fetch: Callable[[], object] | None = None):
        super().__init__(message)
        self.fetch = fetch


def demand(folder: Path, corpus: str, where: str) -> Path:
    """`folder`, if it is there. Raises Missing, which says where it is to be had."""
    if not folder.is_dir():
        fetch = partial(download, folder) if folder.name in DOWNLOADS else None
        raise Missing(f"corpus {corpus}: no folder {folder}. {where}", fetch)
    return folder


def audio_below(folder: Path, pattern: str = "**/*") -> list[Path]:
    """Audio files like `pattern`, in order. What begins with a dot is the system's (macOS's ._1.wav)."""
    found = (path for path in folder.glob(pattern) if path.suffix.lower() in AUDIO_SUFFIXES)
    return sorted(
        path for path in found if not any(n.startswith(".") for n in path.relative_to(folder).parts)
    )


def ids_of(paths: Iterable[Path]) -> list[str]:
    """Paths without their suffix, but where another would be the same without it: a.wav beside a.flac."""
    paths = list(paths)
    alike = Counter(path.with_suffix("") for path in paths)
    return [(path if alike[path.with_suffix("")] > 1 else path.with_suffix("")).as_posix() for path in paths]


def without(items: Iterable[Item], leave_out: str | Iterable[str]) -> list[Item]:
    """The items whose group is like none of these patterns."""
    patterns = [leave_out] if isinstance(leave_out, str) else list(leave_out)
    return [item for item in items if not any(fnmatch.fnmatch(item.group, pattern) for pattern in patterns)]


def check_options(corpus: str, function: Callable[..., Selection], options: Mapping) -> None:
    """Raises UserError on an option that the corpus does not have, and on one that it needs."""
    known = list(inspect.signature(function).parameters.values())[2:]  # after root and split
    names = [option.name for option in known]
    for name in options:
        if name not in names:
            raise UserError(f"corpus {corpus} has no option {name}: one of {', '.join([*names, 'root'])}.")
    for option in known:
        if option.default is option.empty and option.name not in options:
            raise UserError(f"corpus {corpus} needs the option {option.name}.")


def check_choice(corpus: str, option: str, value: object, choices: Iterable) -> None:
    """Raises UserError where `value` is none of the choices."""
    if value not in (choices := list(choices)):
        raise UserError(f"corpus {corpus}: {option}={value}: one of {', '.join(map(str, choices))}.")


def shuffled(names: Iterable[str]) -> list[str]:
    """Names in an order that depends on nothing but themselves."""
    return sorted(set(names), key=lambda name: hashlib.sha256(name.encode()).digest())


def part(names: Iterable[str], split: str, validations: int, tests: int) -> set[str]:
    """In the order of `shuffled`: so many names for test, so many for validation, the rest for training."""
    order, held_out = shuffled(names), tests + validations
    bounds = {"test": order[:tests], "validation": order[tests:held_out], "train": order[held_out:]}
    return set(bounds[split])


def split_groups(groups: Iterable[str], split: str) -> set[str]:
    """A fifth of the groups for test, a tenth (at least one) for validation, the rest for training."""
    count = len(groups := set(groups))
    return part(groups, split, validations=max(1, count // 10), tests=max(1, count // 5))
