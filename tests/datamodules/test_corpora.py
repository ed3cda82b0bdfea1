"""Corpora by their official layouts: who is in which split, and what a missing corpus says."""

import csv
import io
from pathlib import Path

import numpy as np
import pytest
import soundfile

from datamodules.corpora import CORPORA, SPLITS, Missing, select, split_groups
from datamodules.corpora.hub import fetch_hub, suffix_of
from datamodules.corpora.speech import KULESHOV, VCTK_TEST, VCTK_VALIDATION, numbers
from datamodules.library import Library
from signals.errors import UserError

SHARED = Path(__file__).parents[2].parent / "shared" / "corpora"
with_shared = pytest.mark.skipif(not SHARED.is_dir(), reason=f"no {SHARED}")


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def groups(root: Path, split: str, **options) -> set[str]:
    return {item.group for item in select(root, split, **options).items}


def ids(root: Path, split: str, **options) -> list[str]:
    return [item.id for item in select(root, split, **options).items]


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


VCTK = "VCTK-Corpus-0.92/wav48_silence_trimmed"


def write_vctk(root: Path, speakers, numbers=(1,), mics=(1, 2)) -> None:
    names = [(s, f"{s}_{number:03d}_mic{mic}") for s in speakers for number in numbers for mic in mics]
    touch(root, *(f"{VCTK}/{speaker}/{name}.flac" for speaker, name in names))


def write_old_vctk(root: Path, speakers, numbers=(1,)) -> None:
    touch(root, *(f"VCTK-Corpus/wav48/{s}/{s}_{number:03d}.wav" for s in speakers for number in numbers))


def test_vctk_splits_by_speaker(tmp_path):
    write_vctk(tmp_path, [*VCTK_TEST, *VCTK_VALIDATION, "p225", "p226", "p280", "p315"])
    test = select(tmp_path, "test", "vctk")
    assert {item.group for item in test.items} == VCTK_TEST
    assert test.expected == 2937
    assert not test.stand_in
    assert groups(tmp_path, "validation", corpus="vctk") == VCTK_VALIDATION
    train = select(tmp_path, "train", "vctk")
    assert [item.id for item in train.items] == ["p225_001_mic1", "p226_001_mic1"]
    assert train.expected is None


def test_nuwave_validates_on_its_test_speakers(tmp_path):
    write_vctk(tmp_path, [*VCTK_TEST, *VCTK_VALIDATION, "p225", "p280", "p315"])
    options = {"corpus": "vctk", "division": "nuwave"}
    assert groups(tmp_path, "train", **options) == {"p225", *VCTK_VALIDATION}
    assert groups(tmp_path, "validation", **options) == groups(tmp_path, "test", **options) == VCTK_TEST
    assert select(tmp_path, "test", **options).expected == 2937


KULESHOV_TEST = {"p347", "p351", "p360", "p361", "p362", "p363", "p364", "p374", "p376"}


def test_numbers_are_written_as_ranges():
    assert numbers("001-003, 005, 009-010") == ["001", "002", "003", "005", "009", "010"]


def test_kuleshovs_lists_are_whole():
    """100 and 9 speakers, none of them twice; all of their 44,257 utterances are in it."""
    lists = {
        (division, part): numbers(KULESHOV[division][part])
        for division in ("kuleshov", "kuleshov_p225")
        for part in ("train", "held_out")
    }
    assert [len(list_) for list_ in lists.values()] == [100, 9, 223, 8]
    for division in ("kuleshov", "kuleshov_p225"):
        train, held_out = (set(lists[division, part]) for part in ("train", "held_out"))
        assert len(train) + len(held_out) == len(train | held_out)
    files = KULESHOV["kuleshov"]["files"]
    assert files["train"] + files["test"] == 44_257


