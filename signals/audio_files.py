"""The one reader of audio files: forward only, to the end, and nothing that is not in the file.

Every command reads recordings here. libsndfile decodes; what it does not know (the sound of a video, .m4a,
.wma) PyAV does where it is installed. Neither a length nor a seek of libsndfile is trusted: it guesses the
length of an MP3, shortens what breaks off, and after a seek in an MP3 the samples are wrong for a while.
Where a container states its exact length, less is an error and more is read.
"""

import os
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

import numpy as np

from signals.containers import Promise, promise
from signals.errors import UserError
from signals.mpeg import Bytes, Stream, as_file, may_be_mpeg, streams

BLOCK = 2**16  # samples that are decoded at once
LOUDEST = 1e6  # times full scale: what is louder is no sound
UNSTATED = 2**48  # samples: from here on libsndfile says that it does not know the length
# What libsndfile reads, and what only FFmpeg does.
_SNDFILE = ".wav .wave .rf64 .w64 .flac .mp3 .ogg .oga .opus .aiff .aif .aifc .au .snd .caf"
_MEDIA = ".m4a .m4b .mp4 .m4v .mov .3gp .aac .ac3 .wma .wmv .asf .webm .mkv .mka .avi .amr .ape .wv .tta"
SUFFIXES, MEDIA_SUFFIXES = frozenset(_SNDFILE.split(" ")), frozenset(_MEDIA.split(" "))


class Unreadable(UserError):
    """A file that cannot be read, or not to its end; the message does not name it."""


class Decoder(Protocol):
    """Sound from its beginning to its end. read: at most so many samples [T, C]; none at the end."""

    rate: int
    channels: int
    frames: int | None  # None: unknown until all is read

    def read(self, count: int) -> np.ndarray: ...

    def close(self) -> None: ...


class Sndfile:
    """What libsndfile decodes, of a path or of an object that reads like a file."""

    def __init__(self, source: Path | Bytes):
        import soundfile

        class Forward(soundfile.SoundFile):
            """Else soundfile seeks after every read, which GSM and MP3 do not bear."""

            def seekable(self) -> bool:
                return False

        self.errors, self.source = soundfile.LibsndfileError, source
        try:
            self.file = Forward(source if isinstance(source, Bytes) else os.fsencode(source))
        except self.errors as error:
            raise Unreadable(f"undecodable: {error.error_string}") from None
        self.rate, self.channels = self.file.samplerate, self.file.channels
        self.frames = self.file.frames if 0 <= self.file.frames < UNSTATED else None

    def read(self, count: int) -> np.ndarray:
        try:
            return self.file.read(count, dtype="float32", always_2d=True)
        except self.errors as error:
            raise Unreadable(f"undecodable: {error.error_string}") from None

    def close(self) -> None:
        self.file.close()
        if isinstance(self.source, Bytes):
            self.source.close()


class Mpeg:
    """An MP3: its streams one after the other, each decoded to its end by libsndfile."""

    def __init__(self, path: Path, parts: list[Stream]):
        self.path, self.parts = path, iter(parts)
        self.part = Sndfile(as_file(next(self.parts), path))
        self.rate, self.channels, self.frames = self.part.rate, self.part.channels, None

    def read(self, count: int) -> np.ndarray:
        while True:
            wave = self.part.read(count)
            if len(wave) or (following := next(self.parts, None)) is None:
                return wave
            self.part.close()
            self.part = Sndfile(as_file(following, self.path))
            if (self.part.rate, self.part.channels) != (self.rate, self.channels):
                raise Unreadable(f"joined of unlike parts ({self.rate:,} and {self.part.rate:,} Hz)")

    def close(self) -> None:
        self.part.close()


class Media:
    """What FFmpeg decodes (by PyAV): the first sound of a file of any kind."""

    def __init__(self, path: Path):
        import av

        self.errors = av.error.FFmpegError
        try:
            self.container = av.open(str(path))
            stream = next(iter(self.container.streams.audio), None)
            if stream is None:
                raise Unreadable("undecodable: there is no sound in it")
            self.rate, self.channels, self.frames = stream.rate, stream.channels, None
            self.resampler = av.AudioResampler("flt", stream.layout, stream.rate)
            self.decoded = self._decode(stream)
        except self.errors as error:
            raise Unreadable(f"undecodable: {error.strerror}") from None
        self.rest = np.zeros((0, self.channels), np.float32)

    def _decode(self, stream) -> Iterator[np.ndarray]:
        for frame in self.container.decode(stream):
            yield from map(self._samples, self.resampler.resample(frame))
        yield from map(self._samples, self.resampler.resample(None))

    def _samples(self, frame) -> np.ndarray:
        return frame.to_ndarray().reshape(-1, self.channels)

    def read(self, count: int) -> np.ndarray:
        parts, held = [self.rest], len(self.rest)
        try:
            while held < count and (wave := next(self.decoded, None)) is not None:
                parts.append(wave)
                held += len(wave)
        except self.errors as error:
            raise Unreadable(f"undecodable: {error.strerror}") from None
        whole = np.concatenate(parts)
        self.rest = whole[count:]
        return whole[:count]

    def close(self) -> None:
        self.container.close()


