"""From scores of files to the number in a table: its mean, spread, interval, and the files left out of it."""

import itertools
from collections.abc import Mapping, Sequence
from statistics import fmean, median, pstdev
from typing import NamedTuple

import numpy as np

RESAMPLES = 2000  # of the bootstrap and of the randomisation test
INTERVAL = (2.5, 97.5)  # percent
LEAST = 5  # files of each group, or there is no interval


class Averages(NamedTuple):
    """Each by metric. interval: 95 %, of the mean, where known. not_finite: ids of files left out."""

    mean: dict[str, float]
    median: dict[str, float]
    std: dict[str, float]
    interval: dict[str, list[float]]
    not_finite: dict[str, list[str]]


class Difference(NamedTuple):
    """Of two systems on the same files: mean, its 95 % interval by bootstrap, p (`by_chance`), files."""

    mean: float
    interval: list[float] | None
    p: float
    files: int


def grouped(values: Mapping[str, float], groups: Mapping[str, str], average: str) -> list[list[float]]:
    """Values of files by what is averaged first: the speakers (`group`), or all files as one (`file`)."""
    by_group: dict[str, list[float]] = {}
    for id_, value in values.items():
        by_group.setdefault(groups[id_] if average == "group" else "", []).append(value)
    return list(by_group.values())


def mean_of(values: Sequence[Sequence[float]]) -> float:
    """The mean of the groups' means."""
    return fmean(map(fmean, values))


def bootstrap(values: Sequence[Sequence[float]]) -> np.ndarray:
    """[RESAMPLES] means of the groups' means, the files of each group drawn anew, with one fixed seed.

    Speakers (groups) stay what they are: the interval is of these speakers, not of all that there could be.
    A mean of n files drawn so has the variance (n - 1) / n * s^2 / n (Efron 1982): of a few it is too small.
    """
    rng = np.random.default_rng(0)
    groups = map(np.asarray, values)
    means = [group[rng.integers(len(group), size=(RESAMPLES, len(group)))].mean(axis=1) for group in groups]
    return np.mean(means, axis=0)


def interval_of(values: Sequence[Sequence[float]]) -> list[float] | None:
    """95 % of the mean of the groups' means, by bootstrap; None where a group has less than LEAST files."""
    if min(map(len, values)) < LEAST:
        return None
    return np.percentile(bootstrap(values), INTERVAL).tolist()


def averages(files: Mapping[str, Mapping[str, float]], groups: Mapping[str, str], average: str) -> Averages:
    """Over the files with a finite score. Median and standard deviation are over files.

    average: `file`, or `group` for the mean of the speakers' means.
    """
    found = Averages({}, {}, {}, {}, {})
    for metric in dict.fromkeys(itertools.chain.from_iterable(files.values())):
        values = {id_: scores.get(metric, float("nan")) for id_, scores in files.items()}
        finite = {id_: v for id_, v in values.items() if abs(v) < float("inf")}  # nan fails this, too
        if missing := sorted(set(values) - set(finite)):
            found.not_finite[metric] = missing
        if finite:
            by_group = grouped(finite, groups, average)
            found.mean[metric] = mean_of(by_group)
            found.median[metric] = median(finite.values())
            found.std[metric] = pstdev(finite.values())
            if interval := interval_of(by_group):
                found.interval[metric] = interval
    return found


def by_chance(values: Sequence[Sequence[float]]) -> float:
    """Two-sided p of a mean of groups' means where each file's sign is chance: Fisher's randomisation test.

    Never 0, and never small for a few files: of n files, not below 2 / 2^n but for the luck of the draw.
    """
    rng = np.random.default_rng(0)
    drawn = np.mean(
        [
            (rng.choice((-1.0, 1.0), size=(RESAMPLES, len(group))) * np.asarray(group)).mean(axis=1)
            for group in values
        ],
        axis=0,
    )
    seen = abs(mean_of(values))
    return float((np.abs(drawn) >= seen * (1 - 1e-9)).sum() + 1) / (RESAMPLES + 1)


def paired(
    ours: Mapping[str, float], theirs: Mapping[str, float], groups: Mapping[str, str], average: str
) -> Difference | None:
    """`ours` minus `theirs` on the files that both have a finite score of; None for fewer than two."""
    shared = {id_: ours[id_] - theirs[id_] for id_ in ours if id_ in theirs}
    finite = {id_: v for id_, v in shared.items() if abs(v) < float("inf")}
    if len(finite) < 2:
        return None
    by_group = grouped(finite, groups, average)
    return Difference(mean_of(by_group), interval_of(by_group), by_chance(by_group), len(finite))
