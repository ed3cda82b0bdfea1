"""The reader of audio files: all that is in them, forward, and nothing else."""

import importlib.util
import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile

from signals.audio_files import MEDIA_SUFFIXES, SUFFIXES, AudioFile, Unreadable, read_audio, stretches_of
from signals.containers import promise
from signals.mpeg import header, streams

RATE = 16_000
INPUTS = Path(__file__).parents[3] / "shared" / "inputs"
SECONDS = {  # of what people have, and what is right; None: it breaks off
    "long.mp3": 12.0,
    "vbr_quiet_first.mp3": 4.05,
    "vbr_loud_first.mp3": 4.05,
    "joined.mp3": 2.5,
    "cbr_bare.mp3": 2.04,
    "streamed.flac": 0.5,
    "gsm.wav": 1.04,
    "cut_short.wav": None,
    "cut_vorbis.ogg": None,
    "pipe_0.wav": 0.5,
    "nine_channels.wav": 0.1,
    "take_A$B_-_L$D.wav": 0.5,
    **{f"suffixes/{kind}.{kind}": 0.3 for kind in ("aifc", "au", "caf", "oga", "opus", "w64", "wav")},
}


def noise(samples: int, channels: int = 1, seed: int = 0) -> np.ndarray:
    return 0.1 * np.random.default_rng(seed).standard_normal((samples, channels)).astype(np.float32)


def mp3(path: Path, wave: np.ndarray, mode: str = "CONSTANT") -> bytes:
    soundfile.write(path, wave, RATE, format="MP3", bitrate_mode=mode)
    return path.read_bytes()


def bare(content: bytes) -> bytes:
    """An MP3 without its first frame, which tells how many there are."""
    return content[header(int.from_bytes(content[:4], "big")).size :]


def plainly(path: Path) -> np.ndarray:
    """All samples as libsndfile gives them in one read; after a seek, if only to 0, MP3s are 1e-7 off."""
    with soundfile.SoundFile(path) as file:
        return file.read(dtype="float32", always_2d=True)


@pytest.mark.skipif(not INPUTS.is_dir(), reason=f"no recordings at {INPUTS}")
@pytest.mark.parametrize(("name", "seconds"), SECONDS.items())
def test_recordings_as_people_have_them(name, seconds):
    if seconds is None:
        with pytest.raises(Unreadable, match=r"breaks off at \d\.\d\d s"):
            read_audio(INPUTS / name)
    else:
        wave, rate = read_audio(INPUTS / name)
        assert len(wave) / rate == pytest.approx(seconds, abs=0.005)


# Kinds of files -------------------------------------------------------------------------------------------

KINDS = [
    ("WAV", "PCM_16"), ("WAV", "PCM_24"), ("WAV", "FLOAT"), ("WAV", "DOUBLE"), ("WAV", "ULAW"),
    ("WAV", "IMA_ADPCM"), ("WAV", "MS_ADPCM"), ("WAV", "GSM610"), ("WAVEX", "PCM_16"), ("RF64", "PCM_16"),
    ("W64", "PCM_16"), ("AIFF", "PCM_16"), ("AU", "PCM_16"), ("CAF", "PCM_16"), ("CAF", "ALAC_16"),
    ("FLAC", "PCM_16"), ("FLAC", "PCM_24"), ("OGG", "VORBIS"), ("OGG", "OPUS"), ("MP3", "MPEG_LAYER_III"),
]  # fmt: skip


@pytest.mark.parametrize(("form", "subtype"), KINDS)
def test_every_kind_is_read_as_libsndfile_reads_it(form, subtype, tmp_path):
    path = tmp_path / "a.wav"  # whatever its suffix says
    channels = 1 if subtype == "GSM610" else 2
    soundfile.write(path, noise(9_999, channels), RATE, subtype, format=form)
    if subtype == "GSM610":  # in which soundfile's own reading seeks, and fails
        wave, rate = read_audio(path)
        assert wave.shape == (10_240, 1)
        assert np.abs(wave).max() > 0.1
        return
    wave, rate = read_audio(path)
    np.testing.assert_array_equal(wave, plainly(path))
    assert rate == soundfile.info(path).samplerate


@pytest.mark.parametrize(("form", "subtype"), [kind for kind in KINDS if kind != ("CAF", "ALAC_16")])
def test_what_breaks_off_is_named(form, subtype, tmp_path):
    path = tmp_path / "a.wav"
    soundfile.write(path, noise(5 * RATE), RATE, subtype, format=form)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(Unreadable, match=r"breaks off at [12]|undecodable"):
        read_audio(path)


