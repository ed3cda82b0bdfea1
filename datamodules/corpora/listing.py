"""Listings of folders: audio files, links that are followed, and what is left out, by name."""

import os
import stat
from collections import Counter
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path

from signals.audio_files import MEDIA_SUFFIXES, SUFFIXES
from signals.names import is_text, one_line

FORMER_SUFFIXES = frozenset({".flac", ".wav", ".mp3", ".ogg", ".aiff", ".aif"})  # whose ids are settled
AUDIO_SUFFIXES = SUFFIXES  # libsndfile reads these, and PyAV MEDIA_SUFFIXES
LISTED_SUFFIXES = AUDIO_SUFFIXES | MEDIA_SUFFIXES


class Listing(list[Path]):
    """Audio files in order; `left_out`: a line for each link, folder or name that could not be followed."""

    def __init__(self, paths: Iterable[Path] = (), left_out: Iterable[str] = ()):
        super().__init__(paths)
        self.left_out = tuple(left_out)


class Walk:
    """A walk through a folder and all that its links lead to, `depth` folders deep (None: any).

    What begins with a dot is the system's (macOS's ._1.wav) and is not looked at.
    """

    def __init__(self, depth: int | None = None):
        self.depth = depth
        self.left_out: list[str] = []

    def leave_out(self, path: str, why: str) -> None:
        self.left_out.append(one_line(f"{path}: {why}"))

    def files(self, folder: str, above: tuple[tuple[int, int], ...] = ()) -> Iterator[str]:
        """Paths of its files. above: device and number of all folders on the way: none is entered again."""
        try:
            found = os.stat(folder)
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError as error:
            return self.leave_out(folder, f"cannot be read: {error.strerror}")
        above = (*above, (found.st_dev, found.st_ino))
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if not is_text(entry.name):
                if self.may_be_audio(entry):
                    self.leave_out(entry.path, "its name is not UTF-8: rename it")
                continue
            yield from self.entry(entry, above)

    def entry(self, entry: os.DirEntry, above: tuple[tuple[int, int], ...]) -> Iterator[str]:
        """What one entry of a folder leads to."""
        try:
            found = entry.stat()
        except OSError as error:
            if self.may_be_audio(entry):
                nowhere = entry.is_symlink() and isinstance(error, FileNotFoundError)
                why = "leads nowhere" if nowhere else f"cannot be read: {error.strerror}"
                self.leave_out(entry.path, f"a link that {why}" if nowhere else why)
            return
        if stat.S_ISREG(found.st_mode):
            yield entry.path
        elif stat.S_ISDIR(found.st_mode):
            if (found.st_dev, found.st_ino) in above:
                self.leave_out(entry.path, "a link to a folder that it is in itself")
            elif self.depth is None or len(above) <= self.depth:
                yield from self.files(entry.path, above)
        elif self.may_be_audio(entry):
            self.leave_out(entry.path, "neither a file nor a folder")

    @staticmethod
    def may_be_audio(entry: os.DirEntry) -> bool:
        """By its name: that of a recording, or of a folder."""
        suffix = os.path.splitext(entry.name)[1].lower()
        return suffix in LISTED_SUFFIXES or os.path.isdir(entry.path) or (entry.is_symlink() and not suffix)


def matches(inside: Path, pattern: str) -> bool:
    """Whether a path is like a pattern, part by part. A leading `**/` is any number of folders."""
    wanted = pattern.split("/")
    if wanted[0] == "**":
        wanted = wanted[1:]
    elif len(inside.parts) != len(wanted):
        return False
    parts = inside.parts[len(inside.parts) - len(wanted) :]
    return len(parts) == len(wanted) and all(map(fnmatchcase, parts, wanted))


def audio_below(folder: Path, pattern: str = "**/*") -> Listing:
    """Audio files like `pattern`, in order, links followed; with what is left out, and why.

    Files whose suffix needs PyAV are there, too: whoever reads them says so where it is not installed.
    """
    walk = Walk(None if pattern.startswith("**") else pattern.count("/"))
    found = (Path(path) for path in walk.files(str(folder)))
    audio = [path for path in found if path.suffix.lower() in LISTED_SUFFIXES]
    wanted = (path for path in audio if matches(path.relative_to(folder), pattern))
    return Listing(sorted(wanted), walk.left_out)


def ids_of(paths: Iterable[Path]) -> list[str]:
    """Paths without their suffix, but where another would be the same without it: a.wav beside a.flac.

    A file of a suffix that was not listed formerly changes the id of no other: a.wav is a, and a.m4a a.m4a.
    """
    paths = list(paths)
    alike = Counter(path.with_suffix("") for path in paths)
    formerly = Counter(path.with_suffix("") for path in paths if path.suffix.lower() in FORMER_SUFFIXES)

    def whole(path: Path) -> bool:
        counted = formerly if path.suffix.lower() in FORMER_SUFFIXES else alike
        return counted[path.with_suffix("")] > 1

    return [(path if whole(path) else path.with_suffix("")).as_posix() for path in paths]


def contents(folder: Path) -> str:
    """What a folder holds, in a few words: `31 .wav, 2 .txt`."""
    walk = Walk()
    suffixes = Counter(Path(path).suffix.lower() or "without a suffix" for path in walk.files(str(folder)))
    told = [f"{count:,} {suffix}" for suffix, count in suffixes.most_common(3)]
    told += ["others"] if len(suffixes) > 3 else []
    return ", ".join(told) or "no file"
