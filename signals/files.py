"""Files that are there as a whole or not at all."""

import glob
import os
import platform
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from signals.names import shortened


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A file beside `path` that takes its place when the block ends: readers find the old one or the new.

    Its name is this process's own, so that two that write `path` at once do not meet, and short, however
    long that of `path` is. Its rights are those that the user's mask gives, whatever its writer does. It is
    removed where the block raises, and what a killed process of this machine left when `path` is written
    again.
    """
    machine = f"{shortened(path.name, 100)}.{shortened(platform.node(), 64)}"
    for left in path.parent.glob(f"{glob.escape(machine)}.*.partial"):
        if not _lives(int(left.name.split(".")[-2])):
            left.unlink(missing_ok=True)
    partial = path.with_name(f"{machine}.{os.getpid()}.partial")
    try:
        partial.touch()
        rights = partial.stat().st_mode  # (to ask for the mask itself is to change it, for all threads)
        partial.unlink()
        yield partial
        if partial.stat().st_mode != rights:  # not every file system lets them be set
            partial.chmod(stat.S_IMODE(rights))
        with partial.open("r+b") as file:
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _lives(pid: int) -> bool:
    """Whether a process of this machine has this number."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        return True
    return True
