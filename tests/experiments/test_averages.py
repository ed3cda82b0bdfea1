"""Averages: means that say what they leave out, intervals, and differences of systems on the same files."""

import math
from statistics import fmean, pstdev

import numpy as np
import pytest

from experiments.averages import LEAST, averages, bootstrap, by_chance, paired

FILES = {
    "a1": {"LSD": 1.0, "SNR": 10.0},
    "a2": {"LSD": 2.0, "SNR": math.nan},
    "a3": {"LSD": 6.0, "SNR": 20.0},
    "b1": {"LSD": 7.0, "SNR": math.inf},
}
GROUPS = {"a1": "a", "a2": "a", "a3": "a", "b1": "b"}


def scores(values) -> dict[str, float]:
    return {f"f{row}": float(value) for row, value in enumerate(values)}


def one_group(values) -> dict[str, str]:
    return dict.fromkeys(scores(values), "")


def test_a_mean_over_files_or_over_groups():
    assert averages(FILES, GROUPS, "file").mean["LSD"] == pytest.approx(4.0)  # (1 + 2 + 6 + 7) / 4
    assert averages(FILES, GROUPS, "group").mean["LSD"] == pytest.approx(5.0)  # ((1 + 2 + 6) / 3 + 7) / 2
    for average in ("file", "group"):
        assert averages(FILES, GROUPS, average).std["LSD"] == pytest.approx(pstdev([1, 2, 6, 7]))


def test_scores_that_are_not_finite_are_left_out_by_name():
    found = averages(FILES, GROUPS, "group")
    assert found.not_finite == {"SNR": ["a2", "b1"]}
    assert (found.mean["SNR"], found.std["SNR"]) == (15.0, 5.0)


def test_a_metric_without_any_finite_score_has_no_mean():
    found = averages({"a1": {"SNR": math.nan, "LSD": 1.0}}, GROUPS, "group")
    assert found == (
        {"LSD": 1.0},
        {"LSD": 1.0},
        {"LSD": 0.0},
        {},
        {"SNR": ["a1"]},
    )  # and one file has no interval


def test_a_score_that_a_file_lacks_is_not_finite():
    assert averages({"a1": {"LSD": 1.0}, "a2": {}}, GROUPS, "file").not_finite == {"LSD": ["a2"]}


def interval(values, average: str = "file", groups=None) -> tuple[float, float]:
    files = {id_: {"LSD": value} for id_, value in scores(values).items()}
    low, high = averages(files, groups or one_group(values), average).interval["LSD"]
    return low, high


def test_the_interval_is_that_of_a_mean():
    """The central limit theorem: mean +- 1.96 standard errors."""
    values = np.random.default_rng(1).normal(3, 2, 400)
    low, high = interval(values)
    error = 1.96 * values.std() / math.sqrt(400)
    assert (low, high) == pytest.approx((values.mean() - error, values.mean() + error), abs=0.03)


def test_the_interval_holds_the_mean_and_shrinks_with_the_files():
    rng = np.random.default_rng(2)
    widths = []
    for count in (10, 100, 1000):
        values = rng.normal(size=count)
        low, high = interval(values)
        assert low < values.mean() < high
        widths.append(high - low)
    assert widths[0] > 2 * widths[1] > 4 * widths[2]


