"""What all corpora share: items, selections, what is said of a missing folder, and splits by name."""

import fnmatch
import hashlib
import inspect
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

from datamodules.corpora.listing import (
    AUDIO_SUFFIXES,
    LISTED_SUFFIXES,
    Listing,
    audio_below,
    contents,
    ids_of,
)
from datamodules.download import DOWNLOADS, download
from signals.errors import UserError
from signals.names import one_line

# Some look here for what is in `listing`.
__all__ = ["AUDIO_SUFFIXES", "SPLITS", "Item", "Listing", "Missing", "Selection", "audio_below", "ids_of"]

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
    left_out: tuple[str, ...] = ()  # a line for each link, folder or name that could not be followed

    @property
    def counts(self) -> str:
        groups = len({item.group for item in self.items})
        expected = "any number" if self.expected is None else f"{self.expected:,}"
        note = ", stand-in" if self.stand_in else ""
        return f"{len(self.items):,} of {expected} files, {groups} groups{note}"


class Missing(UserError):
    """A folder that a corpus needs is not there; `fetch()` brings it (None: it cannot be had so).

    helps: a corpus, its option and a value, by which another folder would be taken: `set <option>=<value>` is
    in the message, and who knows a configuration says it in its keys.
    """

    def __init__(
        self,
        message: str,
        fetch: Callable[[], object] | None = None,
        helps: tuple[str, str, str] | None = None,
    ):
        super().__init__(message)
        self.fetch, self.helps = fetch, helps


def demand(folder: Path, corpus: str, where: str) -> Path:
    """`folder`, if it is there. Raises Missing, which says where it is to be had."""
    if not folder.is_dir():
        fetch = partial(download, folder) if folder.name in DOWNLOADS else None
        raise Missing(f"corpus {corpus}: no folder {folder}. {where}{beside(folder)}", fetch)
    return folder


def beside(missing: Path) -> str:
    """What there is in the place of a folder, in a few words: ` (speech holds: en, de, readme.txt)`."""
    above = next((above for above in missing.parents if above.is_dir()), None)
    if above is None:
        return ""
    try:
        names = sorted(name for name in os.listdir(above) if not name.startswith("."))
    except OSError as error:
        return one_line(f" ({above} cannot be read: {error.strerror})")
    more = f" and {len(names) - 6:,} more" if len(names) > 6 else ""
    return one_line(f" ({above} holds: {', '.join(names[:6]) or 'nothing'}{more})")


def demand_audio(folder: Path, corpus: str, split: str, pattern: str = "**/*") -> Listing:
    """The audio files like `pattern`. Raises UserError without any, which says what is there instead."""
    found = audio_below(folder, pattern)
    if not found:
        sought = pattern if Path(pattern).suffix else f"audio ({' '.join(sorted(LISTED_SUFFIXES))})"
        why = "".join(f"; left out: {line}" for line in found.left_out[:1])
        there = f"no {sought} below {folder}, but {contents(folder)}{why}"
        raise UserError(f"corpus {corpus}: no files of its {split} split: {there}.")
    return found


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
