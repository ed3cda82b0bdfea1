"""What is below a folder: links, loops, broken names, suffixes, and what is said of all that is left out."""

import os
from pathlib import Path

import pytest
import soundfile

from datamodules.corpora import select
from datamodules.corpora.listing import AUDIO_SUFFIXES, MEDIA_SUFFIXES, audio_below, contents, ids_of
from datamodules.library import Library
from signals.errors import UserError


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def below(folder: Path, pattern: str = "**/*") -> list[str]:
    return [path.relative_to(folder).as_posix() for path in audio_below(folder, pattern)]


@pytest.fixture
def folder(tmp_path) -> Path:
    (tmp_path / "in").mkdir()
    return tmp_path / "in"


def test_links_to_folders_and_files_are_followed(folder, tmp_path):
    touch(tmp_path, "elsewhere/deep/1.wav", "elsewhere/2.wav", "in/a/3.wav")
    (folder / "linked").symlink_to(tmp_path / "elsewhere")
    (folder / "a" / "4.wav").symlink_to(tmp_path / "elsewhere" / "2.wav")
    assert below(folder) == ["a/3.wav", "a/4.wav", "linked/2.wav", "linked/deep/1.wav"]
    (tmp_path / "link").symlink_to(folder)
    assert below(tmp_path / "link") == below(folder)
    assert audio_below(folder).left_out == ()


def test_loops_end_and_are_named(folder):
    touch(folder, "a/b/1.wav", "c/2.wav")
    (folder / "a" / "b" / "up").symlink_to(folder)
    (folder / "c" / "self").symlink_to(".")
    (folder / "c" / "itself").symlink_to("itself")
    found = audio_below(folder)
    assert below(folder) == ["a/b/1.wav", "c/2.wav"]
    up, itself, self_ = found.left_out
    assert up == f"{folder}/a/b/up: a link to a folder that it is in itself"
    assert self_ == f"{folder}/c/self: a link to a folder that it is in itself"
    assert itself.startswith(f"{folder}/c/itself: cannot be read: Too many levels of symbolic links")


def test_two_folders_that_link_to_each_other_end(folder):
    touch(folder, "a/1.wav", "b/2.wav")
    (folder / "a" / "b").symlink_to(folder / "b")
    (folder / "b" / "a").symlink_to(folder / "a")
    assert below(folder) == ["a/1.wav", "a/b/2.wav", "b/2.wav", "b/a/1.wav"]
    assert len(audio_below(folder).left_out) == 2


def test_what_leads_nowhere_is_named(folder):
    touch(folder, "1.wav")
    for name in ("2.wav", "gone", "notes.txt", ".hidden"):
        (folder / name).symlink_to("nowhere")
    assert below(folder) == ["1.wav"]
    assert audio_below(folder).left_out == tuple(
        f"{folder}/{name}: a link that leads nowhere" for name in ("2.wav", "gone")
    )


def test_what_is_no_file_is_named(folder):
    touch(folder, "1.wav", "folder.wav/2.wav")
    os.mkfifo(folder / "3.wav")  # which nobody writes: a reader would wait for ever
    assert below(folder) == ["1.wav", "folder.wav/2.wav"]
    assert audio_below(folder).left_out == (f"{folder}/3.wav: neither a file nor a folder",)


def test_folders_that_cannot_be_read_are_named(folder, monkeypatch):
    touch(folder, "a/1.wav", "b/2.wav")
    scandir = os.scandir

    def refused(path):
        if str(path).endswith("/a"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refused)
    assert below(folder) == ["b/2.wav"]
    assert audio_below(folder).left_out == (f"{folder}/a: cannot be read: Permission denied",)


def test_names_that_are_no_utf_8_are_named(folder):
    touch(folder, "1.wav", os.fsdecode(b"caf\xe9.wav"), os.fsdecode(b"\xff/2.wav"), os.fsdecode(b"\xfe.txt"))
    assert below(folder) == ["1.wav"]
    assert audio_below(folder).left_out == (
        rf"{folder}/caf\xe9.wav: its name is not UTF-8: rename it",
        rf"{folder}/\xff: its name is not UTF-8: rename it",
    )


def test_patterns_are_as_deep_as_they_say(folder):
    touch(folder, "0.wav", "a/1.wav", "a/1.mp3", "a/b/2.wav", "[x]/3.wav", ".a/4.wav", "a/.5.wav", "A/6.WAV")
    assert below(folder, "*") == ["0.wav"]
    assert below(folder, "*/*.wav") == ["[x]/3.wav", "a/1.wav"]
    assert below(folder, "*/1.mp3") == ["a/1.mp3"]
    assert below(folder) == ["0.wav", "A/6.WAV", "[x]/3.wav", "a/1.mp3", "a/1.wav", "a/b/2.wav"]


def test_every_suffix_that_can_be_read_is_listed(folder):
    touch(folder, *(f"1{suffix}" for suffix in AUDIO_SUFFIXES | MEDIA_SUFFIXES), "1.txt", "1.jpg", "1")
    assert set(below(folder)) == {f"1{suffix}" for suffix in AUDIO_SUFFIXES | MEDIA_SUFFIXES}
    assert not AUDIO_SUFFIXES & MEDIA_SUFFIXES