@pytest.mark.parametrize("release", ["0.92", "0.80", 0.92, 0.8])  # YAML reads numbers
def test_kuleshov_divides_both_releases_alike(tmp_path, release):
    speakers = [f"p{number}" for number in range(225, 377)]  # and some that there are not
    write_vctk(tmp_path, [*speakers, "s5"], mics=[1])
    write_old_vctk(tmp_path, speakers)
    options = {"corpus": "vctk", "division": "kuleshov", "release": release}
    train = groups(tmp_path, "train", **options)
    assert len(train) == 100 and {"p225", "p280", "p315", "p345"} < train < set(speakers) - KULESHOV_TEST
    assert groups(tmp_path, "validation", **options) == groups(tmp_path, "test", **options) == KULESHOV_TEST
    assert [select(tmp_path, split, **options).expected for split in SPLITS] == [40_705, 3552, 3552]


@pytest.mark.parametrize(("release", "ending"), [("0.92", "_mic1"), ("0.80", "")])
def test_kuleshov_takes_the_listed_utterances_of_p225(tmp_path, release, ending):
    """And no others, such as 015 and 031, if they are there."""
    write_vctk(tmp_path, ["p225", "p226"], range(1, 367), mics=[1])
    write_old_vctk(tmp_path, ["p225", "p226"], range(1, 367))
    options = {"corpus": "vctk", "division": "kuleshov_p225", "release": release}
    test = [355, 356, 357, 358, 359, 363, 365, 366]
    assert ids(tmp_path, "test", **options) == [f"p225_{number}{ending}" for number in test]
    assert ids(tmp_path, "validation", **options) == ids(tmp_path, "test", **options)
    train = [id_.removesuffix(ending) for id_ in ids(tmp_path, "train", **options)]
    assert train[:15] == [f"p225_{number:03d}" for number in [*range(1, 15), 16]]
    assert (train[28:31], train[-1]) == (["p225_030", "p225_033", "p225_035"], "p225_354")
    counts = [select(tmp_path, split, **options).counts for split in SPLITS]
    assert counts == [f"{n} of {n} files, 1 groups" for n in (223, 8, 8)]


def test_king_divides_p228_by_utterance_whatever_the_release(tmp_path):
    write_vctk(tmp_path, ["p228", "p229"], range(1, 366))
    write_old_vctk(tmp_path, ["p228", "p229"], range(1, 366))
    options = {"corpus": "vctk", "division": "king_p228"}
    parts = [select(tmp_path, split, **options) for split in SPLITS]
    assert [(len(part.items), part.expected) for part in parts] == [(321, 321), (22, 22), (22, 22)]
    assert len({item.id for part in parts for item in part.items}) == 365
    new = [item.id.removesuffix("_mic1") for item in parts[2].items]
    assert ids(tmp_path, "test", release="0.80", **options) == new
    assert [name + "_mic2" for name in new] == ids(tmp_path, "test", mic="mic2", **options)  # no twins apart


def test_king_divides_all_speakers_by_speaker(tmp_path):
    write_vctk(tmp_path, [f"p{number}" for number in range(225, 335)])
    parts = [groups(tmp_path, split, corpus="vctk", division="king") for split in SPLITS]
    assert [len(part) for part in parts] == [96, 7, 7]
    assert len(set.union(*parts)) == 110


def test_a_speaker_who_is_not_there_has_a_stand_in_that_says_so(tmp_path):
    write_vctk(tmp_path, ["p228"], range(19))
    names = [f"speech/few/{take}.wav" for take in range(5)] + [
        f"speech/many/{take}.wav" for take in range(30)
    ]
    touch(tmp_path, *names)
    splits = [
        select(tmp_path, split, "vctk", division="king_p228", stand_in="speech")
        for split in ("train", "validation", "test")
    ]
    assert all(split.stand_in and split.corpus == "speech" for split in splits)
    assert [len(split.items) for split in splits] == [26, 2, 2]
    assert {item.group for split in splits for item in split.items} == {"many"}
    assert len({item.id for split in splits for item in split.items}) == 30
    assert splits[2].counts == "2 of 22 files, 1 groups, stand-in"
    write_vctk(tmp_path, ["p228"], range(20))
    found = select(tmp_path, "test", "vctk", division="king_p228", stand_in="speech")
    assert (found.corpus, found.stand_in) == ("vctk", False)


