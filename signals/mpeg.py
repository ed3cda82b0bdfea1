"""MP3 files as streams of frames: how many there are, whatever a header says or guesses.

An MP3 has no length of its own. Its first frame may be a tag (Xing, Info, VBRI) that states the number of
frames; without one libsndfile guesses it by the size of the file, and where files were joined the tag
speaks of the first only. It decodes no further than that. So the frames are counted, and each stream is
handed to libsndfile as a file of its own: with the true number, or so long that no guess falls short.
"""

import io
import mmap
import os
import struct
from pathlib import Path
from typing import BinaryIO, NamedTuple

BITRATES = {  # kbit/s by (MPEG 1, layer); the index 0 is a free format, 15 is forbidden
    (True, 1): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
GUESSED = 64  # times its size: more than the ratio of bit rates by which a length may be guessed too short
OLD_TAG = 128  # bytes of a tag at the end of a file
RATES = (44_100, 48_000, 32_000)  # Hz, of MPEG 1; halved in MPEG 2, halved again in 2.5


class Header(NamedTuple):
    """What the four bytes before each frame say."""

    size: int  # bytes of the frame
    rate: int  # Hz
    samples: int  # of the frame
    kind: int  # bits that are the same in all frames of a stream: version, layer, rate
    side: int  # bytes of side information, behind which a tag lies


def header(word: int) -> Header | None:
    """Reads the 32 bits before a frame; None where they are no such."""
    version, layer = word >> 19 & 3, 4 - (word >> 17 & 3)
    index, rate_index = word >> 12 & 15, word >> 10 & 3
    if word >> 21 != 0x7FF or version == 1 or layer == 4 or index in (0, 15) or rate_index == 3:
        return None
    first = version == 3
    rate = RATES[rate_index] // (1 if first else 2 if version == 2 else 4)
    bits, padding = BITRATES[first, layer][index - 1] * 1000, word >> 9 & 1
    samples = 384 if layer == 1 else 1152 if first or layer == 2 else 576
    size = (12 * bits // rate + padding) * 4 if layer == 1 else samples // 8 * bits // rate + padding
    mono = word >> 6 & 3 == 3
    side = (17 if mono else 32) if first else (9 if mono else 17)
    return Header(size, rate, samples, word & 0xFFFE0C00, side)


class Stream(NamedTuple):
    """Frames of one encoding, from byte `start` to `stop`. tag: where its frame count is stated, if it is."""

    start: int
    stop: int
    frames: int  # that are there, without the one that holds the tag
    stated: int | None  # that the tag tells of
    count_at: int | None  # byte of the tag's number
    frame_seconds: float

    @property
    def true(self) -> bool:
        """Whether the tag tells of all the frames."""
        return self.stated is not None and self.frames <= self.stated <= self.frames + 1

    @property
    def cut(self) -> bool:
        """Whether the tag tells of more frames than there are (some count the tag's own, too)."""
        return self.stated is not None and self.frames + 1 < self.stated


def tag_of(data: bytes, at: int, found: Header) -> tuple[bool, int | None]:
    """Whether the frame at byte `at` holds a tag, and the byte of its number of frames (None: not stated)."""
    place = at + 4 + found.side
    if data[place : place + 4] in (b"Xing", b"Info"):
        return True, place + 8 if data[place + 7] & 1 else None
    if data[at + 36 : at + 40] == b"VBRI":
        return True, at + 50
    return False, None


def may_be_mpeg(path: Path) -> bool:
    """Whether a file begins as MP3s do: with a frame, or with a tag that others have, too (ID3)."""
    with path.open("rb") as file:
        head = file.read(4)
    return head[:3] == b"ID3" or header(int.from_bytes(head, "big")) is not None


def streams(path: Path) -> list[Stream]:
    """All streams of an MP3, in order; none where its frames cannot be followed (a free format)."""
    found: list[Stream] = []
    if not os.path.getsize(path):
        return found
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        at, end, lost = 0, len(data), True
        while at + 4 <= end:
            frame = header(int.from_bytes(data[at : at + 4], "big"))
            if frame is None or (lost and not _followed(data, at, frame)):
                lost, at = True, _skipped(data, at, end)
                continue
            lost = False
            if at + frame.size > end:  # broken off within a frame
                break
            is_tag, count_at = tag_of(data, at, frame)
            if is_tag or not found:
                stated = None if count_at is None else int.from_bytes(data[count_at : count_at + 4], "big")
                seconds = frame.samples / frame.rate
                found.append(Stream(at, at + frame.size, 0 if is_tag else 1, stated, count_at, seconds))
            else:
                last = found[-1]
                found[-1] = last._replace(stop=at + frame.size, frames=last.frames + 1)
            at += frame.size
    return [stream for stream in found if stream.frames]


def _followed(data: bytes, at: int, frame: Header) -> bool:
    """Whether another frame of this kind follows, or the file ends: four bytes may look so by chance."""
    after = at + frame.size
    if after + 4 > len(data):
        return after <= len(data)
    following = header(int.from_bytes(data[after : after + 4], "big"))
    return following is not None and following.kind == frame.kind


def _skipped(data: bytes, at: int, end: int) -> int:
    """The next byte at which a frame may begin: behind a tag of any length (ID3), or at the next 0xFF."""
    if data[at : at + 3] == b"ID3" and at + 10 <= end:
        size = sum((byte & 127) << 7 * place for place, byte in enumerate(reversed(data[at + 6 : at + 10])))
        return at + 10 + size
    following = data.find(b"\xff", at + 1)
    return end if following < 0 else following


class Bytes(io.RawIOBase):
    """A part of a file as a file of its own, some of whose bytes read otherwise.

    unsized: it says that it is far longer than it is, for who guesses a length by that. Behind its end
    nothing is read, but for the last bytes, where an old kind of tag may be looked for.
    """

    def __init__(
        self,
        file: BinaryIO,
        start: int,
        stop: int,
        patch: tuple[int, bytes] = (0, b""),
        unsized: bool = False,
    ):
        super().__init__()
        self.file, self.start, self.patch, self.at = file, start, patch, 0
        self.held = stop - start
        self.size = GUESSED * self.held + OLD_TAG if unsized else self.held

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self.at = max(0, offset + {os.SEEK_SET: 0, os.SEEK_CUR: self.at, os.SEEK_END: self.size}[whence])
        return self.at

    def readinto(self, buffer) -> int:
        if self.at < self.held:
            content = self._held(min(len(buffer), self.held - self.at))
        else:
            content = bytes(min(len(buffer), self.size - self.at) if self.at >= self.size - OLD_TAG else 0)
        buffer[: len(content)] = content
        self.at += len(content)
        return len(content)

    def _held(self, count: int) -> bytes:
        place, (where, new) = self.start + self.at, self.patch
        self.file.seek(place)
        content = bytearray(self.file.read(count))
        for offset, byte in enumerate(new, where - place):
            if 0 <= offset < len(content):
                content[offset] = byte
        return bytes(content)

    def close(self) -> None:
        if not self.closed:
            self.file.close()
        super().close()


def as_file(stream: Stream, path: Path) -> Bytes:
    """One stream of an MP3 as a file of its own, of which all frames are decoded."""
    patch = (0, b"")
    if stream.stated is not None and not stream.true and not stream.cut:  # the tag tells of too few
        patch = (stream.count_at, struct.pack(">I", stream.frames))
    return Bytes(path.open("rb"), stream.start, stream.stop, patch, unsized=stream.stated is None)
