"""Corpora by their official layouts: who is in which split, and what a missing corpus says."""

import csv
from pathlib import Path

import pytest

from datamodules.corpora import SPLITS, VCTK_TEST, VCTK_VALIDATION, select, split_groups
from signals.errors import UserError

SHARED = Path(__file__).parents[2].parent / "shared" / "corpora"
with_shared = pytest.mark.skipif(not SHARED.is_dir(), reason=f"no {SHARED}")


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def groups(root: Path, split: str, **options) -> set[str]:
    return {item.group for item in select(root, split, **options).items}


@pytest.mark.parametrize("count", [3, 4, 10, 101])
def test_splits_part_the_groups(count):
    names = [f"speaker{i}" for i in range(count)]
    parts = [split_groups(names, split) for split in SPLITS]
    assert sorted(name for part in parts for name in part) == sorted(names)
    assert all(parts)


def test_splits_follow_from_names_alone():
    names = [f"speaker{i}" for i in range(30)]
    assert split_groups(names[::-1] + names, "test") == split_groups(names, "test")
    assert split_groups(names, "test") != set(sorted(names)[:6])


def test_vctk_splits_by_speaker(tmp_path):
    speakers = [*VCTK_TEST, *VCTK_VALIDATION, "p225", "p226", "p280", "p315"]
    folder = "VCTK-Corpus-0.92/wav48_silence_trimmed"
    touch(tmp_path, *(f"{folder}/{s}/{s}_001_mic{mic}.flac" for s in speakers for mic in (1, 2)))
    test = select(tmp_path, "test", "vctk")
    assert {item.group for item in test.items} == VCTK_TEST
    assert test.expected == 2937
    assert not test.stand_in
    assert groups(tmp_path, "validation", corpus="vctk") == VCTK_VALIDATION
    train = select(tmp_path, "train", "vctk")
    assert [item.id for item in train.items] == ["p225_001_mic1", "p226_001_mic1"]
    assert train.expected is None


def test_esc50_splits_by_fold(tmp_path):
    rows = [(f"{fold}-1000{fold}-{take}-0.wav", fold) for fold in range(1, 6) for take in "AB"]
    touch(tmp_path, *(f"ESC-50/audio/{name}" for name, _ in rows[:-1]), "ESC-50/meta/esc50.csv")
    with (tmp_path / "ESC-50/meta/esc50.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("filename", "fold"), *rows])
    assert groups(tmp_path, "train", corpus="esc50") == {"fold1", "fold2", "fold3"}
    assert groups(tmp_path, "validation", corpus="esc50") == {"fold4"}
    test = select(tmp_path, "test", "esc50")
    assert [item.id for item in test.items] == ["5-10005-A-0"]  # the other one is not on the disk
    assert test.expected == 400


def test_folder_takes_subfolders_and_loose_files_as_groups(tmp_path):
    touch(
        tmp_path,
        "speech/a/1.wav",
        "speech/a/x/2.FLAC",
        "speech/b/1.mp3",
        "speech/c.ogg",
        "speech/a/notes.txt",
    )
    found = select(tmp_path, "test", "folder", path="speech", everything=True)
    assert [(item.id, item.group) for item in found.items] == [
        ("a/1", "a"),
        ("a/x/2", "a"),
        ("b/1", "b"),
        ("c", "c"),
    ]


def test_folder_leaves_groups_out(tmp_path):
    touch(tmp_path, *(f"speech/{name}/1.wav" for name in ("p232", "vctk_a", "paul", "ann")))
    options = {"corpus": "folder", "path": "speech", "leave_out": ["p[0-9]*", "vctk_*"]}
    assert groups(tmp_path, "train", everything=True, **options) == {"paul", "ann"}


def test_folder_splits_are_disjoint(tmp_path):
    touch(tmp_path, *(f"speech/s{speaker}/{take}.wav" for speaker in range(12) for take in range(2)))
    parts = [groups(tmp_path, split, corpus="folder", path="speech") for split in SPLITS]
    assert [len(part) for part in parts] == [9, 1, 2]
    assert len(set.union(*parts)) == 12


def test_audiostock_takes_the_listed_tracks_for_test_only(tmp_path):
    touch(tmp_path, "AudioStock/b.wav", "AudioStock/in/a.wav", "AudioStock/unlisted.wav")
    (tmp_path / "AudioStock/tracks.txt").write_text("in/a.wav\n\nb.wav\n")
    test = select(tmp_path, "test", "audiostock", stand_in={"path": "music"})
    assert [item.id for item in test.items] == ["b", "in/a"]
    assert (test.corpus, test.expected, test.stand_in) == ("audiostock", 100, False)
    with pytest.raises(UserError, match="no files of its train split"):
        select(tmp_path, "train", "audiostock")


def test_audiostock_has_a_stand_in_that_says_so(tmp_path):
    touch(tmp_path, *(f"music/s{source}/1.wav" for source in range(5)))
    options = {"path": "music", "everything": True, "min_bandwidth": 20_000}
    found = select(tmp_path, "test", "audiostock", stand_in=options)
    assert (found.corpus, len(found.items), found.stand_in) == ("music", 5, True)
    assert found.min_bandwidth == 20_000
    assert found.counts == "5 of 100 files, 5 groups, stand-in"


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"corpus": "vctk"}, "https://datashare"),
        ({"corpus": "esc50"}, "https://github.com"),
        ({"corpus": "audiostock"}, "tracks.txt"),
        ({"corpus": "folder", "path": "speech"}, "Put audio into speech/"),
        ({"corpus": "vtck"}, "one of vctk"),
    ],
)
def test_missing_corpora_say_in_one_line_what_to_do(tmp_path, options, what):
    with pytest.raises(UserError, match=what) as raised:
        select(tmp_path, "test", **options)
    assert "\n" not in str(raised.value)