def decoder(path: Path, promised: Promise) -> Decoder:
    """The decoder of a file, by what is in it, and by its suffix where libsndfile does not know that."""
    if path.suffix.lower() in MEDIA_SUFFIXES:
        if find_spec("av") is None:
            raise Unreadable(f'{path.suffix} needs PyAV: pip install -e ".[media]", or convert it to .wav')
        return Media(path)
    if promised.patch[1]:
        return Sndfile(Bytes(path.open("rb"), 0, os.path.getsize(path), patch=promised.patch))
    parts = streams(path) if may_be_mpeg(path) else []
    if any(part.cut for part in parts):
        raise Unreadable(f"breaks off at {sum(part.frames * part.frame_seconds for part in parts):.2f} s")
    if parts and not (len(parts) == 1 and parts[0].true):
        return Mpeg(path, parts)
    return Sndfile(path)


class AudioFile:
    """A recording on disk that is read forward, by stretches, as float32 in -1 to 1.

    rate: Hz. channels: how many. frames: samples of each channel, which is what reading gives. Raises
    Unreadable where the file cannot be read, is empty, or its container states more than there is.
    """

    def __init__(self, path: Path | str):
        self.path = Path(path)
        self._begin()
        self.rate, self.channels = self._decoder.rate, self._decoder.channels
        self.frames = self._decoder.frames
        if self.frames is None:
            self.frames = self._count()
        if self.promised.broken:
            raise self._closed(self._broken(self.frames))
        if not self.frames:
            raise self._closed(Unreadable("empty"))

    def _begin(self) -> None:
        try:
            self.promised = promise(self.path)
            self._decoder, self.place = decoder(self.path, self.promised), 0
        except OSError as error:
            raise Unreadable(f"cannot be read: {error.strerror or error}") from None

    def _count(self) -> int:
        """Samples of a file that does not state them, by decoding it once."""
        total = 0
        while block := len(self._decoder.read(BLOCK)):
            total += block
        self.rewind()
        return total

    def _broken(self, at: int) -> Unreadable:
        return Unreadable(f"breaks off at {at / self.rate:.2f} s")

    def _closed(self, error: Unreadable) -> Unreadable:
        self.close()
        return error

    def read(self, count: int) -> np.ndarray:
        """The next samples [T, C], at most `count` of them; fewer at the end only.

        Raises Unreadable where the file breaks off, is damaged, or holds NaN or infinity.
        """
        blocks, wanted = [], min(count, self.frames - self.place)
        while wanted > 0:
            block = self._decoder.read(min(wanted, BLOCK))
            if not len(block):
                raise self._broken(self.place)
            if not (peak := float(np.abs(block).max())) <= LOUDEST:
                kind = f"samples of {peak:.1g}, where 1 is full scale" if peak < np.inf else "NaN or infinity"
                raise Unreadable(f"holds {kind}")
            blocks.append(block)
            wanted -= len(block)
            self.place += len(block)
        return np.concatenate(blocks) if blocks else np.zeros((0, self.channels), np.float32)

    def stretches(self, count: int) -> Iterator[np.ndarray]:
        """All that is not yet read, at most `count` samples [T, C] at a time."""
        while self.place < self.frames:
            yield self.read(count)

    def rewind(self) -> None:
        """Back to the beginning, by opening the file anew: no decoder is asked to seek."""
        self.close()
        self._begin()

    def close(self) -> None:
        self._decoder.close()

    def __enter__(self) -> "AudioFile":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def read_audio(path: Path | str) -> tuple[np.ndarray, int]:
    """A whole file: its samples [T, C] and its rate in Hz. Raises Unreadable."""
    with AudioFile(path) as file:
        try:
            return file.read(file.frames), file.rate
        except MemoryError:
            raise Unreadable(f"{file.frames:,} samples are too many for the memory") from None


def stretches_of(file: AudioFile) -> Callable[[int, int], np.ndarray]:
    """A reader (first sample, how many) -> [T, C], silence outside, of stretches that mostly go forward.

    What neighbours may share is kept: as much as the longest stretch, behind what was read. Who goes back
    further has the file read from its beginning again.
    """
    kept = np.zeros((0, file.channels), np.float32)  # the samples before `file.place`
    longest = 0

    def read(first: int, count: int) -> np.ndarray:
        nonlocal kept, longest
        longest = max(longest, count)
        start, stop = max(first, 0), min(first + count, file.frames)
        out = np.zeros((count, file.channels), np.float32)
        if start >= stop:
            return out
        if start < file.place - len(kept):
            file.rewind()
            kept = kept[:0]
        while file.place < start:  # what nobody asked for
            kept = file.read(min(BLOCK, start - file.place))
        if file.place < stop:
            kept = np.concatenate([kept[max(0, len(kept) - longest) :], file.read(stop - file.place)])
        begin = file.place - len(kept)
        out[start - first : stop - first] = kept[start - begin : stop - begin]
        return out

    return read
