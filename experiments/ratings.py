"""What listeners say of recordings before and after a system: read, checked, averaged and drawn."""

import csv
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from callbacks.curves import canvas
from callbacks.pictures import write_picture
from experiments.averages import INTERVAL, LEAST, RESAMPLES
from signals.errors import UserError
from signals.names import label

COLUMNS = ("listener", "generator", "item", "system", "rating", "preferred")
SYSTEMS = ("before", "after")
SCALE = ("bad", "poor", "fair", "good", "excellent")  # from 1 on (ITU-T P.800)


class Answer(NamedTuple):
    """Of one listener on one item: ratings from 1 to 5, and which sounds better (empty: neither)."""

    before: int
    after: int
    preferred: str


class Share(NamedTuple):
    """A mean over listeners and items with its 95 % interval, where there are items enough for one."""

    mean: float
    interval: tuple[float, float] | None


Place = tuple[str, str, str]  # listener, generator, item


def read_line(cells: list[str]) -> tuple[Place, str, tuple[int, bool]]:
    """Who and what, the system, its rating and whether it is preferred. Raises UserError."""
    if len(cells) != len(COLUMNS):
        raise UserError(f"{len(cells)} cells, not {len(COLUMNS)}")
    listener, *named, system, rating, preferred = cells
    place = (listener.strip(), *named)  # generator and item are names of files
    system, rating, preferred = (cell.strip() for cell in (system, rating, preferred))
    if not all(map(str.strip, place)):
        raise UserError("listener, generator or item is empty")
    if system not in SYSTEMS:
        raise UserError(f"system {system!r} is none of {', '.join(SYSTEMS)}")
    if rating not in tuple("12345"):
        raise UserError(f"rating {rating!r} is no whole number from 1 to 5")
    if preferred not in ("0", "1"):
        raise UserError(f"preferred {preferred!r} is not 0 or 1")
    return place, system, (int(rating), preferred == "1")


def read_ratings(paths: Iterable[Path]) -> dict[Place, Answer]:
    """All answers of some `ratings.csv`. Raises UserError with file and line where one is broken."""
    said: dict[Place, dict[str, tuple[int, bool]]] = {}
    lines: dict[Place, str] = {}
    for path in paths:
        try:
            with path.open(newline="", encoding="utf-8-sig") as file:
                table = list(csv.reader(file))
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise UserError(f"{path}: {error}") from None
        if not table or tuple(table[0]) != COLUMNS:
            raise UserError(f"{path}, line 1: the columns are not {','.join(COLUMNS)}.")
        for number, cells in enumerate(table[1:], 2):
            if not cells:
                continue
            try:
                place, system, answer = read_line(cells)
                if system in said.setdefault(place, {}):
                    raise UserError(f"{place[0]} rates {place[1]}/{place[2]} {system} twice")
            except UserError as error:
                raise UserError(f"{path}, line {number}: {error}.") from None
            said[place][system] = answer
            lines[place] = f"{path}, line {number}: {place[0]} on {place[1]}/{place[2]}"
    if not said:
        raise UserError(f"{', '.join(map(str, paths))}: no ratings.")
    return {place: answer_of(systems, lines[place]) for place, systems in said.items()}


def answer_of(systems: Mapping[str, tuple[int, bool]], line: str) -> Answer:
    """Raises UserError where a rating lacks, or both are preferred."""
    if lacking := [system for system in SYSTEMS if system not in systems]:
        raise UserError(f"{line}: no rating of {lacking[0]}.")
    preferred = [system for system in SYSTEMS if systems[system][1]]
    if len(preferred) > 1:
        raise UserError(f"{line}: both are preferred.")
    return Answer(systems["before"][0], systems["after"][0], "".join(preferred))


def share(values: Mapping[tuple[str, str], float]) -> Share:
    """Of values by listener and item. The interval is of other listeners and other items alike.

    Bootstrap with listeners and items drawn anew, each on their own, an answer weighing as often as both were
    drawn (Owen 2007, "The pigeonhole bootstrap"): if anything, too wide. None from fewer items than LEAST.
    """
    listeners, items = (sorted(set(names)) for names in zip(*values, strict=True))
    total, count = np.zeros((2, len(listeners), len(items)))
    for (listener, item), value in values.items():
        place = listeners.index(listener), items.index(item)
        total[place], count[place] = value, 1
    mean = float(total.sum() / count.sum())
    if len(items) < LEAST:
        return Share(mean, None)
    rng = np.random.default_rng(0)
    drawn = [rng.multinomial(n, np.full(n, 1 / n), RESAMPLES) for n in (len(listeners), len(items))]
    sums, weights = (((drawn[0] @ grid) * drawn[1]).sum(1) for grid in (total, count))
    some = weights > 0  # where not everyone has heard everything, a draw can be empty
    low, high = np.percentile(sums[some] / weights[some], INTERVAL)
    return Share(mean, (float(low), float(high)))


# The figure ----------------------------------------------------------------------------------------------

# Of an answer, what is averaged, by what it is called.
PREFERENCES = {"after": "after is better", "": "no clear difference", "before": "before is better"}
OPINIONS = {"before": lambda said: said.before, "after": lambda said: said.after}


def shares(answers: Mapping[Place, Answer], value: Callable[[Answer], float]) -> Share:
    return share({(listener, item): value(said) for (listener, _, item), said in answers.items()})


def reach(found: Share) -> list[list[float]]:
    """How far the interval reaches below and above the mean, for matplotlib; nowhere where there is none."""
    low, high = found.interval or (found.mean, found.mean)
    return [[found.mean - low], [high - found.mean]]


def draw_ratings(path: Path, lines: Mapping[str, Mapping[Place, Answer]], title: str) -> None:
    """Shares of preferences on the left, mean ratings on the right. lines: answers by generator."""
    figure = canvas(4 + 2.4 * len(lines), title)
    figure.get_layout_engine().set(wspace=0.1)
    preferences, opinions = figure.subplots(1, 2)
    names = [
        f"{label(name)}\n{len({item for _, _, item in said})} items, {len(said)} answers"
        for name, said in lines.items()
    ]
    for place, answers in enumerate(lines.values()):
        bottom = 0.0
        for (preferred, words), color in zip(PREFERENCES.items(), ("C0", "lightgray", "C1"), strict=True):
            found = shares(answers, lambda said, this=preferred: 100 * (said.preferred == this))
            shown = words if place == 0 else None
            preferences.bar(place, found.mean, 0.6, bottom, color=color, label=shown)
            if found.mean >= 5:
                middle = bottom + found.mean / 2
                preferences.text(place, middle, f"{found.mean:.0f} %", ha="center", va="center", fontsize=8)
            if preferred == "after":
                preferences.errorbar(place + 0.22, found.mean, reach(found), color="black", capsize=3)
            bottom += found.mean
        for side, (words, value) in enumerate(OPINIONS.items()):
            found, color = shares(answers, value), ("C1", "C0")[side]
            where, shown = place + 0.4 * (side - 0.5), words if place == 0 else None
            opinions.bar(where, found.mean - 1, 0.4, 1, color=color, label=shown)
            opinions.errorbar(where, found.mean, reach(found), color="black", capsize=3)
    preferences.set(title="which sounds better, % of answers", ylim=(0, 100), xticks=range(len(names)))
    opinions.set(title="mean rating, 1 bad to 5 excellent", ylim=(1, 5), xticks=range(len(names)))
    for axis in (preferences, opinions):
        axis.set_xticklabels(names, fontsize=8)
        axis.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.18), ncols=3)
    write_picture(figure, path, dpi=90)