def test_listed_tracks_must_be_there(tmp_path):
    touch(tmp_path, "AudioStock/a.wav")
    (tmp_path / "AudioStock/tracks.txt").write_text("a.wav\nb.wav\n")
    with pytest.raises(UserError, match=r"names b\.wav, which is not there"):
        select(tmp_path, "test", "audiostock")


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"corpus": "folder", "path": "speech"}, "no audio"),
        ({"corpus": "esc50"}, r"no .*esc50\.csv"),
        ({"corpus": "vctk"}, "no files of its test split"),
    ],
)
def test_empty_corpora_are_no_corpora(tmp_path, options, what):
    for name in ("speech", "ESC-50", "VCTK-Corpus-0.92/wav48_silence_trimmed"):
        (tmp_path / name).mkdir(parents=True)
    with pytest.raises(UserError, match=what):
        select(tmp_path, "test", **options)


@with_shared
def test_shared_vctk_has_some_of_the_test_split():
    test = select(SHARED, "test", "vctk")
    assert test.counts == "20 of 2,937 files, 4 groups"


@with_shared
@pytest.mark.parametrize("split", SPLITS)
def test_shared_speech_has_no_vctk_speakers_left(split):
    left_out = ["p[0-9]*", "vctk_*"]
    items = select(SHARED, split, "folder", path="speech", leave_out=left_out).items
    with (SHARED / "MANIFEST.csv").open(newline="") as lines:
        speakers = {row["path"]: row["speaker"] for row in csv.DictReader(lines)}
    found = {speakers[str(item.path.relative_to(SHARED))] for item in items}
    assert found
    assert not {speaker for speaker in found if speaker[1:].isdigit() or speaker.startswith("vctk")}


@with_shared
def test_shared_esc50_is_a_part_of_fold_5():
    assert select(SHARED, "test", "esc50").counts == "55 of 400 files, 1 groups"
    with pytest.raises(UserError, match="train split"):
        select(SHARED, "train", "esc50")
