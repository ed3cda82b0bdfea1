"""What the containers of audio files promise: how many bytes of sound, and whether these are there.

libsndfile shortens a promise to what it finds, so that a file that breaks off looks whole, and takes a size
of 0, as programs leave it that write into a pipe, for an empty file.
"""

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

UNKNOWN = 0x7FFFF000  # bytes: from here on a 32-bit size means that the writer did not know it
W64_DATA = b"data\xf3\xac\xd3\x11\x8c\xd1\x00\xc0\x4f\x8e\xdb\x8a"
TAIL = 2**17  # bytes, more than the longest Ogg page has


class Promise(NamedTuple):
    """Bytes of sound that a container states and that are there; where the size of unknown length stands."""

    stated: int | None  # None: unknown
    there: int
    patch: tuple[int, bytes] = (0, b"")  # the place of a size that is wrong, and the true one

    @property
    def broken(self) -> bool:
        return self.stated is not None and self.there < self.stated


def promise(path: Path) -> Promise:
    """What a file promises; unknown for kinds that keep their word otherwise (FLAC, MP3)."""
    size = os.path.getsize(path)
    with open(path, "rb") as file:
        head = file.read(40)
        if head[:4] in (b"RIFF", b"RIFX", b"RF64"):
            return _riff(file, head, size)
        if head[:4] == b"riff" and head[24:28] == b"wave":
            return _w64(file, size)
        if head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC"):
            return _aiff(file, size)
        if head[:4] in (b".snd", b"dns."):
            start, stated = struct.unpack(">II" if head[:1] == b"." else "<II", head[4:12].ljust(8, b"\0"))
            return Promise(stated if stated < UNKNOWN else None, max(0, size - start))
        if head[:4] == b"caff":
            return _caf(file, size)
        if head[:4] == b"OggS":
            return Promise(size if _ogg_ends(file, size) else size + 1, size)
    return Promise(None, size)


def _chunks(file: BinaryIO, at: int, form: str, size: int) -> Iterator[tuple[bytes, int, int]]:
    """Name, first byte and size of each chunk from byte `at` on. form: how a name and a size are written."""
    head = struct.calcsize(form)
    while at + head <= size:
        file.seek(at)
        name, count = struct.unpack(form, file.read(head))
        yield name, at + head, count
        at += head + count + count % 2


def _riff(file: BinaryIO, head: bytes, size: int) -> Promise:
    form = ">4sI" if head[:4] == b"RIFX" else "<4sI"
    (whole,) = struct.unpack(form[0] + "I", head[4:8].ljust(4, b"\0"))
    long = None
    for name, start, stated in _chunks(file, 12, form, size):
        if name == b"ds64":
            file.seek(start + 8)
            (long,) = struct.unpack("<Q", file.read(8).ljust(8, b"\0"))
        if name == b"data":
            there = size - start
            if stated == 0xFFFFFFFF and long is not None:
                return Promise(long, there)
            piped = stated == 0 and (whole + 8 <= start or whole >= UNKNOWN)
            if piped and there:  # a size of 0 where more follows that no chunk holds
                return Promise(None, there, (start - 4, struct.pack(form[0] + "I", min(there, 0xFFFFFFFE))))
            return Promise(stated if stated < UNKNOWN else None, there)
    return Promise(None, size)


def _w64(file: BinaryIO, size: int) -> Promise:
    at = 40  # behind the names riff, its size, and wave
    while at + 24 <= size:
        file.seek(at)
        name, count = struct.unpack("<16sQ", file.read(24))
        if name == W64_DATA:
            return Promise(count - 24, size - at - 24)
        at += max(24, -(-count // 8) * 8)
    return Promise(None, size)


def _aiff(file: BinaryIO, size: int) -> Promise:
    for name, start, stated in _chunks(file, 12, ">4sI", size):
        if name == b"SSND":
            return Promise(stated if 0 < stated < UNKNOWN else None, size - start)
    return Promise(None, size)


def _caf(file: BinaryIO, size: int) -> Promise:
    at = 8
    while at + 12 <= size:
        file.seek(at)
        name, count = struct.unpack(">4sq", file.read(12))
        if name == b"data":
            return Promise(None if count < 0 else count, size - at - 12)
        at += 12 + max(0, count)
    return Promise(None, size)


def _ogg_ends(file: BinaryIO, size: int) -> bool:
    """Whether the last page is whole and says that it is the last."""
    start = max(0, size - TAIL)
    file.seek(start)
    tail = file.read()
    at = tail.rfind(b"OggS")
    if at < 0 or at + 27 > len(tail):
        return False
    segments = tail[at + 27 : at + 27 + tail[at + 26]]
    whole = len(segments) == tail[at + 26] and at + 27 + len(segments) + sum(segments) <= len(tail)
    return whole and bool(tail[at + 5] & 4)