def test_recordings_of_a_stand_in_stay_apart(tmp_path):
    write_vctk(tmp_path, ["p225"], [1])
    touch(tmp_path, *(f"speech/{name}/ann/{take}.wav" for name in ("en", "de") for take in range(20)))
    touch(tmp_path, *(f"speech/de/ann/{take}.flac" for take in range(20)))
    options = {"corpus": "vctk", "division": "king_p228", "stand_in": "speech"}
    found = [item for split in SPLITS for item in select(tmp_path, split, **options).items]
    assert {item.group for item in found} == {"de/ann"}  # not the ann of another folder
    assert len({item.id for item in found}) == len(found) == 40
    assert {"de/ann/3.wav", "de/ann/3.flac"} <= {item.id for item in found}


def test_all_recordings_of_vctk_can_be_tested(tmp_path):
    write_vctk(tmp_path, ["p225", "p280"], (1, 2))
    assert len(ids(tmp_path, "test", corpus="vctk", division="all")) == 4
    with pytest.raises(UserError, match="no files of its train split"):
        select(tmp_path, "train", "vctk", division="all")


def test_the_second_microphone_lacks_p280(tmp_path):
    write_vctk(tmp_path, ["p225", "p280", "p362"])
    (tmp_path / VCTK / "p362/p362_001_mic2.flac").unlink()
    options = {"corpus": "vctk", "division": "kuleshov"}
    assert ids(tmp_path, "train", **options) == ["p225_001_mic1", "p280_001_mic1"]
    assert ids(tmp_path, "train", mic="mic2", **options) == ["p225_001_mic2"]
    assert select(tmp_path, "train", mic="mic2", **options).expected is None
    with pytest.raises(UserError, match="no files of its test split"):
        select(tmp_path, "test", mic="mic2", **options)


def test_a_missing_release_names_the_one_that_is_there(tmp_path):
    write_old_vctk(tmp_path, ["p225"])
    with pytest.raises(UserError, match=r"Release 0\.80 is there: set release=0\.80") as raised:
        select(tmp_path, "train", "vctk")
    assert "\n" not in str(raised.value)


def write_voicebank(root: Path, folder: str, speakers) -> None:
    touch(root, *(f"VoiceBank/clean_{folder}_wav/{s}_{take:03d}.wav" for s in speakers for take in (1, 2)))


def test_voicebank_holds_two_speakers_out(tmp_path):
    write_voicebank(tmp_path, "trainset_28spk", ["p226", "p227", "p228", "p287", "p361"])
    write_voicebank(tmp_path, "testset", ["p232", "p257"])
    options = {"corpus": "voicebank", "leave_out": "p36*"}
    assert groups(tmp_path, "train", **options) == {"p227", "p228"}
    assert groups(tmp_path, "validation", **options) == {"p226", "p287"}
    assert ids(tmp_path, "test", **options) == ["p232_001", "p232_002", "p257_001", "p257_002"]
    assert [select(tmp_path, split, **options).expected for split in SPLITS] == [11_572, None, 824]
    assert groups(tmp_path, "train", corpus="voicebank") == {"p227", "p228", "p361"}


def test_voicebank_has_three_sizes(tmp_path):
    write_voicebank(tmp_path, "trainset_28spk", ["p226", "p227"])
    more = {f"p{number}" for number in range(300, 356)}
    write_voicebank(tmp_path, "trainset_56spk", more)
    train, validation = (groups(tmp_path, split, corpus="voicebank", speakers=56) for split in SPLITS[:2])
    assert (len(train), len(validation), train | validation) == (51, 5, more)
    assert groups(tmp_path, "train", corpus="voicebank", speakers=84) == more | {"p227"}
    assert groups(tmp_path, "validation", corpus="voicebank", speakers=84) == {"p226"}
    assert select(tmp_path, "train", "voicebank", speakers=84).expected == 34_647


def write_fma(root: Path, tracks) -> None:
    touch(root, *(f"fma_small/{track // 1000:03d}/{track:06d}.mp3" for track in tracks))


