"""Files are replaced whole or not at all, and nothing is left over."""

import os
import platform
import signal

import pytest
import torch
from safetensors.torch import save_file

from signals.files import replacing


class Stopped(Exception):
    pass


def names(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(Stopped), replacing(path) as partial:
        partial.write_text("half of the n")
        raise Stopped
    assert (path.read_text(), names(tmp_path)) == ("old", ["file"])
    with replacing(path) as partial:
        partial.write_text("new")
        assert path.read_text() == "old"
    assert (path.read_text(), names(tmp_path)) == ("new", ["file"])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_what_a_killed_process_left_goes_with_the_next(tmp_path):
    path = tmp_path / "file [1].wav"  # a pattern, were it not escaped
    pid = os.fork()
    if pid == 0:
        with replacing(path) as partial:
            partial.write_text("half")
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)
    assert names(tmp_path) == [f"{path.name}.{platform.node()}.{pid}.partial"]
    with replacing(path) as partial:
        partial.write_text("whole")
    assert (path.read_text(), names(tmp_path)) == ("whole", [path.name])


def test_two_that_write_at_once_do_not_meet(tmp_path):
    """The parent of this process stands for the other: it lives."""
    path = tmp_path / "file"
    theirs = tmp_path / f"file.{platform.node()}.{os.getppid()}.partial"
    elsewhere = tmp_path / "file.another-machine.1.partial"
    for other in (theirs, elsewhere):
        other.write_text("half")
    with replacing(path) as partial:
        assert partial != theirs
        partial.write_text("whole")
    assert names(tmp_path) == sorted(["file", theirs.name, elsewhere.name])


@pytest.mark.parametrize("name", ["x" * 255, "ö" * 127 + ".", os.fsdecode(b"\xe9" * 255)])
def test_a_file_may_have_the_longest_name_there_is(tmp_path, name):
    """So a file beside it has another than this with something at its end."""
    path = tmp_path / name
    for text in ("old", "new"):
        with replacing(path) as partial:
            partial.write_text(text)
    assert (path.read_text(), names(tmp_path)) == ("new", [name])


def test_two_long_names_that_begin_alike_do_not_meet(tmp_path):
    paths = [tmp_path / ("x" * 240 + end) for end in "ab"]
    with replacing(paths[0]) as first, replacing(paths[1]) as second:
        assert first != second
        first.touch()
        second.touch()
    assert names(tmp_path) == [path.name for path in paths]


@pytest.mark.skipif(os.name != "posix", reason="needs the rights of POSIX")
@pytest.mark.parametrize(("mask", "rights"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_a_file_has_the_rights_of_any_new_one(tmp_path, mask, rights):
    """Whatever its writer does: safetensors makes files that only their owner reads."""
    writers = {
        "weights": lambda file: save_file({"weight": torch.zeros(3)}, file),
        "checkpoint": lambda file: torch.save({"weight": torch.zeros(3)}, file),
        "text": lambda file: file.write_text("text"),
    }
    before = os.umask(mask)
    try:
        for name, write in writers.items():
            with replacing(tmp_path / name) as partial:
                write(partial)
    finally:
        os.umask(before)
    assert {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == dict.fromkeys(
        writers, rights
    )


def test_what_is_not_written_is_no_file(tmp_path):
    with pytest.raises(FileNotFoundError), replacing(tmp_path / "file"):
        pass
    assert names(tmp_path) == []