def test_the_interval_of_speakers_means_knows_the_spread_within_speakers_only():
    values = [1.0] * 5 + [5.0] * 5
    groups = {f"f{n}": "ab"[n // 5] for n in range(10)}
    assert interval(values, "group", groups) == (3.0, 3.0)
    low, high = interval(values, "file", groups)
    assert low < 3 < high


def test_equal_scores_have_an_interval_of_no_width():
    assert interval([2.5] * 8) == (2.5, 2.5)


def test_no_interval_where_a_speaker_has_few_files():
    ours = scores(range(LEAST + LEAST - 1))
    files = {id_: {"LSD": value} for id_, value in ours.items()}
    groups = {id_: "ab"[value >= LEAST] for id_, value in ours.items()}  # b has one less
    assert averages(files, groups, "group").interval == {}
    assert averages(files, groups, "file").interval.keys() == {"LSD"}
    assert paired(ours, dict.fromkeys(ours, 0.0), groups, "group").interval is None
    assert paired(ours, dict.fromkeys(ours, 0.0), groups, "file").interval is not None


@pytest.mark.parametrize("values", [[0.0, 0.0, 0.0, 0.0, 4.0], [0.1, 0.2, 0.1, 3.0, 0.1]])
def test_an_interval_lies_within_the_scores(values):
    low, high = interval(values)
    assert min(values) <= low < high <= max(values)


@pytest.mark.parametrize("count", [2, 5, 50])
def test_the_bootstrap_has_the_variance_of_a_drawn_mean(count):
    """Of n files drawn with replacement: their variance / n, where that of a mean has n - 1 for n."""
    values = np.random.default_rng(7).normal(size=count)
    assert bootstrap([values]).var() == pytest.approx(values.var() / count, rel=0.1)


def test_the_bootstrap_is_the_same_every_time():
    assert (bootstrap([[1.0, 2.0, 4.0]]) == bootstrap([[1.0, 2.0, 4.0]])).all()


def test_a_constant_shift_is_a_sure_difference():
    values = np.random.default_rng(3).normal(size=30)
    found = paired(scores(values + 0.1), scores(values), one_group(values), "file")
    assert found.mean == pytest.approx(0.1)
    assert found.interval == pytest.approx([0.1, 0.1])
    assert (found.p, found.files) == (pytest.approx(1 / 2001), 30)


def test_a_difference_turns_its_sign_with_its_sides():
    rng = np.random.default_rng(4)
    ours, theirs = rng.normal(size=20), rng.normal(0.3, 1, size=20)
    there = paired(scores(ours), scores(theirs), one_group(ours), "file")
    back = paired(scores(theirs), scores(ours), one_group(ours), "file")
    assert there.mean == pytest.approx(-back.mean) == pytest.approx((ours - theirs).mean())
    assert there.interval == pytest.approx([-back.interval[1], -back.interval[0]], abs=1e-9)
    assert there.p == back.p


def test_no_difference_is_never_significant():
    values = np.random.default_rng(5).normal(size=20)
    same = paired(scores(values), scores(values), one_group(values), "file")
    assert same == (0.0, [0.0, 0.0], 1.0, 20)


def test_p_is_uniform_where_nothing_differs():
    """Of what is chance alone, 5 % has p < 0.05."""
    rng = np.random.default_rng(6)
    found = [by_chance([rng.normal(size=12).tolist()]) for _ in range(300)]
    assert 0.02 < fmean(p < 0.05 for p in found) < 0.09
    assert fmean(found) == pytest.approx(0.5, abs=0.06)


@pytest.mark.parametrize("count", [2, 3, 4])
def test_a_few_files_are_never_significant(count):
    """All signs equal: 2 of the 2^n ways."""
    assert by_chance([[1.0] * count]) == pytest.approx(2 / 2**count, abs=0.05)


def test_a_difference_averages_over_speakers_as_the_scores_do():
    ours = {"a1": 1.0, "a2": 1.0, "a3": 1.0, "b1": 5.0}
    theirs = dict.fromkeys(ours, 0.0)
    assert paired(ours, theirs, GROUPS, "file").mean == 2.0
    assert paired(ours, theirs, GROUPS, "group").mean == 3.0


def test_only_files_with_two_finite_scores_count():
    ours = {"a1": 1.0, "a2": math.nan, "a3": 3.0, "b1": math.inf}
    theirs = {"a1": 0.0, "a2": 0.0, "a3": 0.0, "b1": math.inf, "c": 1.0}
    assert paired(ours, theirs, GROUPS, "file").files == 2
    assert paired({"a1": 1.0, "a2": math.nan}, theirs, GROUPS, "file") is None