@pytest.mark.parametrize("unknown", [0, 0xFFFFFFFF, 0x7FFFF000])
def test_a_wave_file_from_a_pipe_is_read_to_its_end(unknown, tmp_path):
    path = tmp_path / "a.wav"
    soundfile.write(path, noise(8000), RATE)
    content = bytearray(path.read_bytes())
    content[4:8] = content[40:44] = struct.pack("<I", unknown)
    path.write_bytes(content)
    assert read_audio(path)[0].shape == (8000, 1)


def test_a_wave_file_of_no_samples_is_empty_whatever_follows(tmp_path):
    path = tmp_path / "a.wav"
    soundfile.write(path, noise(0), RATE)
    with path.open("ab") as file:
        file.write(b"LIST" + struct.pack("<I", 4) + b"INFO")
    content = bytearray(path.read_bytes())
    content[4:8] = struct.pack("<I", len(content) - 8)
    path.write_bytes(content)
    with pytest.raises(Unreadable, match="empty"):
        read_audio(path)


def test_a_flac_of_unknown_length_is_read_to_its_end(tmp_path):
    path = tmp_path / "a.flac"
    soundfile.write(path, noise(8000), RATE)
    content = bytearray(path.read_bytes())
    content[21] &= 0xF0  # 36 bits: samples, in STREAMINFO
    content[22:26] = bytes(4)
    path.write_bytes(content)
    np.testing.assert_array_equal(read_audio(path)[0], plainly_known(path))


def plainly_known(path: Path) -> np.ndarray:
    """The samples of a FLAC whose length was struck out, under its true length."""
    content = bytearray(path.read_bytes())
    content[22:26] = struct.pack(">I", 8000)
    known = path.with_name("known.flac")
    known.write_bytes(content)
    return plainly(known)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.nan, "NaN or infinity"),
        (-np.inf, "NaN or infinity"),
        (1e30, r"samples of 1e\+30, where 1 is full"),
    ],
)
def test_what_is_no_number_is_no_sound(value, message, tmp_path):
    wave = noise(1000)
    wave[500] = value
    soundfile.write(tmp_path / "a.wav", wave, RATE, "FLOAT")
    with pytest.raises(Unreadable, match=f"holds {message}"):
        read_audio(tmp_path / "a.wav")


@pytest.mark.parametrize("content", [b"", b"RIFF", b"\xff\xfb", bytes(1000), b"ID3" + bytes(200), b"OggS"])
def test_what_is_no_sound_is_said(content, tmp_path):
    (tmp_path / "a.wav").write_bytes(content)
    with pytest.raises(Unreadable, match=r"undecodable|breaks off"):
        read_audio(tmp_path / "a.wav")


def test_what_cannot_be_opened_is_said(tmp_path):
    with pytest.raises(Unreadable, match="cannot be read: No such file or directory"):
        read_audio(tmp_path / "none.wav")
    with pytest.raises(Unreadable, match="cannot be read: Is a directory"):
        read_audio(tmp_path)


def test_media_need_pyav_and_say_so(tmp_path, monkeypatch):
    (tmp_path / "a.m4a").write_bytes(b"\0\0\0\x18ftypM4A ")
    monkeypatch.setattr("signals.audio_files.find_spec", lambda name: None)
    with pytest.raises(Unreadable, match=r'\.m4a needs PyAV: pip install -e "\.\[media\]"'):
        read_audio(tmp_path / "a.m4a")


@pytest.mark.skipif(importlib.util.find_spec("av") is None, reason="PyAV is not installed")
@pytest.mark.parametrize("suffix", [".m4a", ".mkv", ".webm"])
def test_media_are_read_by_pyav(suffix, tmp_path):
    import av

    path, wave = tmp_path / f"a{suffix}", noise(4 * RATE, 2)
    codec = {".m4a": "aac", ".mkv": "pcm_f32le", ".webm": "libopus"}[suffix]
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=RATE, layout="stereo")
        frame = av.AudioFrame.from_ndarray(wave.reshape(1, -1), "flt", "stereo")
        frame.rate = RATE
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    found, rate = read_audio(path)
    assert found.shape[1] == 2
    assert len(found) / rate == pytest.approx(len(wave) / RATE, abs=0.1)  # encoders pad
    if suffix == ".mkv":
        np.testing.assert_array_equal(found, wave)
    path.write_bytes(b"nothing")
    with pytest.raises(Unreadable, match="undecodable: Invalid data"):
        read_audio(path)