@pytest.mark.parametrize(
    ("suffix", "format", "subtype"),
    [
        *((".wave", "WAV", "PCM_16"), (".oga", "OGG", "VORBIS"), (".opus", "OGG", "OPUS")),
        *((".aifc", "AIFF", "FLOAT"), (".au", "AU", "PCM_16"), (".snd", "AU", "PCM_16")),
        *((".caf", "CAF", "PCM_16"), (".w64", "W64", "PCM_16"), (".rf64", "RF64", "PCM_16")),
    ],
)
def test_a_corpus_takes_every_suffix(tmp_path, suffix, format, subtype):
    for name in "abc":
        touch(tmp_path, f"speech/{name}/1{suffix}")
        wave = [0.5 * (-1) ** n for n in range(24_000)]
        soundfile.write(tmp_path / f"speech/{name}/1{suffix}", wave, 48_000, subtype, format=format)
    library = Library(str(tmp_path), str(tmp_path / "data"), workers=1, report=lambda line: None)
    store, _ = library.store(48_000, "train", corpus="folder", path="speech")
    assert (len(store), store.left_out) == (1, {})


def test_new_suffixes_change_no_former_id():
    """Which a store, a split and every record go by."""
    former = ["a/1.wav", "a/2.wav", "a/2.flac", "b/3.MP3"]
    more = ["a/1.m4a", "a/1.opus", "a/2.au", "b/4.opus"]
    before = dict(zip(former, ids_of(map(Path, former)), strict=True))
    assert [*before.values()] == ["a/1", "a/2.wav", "a/2.flac", "b/3"]
    after = dict(zip(former + more, ids_of(map(Path, former + more)), strict=True))
    assert before.items() <= after.items()
    assert [after[name] for name in more] == ["a/1.m4a", "a/1.opus", "a/2.au", "b/4"]
    assert len({*after.values()}) == len(after)


def test_a_new_suffix_is_no_other_clip_of_beethoven(tmp_path):
    touch(tmp_path, "beethoven/1.wav", "beethoven/1.wma", "beethoven/2.opus")
    assert [item.path.name for item in select(tmp_path, "train", "beethoven").items] == ["1.wav", "2.opus"]


def test_a_library_says_once_what_was_left_out(tmp_path):
    touch(tmp_path, *(f"speech/{name}/1.wav" for name in "abc"))
    (tmp_path / "speech" / "two\nlines").symlink_to("nowhere")
    told: list[str] = []
    library = Library(str(tmp_path), str(tmp_path / "data"), report=told.append)
    for split in ("train", "test", "train"):
        library.select(split, corpus="folder", path="speech")
    assert told == [rf"left out: {tmp_path}/speech/two\nlines: a link that leads nowhere"]


# What a corpus that is not there says ----------------------------------------------------------------------


def complaint(below: Path, **corpus) -> str:
    with pytest.raises(UserError) as raised:
        select(below, "test", **corpus)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_a_corpus_without_a_file_says_what_is_there(tmp_path):
    audio = tmp_path / "VCTK-Corpus-0.92" / "wav48_silence_trimmed"
    touch(audio, *(f"p360/p360_{take:03}.wav" for take in range(31)), "log.txt")
    told = complaint(tmp_path, corpus="vctk")
    assert told.endswith(f"no */*_mic1.flac below {audio}, but 31 .wav, 1 .txt.")
    touch(tmp_path, "speech/a/1.txt", "speech/b/readme")
    told = complaint(tmp_path, corpus="folder", path="speech")
    assert ".wav" in told and told.endswith(f"below {tmp_path}/speech, but 1 .txt, 1 without a suffix.")


def test_a_missing_folder_says_what_is_beside_it(tmp_path):
    touch(tmp_path, "VCTK-Corpus-0.92.zip", "speech/a/1.wav")
    told = complaint(tmp_path, corpus="vctk")
    assert f"no folder {tmp_path}/VCTK-Corpus-0.92." in told
    assert told.endswith(f"({tmp_path} holds: VCTK-Corpus-0.92.zip, speech)")


def test_the_folder_named_is_the_one_that_was_searched(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    touch(tmp_path, "home/mine/other/1.wav")
    (tmp_path / "link").symlink_to(tmp_path / "home" / "mine")
    assert f"no folder {tmp_path}/link/speech." in complaint(
        tmp_path / "link", corpus="folder", path="speech"
    )
    assert f"no folder {tmp_path}/home/mine/speech." in complaint(
        tmp_path, corpus="folder", path="speech", root="~/mine"
    )
    assert f"no folder {tmp_path}/home/gone." in complaint(tmp_path, corpus="folder", path="~/gone")
    assert f"no such folder ({tmp_path}/home holds: mine): {tmp_path}/home/gone" in complaint(
        tmp_path, corpus="vctk", root="~/gone"
    )
    with pytest.raises(UserError, match=f"data.root=~/gone: no such folder .*: {tmp_path}/home/gone"):
        Library("~/gone", str(tmp_path / "data"))


def test_contents_are_a_few_words(tmp_path):
    assert contents(tmp_path) == "no file"
    touch(tmp_path, "1.a", "2.a", "1.b", "1.c", "1.d")
    assert contents(tmp_path) == "2 .a, 1 .b, 1 .c, others"