def test_fma_splits_as_its_table_says(tmp_path):
    write_fma(tmp_path, [2, 5, 1003, 9000, 9999])
    (tmp_path / "fma_metadata").mkdir()
    with (tmp_path / "fma_metadata/tracks.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["", "artist", "artist", "set", "set"])
        table.writerow(["", "bio", "id", "split", "subset"])
        table.writerow(["track_id", "", "", "", ""])
        table.writerow([2, "long\n" * 50_000, 1, "training", "small"])
        table.writerow([5, "", 1, "training", "small"])
        table.writerow([1003, "a, b", 7, "validation", "small"])
        table.writerow([9000, "", 8, "test", "small"])
        table.writerow([9001, "", 8, "test", "small"])
    assert ids(tmp_path, "train", corpus="fma") == ["000002", "000005"]
    assert groups(tmp_path, "train", corpus="fma") == {"artist1"}
    assert ids(tmp_path, "validation", corpus="fma") == ["001003"]
    test = select(tmp_path, "test", "fma", min_bandwidth=16_000)
    assert (test.counts, test.min_bandwidth) == ("1 of 800 files, 1 groups", 16_000)


def test_fma_needs_its_table(tmp_path):
    write_fma(tmp_path, [2])
    with pytest.raises(Missing, match=r"no folder .*fma_metadata\. .*fma_metadata\.zip"):
        select(tmp_path, "train", "fma")
    touch(tmp_path, "fma_metadata/tracks.csv")
    with pytest.raises(UserError, match="no columns set/split and artist/id"):
        select(tmp_path, "train", "fma")


def test_cukaj_takes_some_tracks_of_fma_and_needs_no_table(tmp_path):
    write_fma(tmp_path, range(300))
    options = {"corpus": "fma", "division": "cukaj", "tracks": 200}
    parts = [select(tmp_path, split, **options) for split in SPLITS]
    assert [(len(part.items), part.expected) for part in parts] == [(160, 160), (20, 20), (20, 20)]
    taken = {item.id for part in parts for item in part.items}
    assert len(taken) == 200
    assert max(taken) > "000250"  # not the first by name
    assert [select(tmp_path, s, "fma", division="cukaj").expected for s in SPLITS] == [1600, 200, 200]


def test_beethoven_splits_by_number(tmp_path):
    numbers = [0, 9, 10, 3807, 3808, 4067, 4068, 4327, 4328]
    touch(tmp_path, *(f"beethoven/{number}.wav" for number in numbers), "beethoven/readme.txt")
    assert ids(tmp_path, "train", corpus="beethoven") == ["0", "9", "10", "3807"]
    assert ids(tmp_path, "validation", corpus="beethoven") == ["3808", "4067"]
    assert ids(tmp_path, "test", corpus="beethoven") == ["4068", "4327"]
    assert [select(tmp_path, split, "beethoven").expected for split in SPLITS] == [3808, 260, 260]


def test_beethoven_has_a_stand_in_that_says_so(tmp_path):
    touch(tmp_path, *(f"music/s{source}/{take}.wav" for source in range(5) for take in range(2)))
    options = {"path": "music", "leave_out": "s4"}
    found = [select(tmp_path, split, "beethoven", stand_in=options) for split in SPLITS]
    assert all(part.stand_in and part.corpus == "music" for part in found)
    assert [part.counts for part in found] == [
        "4 of 3,808 files, 2 groups, stand-in",
        "2 of 260 files, 1 groups, stand-in",
        "2 of 260 files, 1 groups, stand-in",
    ]
    with pytest.raises(UserError, match="beethoven, stand_in, has no option everything: one of path"):
        select(tmp_path, "test", "beethoven", stand_in={"path": "music", "everything": True})
    touch(tmp_path, "beethoven/4068.wav")
    test = select(tmp_path, "test", "beethoven", stand_in=options)
    assert (test.corpus, test.counts) == ("beethoven", "1 of 260 files, 1 groups")


def test_musdb_validates_on_the_tracks_of_its_package(tmp_path):
    from torchaudio.datasets.musdb_hq import _VALIDATION_SET

    tracks = ["A - B", *_VALIDATION_SET]
    touch(
        tmp_path, *(f"musdb18hq/train/{track}/{stem}.wav" for track in tracks for stem in ("mixture", "bass"))
    )
    touch(tmp_path, "musdb18hq/test/C - D/mixture.wav")
    assert ids(tmp_path, "train", corpus="musdb18hq") == ["A - B/mixture"]
    assert groups(tmp_path, "validation", corpus="musdb18hq", stem="bass") == set(_VALIDATION_SET)
    assert ids(tmp_path, "test", corpus="musdb18hq") == ["C - D/mixture"]
    assert [select(tmp_path, split, "musdb18hq").expected for split in SPLITS] == [86, 14, 50]


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


def everything(root: Path, **options) -> list[tuple[str, str]]:
    found = [item for split in SPLITS for item in select(root, split, **options).items]
    return sorted((item.id, item.group) for item in found)


def test_folder_takes_subfolders_and_loose_files_as_groups(tmp_path):
    files = ("a/1.wav", "a/x/2.FLAC", "b/1.mp3", "c.ogg", "a/notes.txt")
    touch(tmp_path, *(f"speech/{file}" for file in files))
    expected = [("a/1", "a"), ("a/x/2", "a"), ("b/1", "b"), ("c", "c")]
    assert everything(tmp_path, corpus="folder", path="speech") == expected


def test_files_of_one_name_stay_apart(tmp_path):
    touch(tmp_path, *(f"speech/{file}" for file in ("a/1.wav", "a/1.flac", "b/1.wav", "c/1.wav")))
    names = [id_ for id_, _ in everything(tmp_path, corpus="folder", path="speech")]
    assert names == ["a/1.flac", "a/1.wav", "b/1", "c/1"]


def test_what_begins_with_a_dot_is_no_recording(tmp_path):
    """As macOS leaves beside every file on a disk of another system."""
    write_old_vctk(tmp_path, ["p225"])
    write_vctk(tmp_path, ["p225"])
    write_fma(tmp_path, range(10))
    write_voicebank(tmp_path, "testset", ["p232"])
    touch(tmp_path, "beethoven/1.wav", "musdb18hq/train/A - B/mixture.wav")
    touch(tmp_path, *(f"speech/{name}/1.wav" for name in "abc"), "speech/.trash/1.wav")
    for path in [path for path in tmp_path.rglob("*") if path.is_file()]:
        path.with_name(f"._{path.name}").touch()
    options = [
        {"corpus": "vctk"},
        {"corpus": "vctk", "release": "0.80"},
        {"corpus": "beethoven"},
        {"corpus": "musdb18hq"},
        {"corpus": "fma", "division": "cukaj"},
        {"corpus": "folder", "path": "speech"},
    ]
    found = [item for each in options for item in select(tmp_path, "train", **each).items]
    found += select(tmp_path, "test", "voicebank").items
    assert len(found) == 1 + 1 + 1 + 1 + 8 + 1 + 2
    assert not [item.path for item in found if item.path.name.startswith(".")]
    assert groups(tmp_path, "test", corpus="folder", path="speech") < set("abc")


def test_a_split_is_looked_for_once(tmp_path, monkeypatch):
    touch(tmp_path, *(f"speech/{name}/1.wav" for name in "abc"))
    sought = []
    monkeypatch.setattr(
        "datamodules.library.select", lambda *args, **more: sought.append(more) or select(*args, **more)
    )
    library = Library(str(tmp_path), str(tmp_path / "data"))
    with pytest.raises(UserError):
        library.select("train", corpus="folder", path="music")
    touch(tmp_path, *(f"music/{name}/1.wav" for name in "abc"))
    assert library.select("train", corpus="folder", path="music").corpus == "music"  # no failure is kept
    first = library.select("train", corpus="folder", path="speech", leave_out=["d*"])
    assert library.select("train", leave_out=["d*"], path="speech", corpus="folder") is first
    assert len(sought) == 3
    assert library.select("test", corpus="folder", path="speech", leave_out=["d*"]).split == "test"
    assert len(sought) == 4


@pytest.mark.parametrize("leave_out", [["p[0-9]*", "vctk_*"], "[pv][0-9c]*"])
def test_folder_leaves_groups_out(tmp_path, leave_out):
    touch(tmp_path, *(f"speech/{name}/1.wav" for name in ("p232", "vctk_a", "paul", "ann", "mia")))
    found = everything(tmp_path, corpus="folder", path="speech", leave_out=leave_out)
    assert {group for _, group in found} == {"paul", "ann", "mia"}


def test_folder_splits_are_disjoint(tmp_path):
    touch(tmp_path, *(f"speech/s{speaker}/{take}.wav" for speaker in range(12) for take in range(2)))
    parts = [groups(tmp_path, split, corpus="folder", path="speech") for split in SPLITS]
    assert [len(part) for part in parts] == [9, 1, 2]
    assert len(set.union(*parts)) == 12


def test_audiostock_takes_the_listed_tracks_for_test_only(tmp_path):
    touch(tmp_path, "AudioStock/b.wav", "AudioStock/in/a.wav", "AudioStock/unlisted.wav")
    (tmp_path / "AudioStock/tracks.txt").write_text("in/a.wav\n\nb.wav\nb.wav\n")
    test = select(tmp_path, "test", "audiostock", stand_in={"path": "music"})
    assert [item.id for item in test.items] == ["b", "in/a"]
    touch(tmp_path, "AudioStock/b.flac")
    (tmp_path / "AudioStock/tracks.txt").write_text("b.wav\nb.flac\n")
    assert ids(tmp_path, "test", corpus="audiostock") == ["b.flac", "b.wav"]
    assert (test.corpus, test.expected, test.stand_in) == ("audiostock", 100, False)
    with pytest.raises(UserError, match="no files of its train split"):
        select(tmp_path, "train", "audiostock")


def test_audiostock_has_a_stand_in_that_says_so(tmp_path):
    touch(tmp_path, *(f"music/s{source}/1.wav" for source in range(5)))
    options = {"path": "music", "min_bandwidth": 20_000}
    found = select(tmp_path, "test", "audiostock", stand_in=options)
    assert (found.corpus, len(found.items), found.stand_in) == ("music", 1, True)
    assert found.min_bandwidth == 20_000
    assert found.counts == "1 of 100 files, 1 groups, stand-in"
    with pytest.raises(UserError, match="stand_in, has no option everything: one of path"):
        select(tmp_path, "test", "audiostock", stand_in={"path": "music", "everything": True})


def encoded(seconds: float, format: str) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, np.sin(np.arange(int(8000 * seconds))) / 2, 8000, format=format)
    return file.getvalue()


