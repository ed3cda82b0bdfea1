"""Records: names that follow from content, atomic writing, means that say what they leave out."""

import json
import math
import os
from statistics import pstdev

import pytest

from experiments.records import all_records, identity_hash, provenance, read_record, write_json
from experiments.rows import means


def test_an_identity_has_one_hash():
    nested = {"stage": "VAE", "data": {"rate": 48000, "parts": [1, 2.5, None]}}
    turned = {"data": {"parts": [1, 2.5, None], "rate": 48000}, "stage": "VAE"}
    assert identity_hash(nested) == identity_hash(turned) == "050c8caeb98e"


@pytest.mark.parametrize("other", [{"a": [2, 1], "b": 1}, {"a": [1, 2], "b": 1.5}, {"a": [1, 2]}])
def test_another_identity_has_another_hash(other):
    assert identity_hash(other) != identity_hash({"a": [1, 2], "b": 1})


def test_a_record_comes_back(tmp_path):
    assert read_record(tmp_path) is None
    for name, value in (("b", 2), ("a", 1.5)):
        (tmp_path / "paper" / name).mkdir(parents=True)
        write_json(tmp_path / "paper" / name / "record.json", {"value": value})
    assert read_record(tmp_path / "paper" / "a") == {"value": 1.5}
    assert list(all_records(tmp_path, "paper")) == [{"value": 1.5}, {"value": 2}]
    assert list(all_records(tmp_path, "other")) == []


def test_a_killed_write_leaves_the_old_record(tmp_path, monkeypatch):
    write_json(tmp_path / "record.json", {"value": 1})

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        write_json(tmp_path / "record.json", {"value": 2})
    assert read_record(tmp_path) == {"value": 1}


def test_provenance_is_complete_and_can_be_written():
    found = json.loads(json.dumps(provenance()))
    assert found.keys() == {"commit", "python", "packages", "machine", "finished"}
    assert found["packages"].keys() >= {"torch", "lightning", "diffusers"}


FILES = {
    "a1": {"LSD": 1.0, "SNR": 10.0},
    "a2": {"LSD": 2.0, "SNR": math.nan},
    "a3": {"LSD": 6.0, "SNR": 20.0},
    "b1": {"LSD": 7.0, "SNR": math.inf},
}
GROUPS = {"a1": "a", "a2": "a", "a3": "a", "b1": "b"}


def test_a_mean_over_files_or_over_groups():
    assert means(FILES, GROUPS, "file")[0]["LSD"] == pytest.approx(4.0)  # (1 + 2 + 6 + 7) / 4
    assert means(FILES, GROUPS, "group")[0]["LSD"] == pytest.approx(5.0)  # ((1 + 2 + 6) / 3 + 7) / 2
    for average in ("file", "group"):
        assert means(FILES, GROUPS, average)[1]["LSD"] == pytest.approx(pstdev([1, 2, 6, 7]))


def test_scores_that_are_not_finite_are_left_out_by_name():
    mean, std, left_out = means(FILES, GROUPS, "group")
    assert left_out == {"SNR": ["a2", "b1"]}
    assert (mean["SNR"], std["SNR"]) == (15.0, 5.0)


def test_a_metric_without_any_finite_score_has_no_mean():
    mean, std, left_out = means({"a1": {"SNR": math.nan, "LSD": 1.0}}, GROUPS, "group")
    assert (mean, std, left_out) == ({"LSD": 1.0}, {"LSD": 0.0}, {"SNR": ["a1"]})
