"""Records: names that follow from content, atomic writing, provenance."""

import json
import os

import pytest

from experiments.records import (
    all_records,
    file_hash,
    identity_hash,
    known_hash,
    provenance,
    read_record,
    write_json,
)
from signals.errors import UserError


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


@pytest.mark.parametrize("damage", [b"{", b"", bytes(range(256))])
def test_a_damaged_record_is_one_line(tmp_path, damage):
    (tmp_path / "paper" / "a").mkdir(parents=True)
    (tmp_path / "paper" / "a" / "record.json").write_bytes(damage)
    with pytest.raises(UserError, match=r"record.json is damaged: remove .*/paper/a to make it again"):
        read_record(tmp_path / "paper" / "a")
    with pytest.raises(UserError, match="is damaged"):
        list(all_records(tmp_path, "paper"))


def test_provenance_is_complete_and_can_be_written():
    found = json.loads(json.dumps(provenance()))
    assert found.keys() == {"commit", "python", "packages", "machine", "finished"}
    assert found["packages"].keys() >= {"torch", "lightning", "diffusers"}


def test_a_known_hash_is_that_of_the_file_as_it_is_now(tmp_path):
    path = tmp_path / "weights"
    path.write_bytes(b"first")
    first = known_hash(path)
    assert first == known_hash(path) == file_hash(path)
    path.write_bytes(b"second one")
    assert known_hash(path) == file_hash(path) != first