def put_on_the_hub(path: Path, **splits: list[str]) -> None:
    """A dataset of parquet files: one row a speaker's name, recordings in bytes, as the hub has them."""
    import datasets

    for split, speakers in splits.items():
        content = encoded(0.3, "FLAC")
        rows = [{"clip": {"bytes": content, "path": None}, "speaker": name} for name in speakers]
        path.mkdir(parents=True, exist_ok=True)
        datasets.Dataset.from_list(rows).to_parquet(path / f"{split}-00000-of-00001.parquet")


@pytest.fixture
def at_the_hub(tmp_path, monkeypatch):
    """`load_dataset` takes a folder of this name below the working directory for a dataset of the hub."""
    (tmp_path / "data").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    return tmp_path / "data"


CLIPS = {"corpus": "hub", "id": "some/clips", "audio": "clip", "group": "speaker"}


def test_the_hub_is_asked_only_where_that_is_allowed(at_the_hub):
    put_on_the_hub(Path("some/clips"), train=["a", "b", "c"])
    with pytest.raises(Missing, match=r"corpus some/clips: no folder .*data\.download=true fetches it"):
        Library(str(at_the_hub), "stores").select("train", **CLIPS)
    assert not list(at_the_hub.iterdir())


def test_the_hubs_recordings_are_written_once_and_read_as_files(at_the_hub):
    put_on_the_hub(Path("some/clips"), train=["ann", "../bob", "c/d", "ann"], validation=["eve"], test=["f"])
    library = Library(str(at_the_hub), "stores", download=True, workers=1, report=lambda line: None)
    store, selection = library.store(8000, "train", **CLIPS)
    assert sorted(zip(store.ids, store.groups, strict=True)) == [
        ("train/0000000", "ann"),
        ("train/0000001", "_bob"),
        ("train/0000002", "c_d"),
        ("train/0000003", "ann"),
    ]
    assert {len(wave) for wave in store.waves} == {2400}
    assert {item.path.suffix for item in selection.items} == {".flac"}
    assert (selection.corpus, selection.expected) == ("some/clips", None)
    folder = at_the_hub / "hub/some--clips/clip-speaker"
    assert {path.parts[0] for path in (item.path.relative_to(folder) for item in selection.items)} == {
        "train"
    }
    assert ids(at_the_hub, "validation", **CLIPS) == ["validation/0000000"]
    assert ids(at_the_hub, "test", **CLIPS) == ["test/0000000"]
    outside = [path for path in at_the_hub.rglob("*") if path.is_file() and folder not in path.parents]
    assert [path.name for path in outside] == ["clip-speaker.lock"]