def test_suffixes_are_of_one_reader_each():
    assert not SUFFIXES & MEDIA_SUFFIXES
    assert all(suffix.startswith(".") and suffix == suffix.lower() for suffix in SUFFIXES | MEDIA_SUFFIXES)


# MP3 ------------------------------------------------------------------------------------------------------


def test_an_mp3_without_a_length_is_decoded_to_its_end(tmp_path):
    wave = np.concatenate([noise(2 * RATE) * 0.001, noise(2 * RATE)])
    path = tmp_path / "a.mp3"
    path.write_bytes(bare(mp3(path, wave, "VARIABLE")))
    (stream,) = streams(path)
    assert stream.stated is None
    found, _ = read_audio(path)
    assert len(found) == stream.frames * 576
    guessed = plainly(path)
    assert len(guessed) != len(found)
    shared = min(len(guessed), len(found))
    np.testing.assert_array_equal(found[:shared], guessed[:shared])


def test_joined_mp3s_are_read_one_after_the_other(tmp_path):
    parts = [mp3(tmp_path / f"{seed}.mp3", noise(RATE + seed, seed=seed)) for seed in range(3)]
    path = tmp_path / "joined.mp3"
    path.write_bytes(b"".join(parts))
    expected = np.concatenate([plainly(tmp_path / f"{seed}.mp3") for seed in range(3)])
    np.testing.assert_array_equal(read_audio(path)[0], expected)


def test_a_tag_that_tells_of_too_few_frames_cuts_nothing(tmp_path):
    path = tmp_path / "a.mp3"
    content = bytearray(mp3(path, noise(2 * RATE)))
    whole = plainly(path)
    place = streams(path)[0].count_at
    content[place : place + 4] = struct.pack(">I", 10)
    path.write_bytes(content)
    assert len(plainly(path)) < len(whole) / 2
    np.testing.assert_array_equal(read_audio(path)[0], whole)


def test_tags_and_junk_between_frames_are_skipped(tmp_path):
    content = mp3(tmp_path / "a.mp3", noise(RATE))
    whole = plainly(tmp_path / "a.mp3")
    tag = b"ID3\x04\0\0\0\0\x04\x00" + b"\xff\xfb" * 256
    (tmp_path / "b.mp3").write_bytes(tag + content + b"TAG" + bytes(125))
    np.testing.assert_array_equal(read_audio(tmp_path / "b.mp3")[0], whole)


def test_mp3s_of_several_rates_are_not_joined(tmp_path):
    first = mp3(tmp_path / "a.mp3", noise(RATE))
    soundfile.write(tmp_path / "b.mp3", noise(RATE), 48_000, format="MP3")
    (tmp_path / "c.mp3").write_bytes(first + (tmp_path / "b.mp3").read_bytes())
    with pytest.raises(Unreadable, match="joined of unlike parts"):
        read_audio(tmp_path / "c.mp3")


# Stretches ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["WAV", "FLAC", "MP3", "OGG"])
def test_stretches_are_those_of_the_whole(form, tmp_path):
    path = tmp_path / "a"
    soundfile.write(path, noise(7 * RATE, 2), RATE, format=form)
    whole = plainly(path)
    rng = np.random.default_rng(0)
    with AudioFile(path) as file:
        read = stretches_of(file)
        places = [(first, 9000) for first in range(-3000, len(whole) + 3000, 5000)]  # as windows lie
        places += [(int(rng.integers(-5000, len(whole))), int(rng.integers(1, 30_000))) for _ in range(40)]
        for first, count in places:
            expected = np.zeros((count, 2), np.float32)
            start, stop = max(first, 0), min(first + count, len(whole))
            if start < stop:
                expected[start - first : stop - first] = whole[start:stop]
            np.testing.assert_array_equal(read(first, count), expected)


def test_windows_that_overlap_decode_the_file_once(tmp_path, monkeypatch):
    path = tmp_path / "a.wav"
    soundfile.write(path, noise(200_000), RATE)
    with AudioFile(path) as file:
        monkeypatch.setattr(file, "rewind", lambda: pytest.fail("it was read again"))
        read = stretches_of(file)
        for first in range(-500, 200_000, 3000):
            read(first, 9000)
            read(first + 100, 5000)


def test_a_promise_is_of_bytes(tmp_path):
    path = tmp_path / "a.wav"
    soundfile.write(path, noise(1000), RATE)
    assert promise(path)[:2] == (2000, 2000)
    path.write_bytes(path.read_bytes()[:-500])
    assert promise(path)[:2] == (2000, 1500)
    assert promise(path).broken