def test_splits_that_the_hub_lacks_come_from_its_train_split(at_the_hub):
    people = [f"speaker{number}" for number in range(20)]
    put_on_the_hub(Path("some/clips"), train=people)
    put_on_the_hub(Path("other/clips"), train=people, test=["x"])
    fetch_hub(at_the_hub / "hub/some--clips/clip-speaker", "some/clips", None, "clip", "speaker")
    fetch_hub(at_the_hub / "hub/other--clips/clip", "other/clips", None, "clip", None)
    parts = [groups(at_the_hub, split, **CLIPS) for split in SPLITS]
    assert [len(part) for part in parts] == [14, 2, 4]
    assert set.union(*parts) == set(people)
    rows = [ids(at_the_hub, split, corpus="hub", id="other/clips", audio="clip") for split in SPLITS]
    assert [len(part) for part in rows] == [18, 2, 1]
    assert len({id_ for part in rows for id_ in part}) == 21


@pytest.mark.parametrize("format", ["WAV", "FLAC", "OGG", "MP3", "AIFF"])
def test_a_recording_without_a_name_is_named_by_its_content(format):
    assert suffix_of({"path": None}, encoded(0.3, format)) == f".{format.lower()}"
    assert suffix_of({"path": "x/a.MP3"}, b"") == ".mp3"
    assert suffix_of({"path": None}, b"no audio") == ".wav"


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"audio": "clop"}, "no column clop on the hub: one of clip, speaker"),
        ({"audio": "speaker"}, "its column speaker holds no audio"),
        ({"id": "clips"}, "an id is owner/name"),
        ({"id": "../some/clips"}, "an id is owner/name"),
        ({"config": "large"}, "could not be fetched from the hub: .*large"),
    ],
)
def test_what_the_hub_does_not_have_leaves_nothing_behind(at_the_hub, options, what):
    put_on_the_hub(Path("some/clips"), train=["a", "b", "c"])
    with pytest.raises(UserError, match=what) as raised:
        Library(str(at_the_hub), "stores", download=True).select(
            "train", **(CLIPS | {"group": None} | options)
        )
    assert "\n" not in str(raised.value)
    with pytest.raises(UserError):
        select(at_the_hub, "train", **(CLIPS | {"group": None} | options))
    assert all(path.suffix == ".lock" for path in at_the_hub.rglob("*") if path.is_file())


def test_a_corpus_may_lie_elsewhere(tmp_path, monkeypatch):
    touch(tmp_path, *(f"home/speech/{name}/1.wav" for name in "abc"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    found = select(tmp_path, "train", "folder", path="speech", root="~")
    assert [item.path.parents[1] for item in found.items] == [tmp_path / "home/speech"]
    with pytest.raises(UserError, match="corpus vctk: root=/nowhere/at/all: no such folder"):
        select(tmp_path, "train", "vctk", root="/nowhere/at/all")


@pytest.mark.parametrize(
    ("options", "what"),
    [
        (
            {"corpus": "vctk", "mike": 1},
            "corpus vctk has no option mike: one of division, release, mic, stand_in, root",
        ),
        ({"corpus": "folder"}, "corpus folder needs the option path"),
        ({"corpus": "vctk", "division": "ours"}, "division=ours: one of ssr_eval, nuwave"),
        ({"corpus": "vctk", "release": 0.93}, r"release=0\.93: one of 0\.92, 0\.80"),
        ({"corpus": "vctk", "mic": "mic2", "release": 0.8}, "mic=mic2: one of mic1"),
        ({"corpus": "voicebank", "speakers": 30}, "speakers=30: one of 28, 56, 84"),
        ({"corpus": "fma", "size": "large"}, "size=large: one of small, medium"),
        ({"corpus": "fma", "division": "random"}, "division=random: one of official, cukaj"),
        ({"corpus": "musdb18hq", "stem": "piano"}, "stem=piano: one of mixture"),
    ],
)
def test_unknown_options_name_the_known_ones(tmp_path, options, what):
    with pytest.raises(UserError, match=what) as raised:
        select(tmp_path, "test", **options)
    assert "\n" not in str(raised.value)


WHERE = {
    "vctk": "https://datashare.ed.ac.uk/handle/10283/3443",
    "voicebank": "https://datashare.ed.ac.uk/handle/10283/2791",
    "fma": "https://github.com/mdeff/fma",
    "beethoven": "https://huggingface.co/datasets/krandiash/beethoven",
    "musdb18hq": "https://zenodo.org/records/3338373",
    "audiostock": "tracks.txt",
    "esc50": "https://github.com/karolpiczak/ESC-50",
    "folder": "Put audio into speech/",
    "hub": "data.download=true fetches it",
}


@pytest.mark.parametrize("corpus", CORPORA)
def test_missing_corpora_say_in_one_line_what_to_do(tmp_path, corpus):
    needed = {"folder": {"path": "speech"}, "hub": {"id": "some/clips"}}
    with pytest.raises(UserError) as raised:
        select(tmp_path, "test", corpus, **needed.get(corpus, {}))
    assert WHERE[corpus] in str(raised.value)
    assert "\n" not in str(raised.value)


def test_an_unknown_corpus_names_the_known_ones(tmp_path):
    with pytest.raises(UserError, match="unknown corpus vtck: one of vctk, voicebank"):
        select(tmp_path, "test", "vtck")


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


@with_shared
def test_shared_vctk_is_divided_in_every_way():
    counts = {
        "nuwave": ["11 of any number files, 9 groups", "20 of 2,937 files, 4 groups"],
        "kuleshov": ["8 of 40,705 files, 7 groups", "23 of 3,552 files, 6 groups"],
        "kuleshov_p225": ["1 of 223 files, 1 groups", "1 of 8 files, 1 groups"],
    }
    for division, (train, test) in counts.items():
        found = [select(SHARED, split, "vctk", division=division).counts for split in SPLITS]
        assert found == [train, test, test]


@with_shared
def test_shared_voicebank_has_its_test_speakers():
    assert groups(SHARED, "test", corpus="voicebank") == {"p232", "p257"}
    assert groups(SHARED, "validation", corpus="voicebank") == {"p226"}
    tested = groups(SHARED, "test", corpus="vctk")
    assert tested & groups(SHARED, "train", corpus="voicebank")  # why there is leave_out
    assert not tested & groups(SHARED, "train", corpus="voicebank", leave_out=sorted(tested))


@with_shared
def test_shared_fma_is_decoded_from_mp3(tmp_path):
    from datamodules.store import prepare

    test = select(SHARED, "test", "fma", division="cukaj")
    assert test.counts == "4 of 200 files, 4 groups"
    store = prepare(test.items, 44_100, tmp_path, "fma")
    assert (len(store), store.left_out) == (4, {})
    assert max(store.bandwidths) < 20_000
