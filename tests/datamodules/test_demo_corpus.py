"""The demo corpus: layouts, the same bytes for the same seed, full band, and speech that is like speech."""

import csv
from pathlib import Path

import numpy as np
import pytest
import soundfile
from scipy.signal import welch

from datamodules import demo_corpus
from datamodules.corpora import select
from datamodules.demo_corpus import PARTS, RATE, is_demo, pulses, render, shaped, write_demo_corpus


def draw(index: int, seed: int = 0) -> np.ndarray:
    return render(demo_corpus.plan(seed)[index], np.random.default_rng([seed, index]))


@pytest.fixture
def root(demo_corpus) -> Path:
    return demo_corpus


SOUNDING = [part for part in PARTS if part != "fma_metadata"]


def audio(root: Path, part: str) -> list[Path]:
    return sorted(path for path in (root / part).rglob("*") if path.suffix in (".flac", ".wav", ".mp3"))


def test_layouts(root):
    assert [len(audio(root, part)) for part in SOUNDING] == [32, 48, 24, 30, 12, 38, 20, 8, 15]
    vctk = root / "VCTK-Corpus-0.92/wav48_silence_trimmed"
    assert {path.name: len(list(path.glob(f"{path.name}_???_mic1.flac"))) for path in vctk.iterdir()} == {
        **dict.fromkeys(("p225", "p226", "p227", "p228", "p347", "p351"), 4),
        **dict.fromkeys(("p360", "p361", "p362", "p363"), 2),
    }
    assert [len(list((root / part).iterdir())) for part in ("speech", "music", "effects")] == [8, 6, 5]
    assert not list(root.rglob("*/*.part"))


def test_voicebank_is_divided_as_the_official_one(root):
    found = {split: select(root, split, "voicebank") for split in ("train", "validation", "test")}
    speakers = {split: sorted({item.group for item in part.items}) for split, part in found.items()}
    assert speakers == {
        "train": ["p230", "p231", "p233", "p236"],
        "validation": ["p226"],
        "test": ["p232", "p257"],
    }
    assert [len(part.items) for part in found.values()] == [24, 6, 8]
    assert all(part.stand_in for part in found.values())
    assert found["validation"].items[0].path == root / "VoiceBank/clean_trainset_28spk_wav/p226_001.wav"


def test_what_is_added_comes_last():
    """An item's place is part of its seed: the files before it keep their samples."""
    folders = [item.path.split("/")[0] for item in demo_corpus.plan(0)]
    assert list(dict.fromkeys(folders)) == SOUNDING


def test_formats_and_lengths(root):
    spans = {
        "VCTK-Corpus-0.92": (2.5, 4),
        "speech": (2.5, 4),
        "music": (5, 6),
        "effects": (2, 5),
        "ESC-50": (5, 5),
        "VoiceBank": (2.5, 4),
        "fma_small": (6, 7.06),  # and what the encoder adds
        "beethoven": (6, 8),
        "musdb18hq": (6, 6),
    }
    rates = {"ESC-50": 44_100, "fma_small": 44_100, "musdb18hq": 44_100, "beethoven": 16_000}
    for part, (least, most) in spans.items():
        for path in audio(root, part):
            info = soundfile.info(path)
            assert info.channels == (2 if part == "musdb18hq" else 1)
            assert info.subtype == ("MPEG_LAYER_III" if part == "fma_small" else "PCM_16")
            assert info.samplerate == rates.get(part, 48_000)
            assert least - 0.01 <= info.duration <= most
            peak = np.abs(soundfile.read(path)[0]).max()
            assert 0.09 < peak < 0.97 if part == "musdb18hq" else 0.28 < peak < 0.75


def test_the_table_of_fma_divides_its_tracks_by_artist(root):
    found = {split: select(root, split, "fma") for split in ("train", "validation", "test")}
    assert [len(part.items) for part in found.values()] == [12, 4, 4]
    assert {item.path for part in found.values() for item in part.items} == set(audio(root, "fma_small"))
    artists = [{item.group for item in part.items} for part in found.values()]
    assert [len(names) for names in artists] == [6, 2, 2] and len(set.union(*artists)) == 10
    assert all(part.stand_in for part in found.values())
    divided = [select(root, split, "fma", division="cukaj").items for split in found]
    assert [len(items) for items in divided] == [16, 2, 2]


def test_every_split_of_beethoven_and_musdb_has_something(root):
    for corpus, counts in {"beethoven": [4, 2, 2], "musdb18hq": [1, 1, 1]}.items():
        found = [select(root, split, corpus) for split in ("train", "validation", "test")]
        assert [len(part.items) for part in found] == counts
        assert all(part.stand_in for part in found)


def test_a_mixture_is_the_sum_of_its_stems(root):
    for mixture in (root / "musdb18hq").rglob("mixture.wav"):
        stems = [path for path in audio(mixture.parent, ".") if path != mixture]
        assert [path.stem for path in stems] == ["bass", "drums", "other", "vocals"]
        waves = [soundfile.read(path, dtype="int16")[0].astype(int) for path in stems]
        assert np.array_equal(soundfile.read(mixture, dtype="int16")[0], sum(waves))
        assert not np.array_equal(waves[0][:, 0], waves[0][:, 1])


def test_esc50_table_names_the_clips(root):
    with open(root / "ESC-50/meta/esc50.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["filename", "fold", "target", "category", "esc10", "src_file", "take"]
    assert sorted(row["filename"] for row in rows) == [path.name for path in audio(root, "ESC-50/audio")]
    for row in rows:
        assert row["filename"] == f"{row['fold']}-{row['src_file']}-{row['take']}-{row['target']}.wav"


@pytest.mark.parametrize("part", [part for part in SOUNDING if part not in ("fma_small", "beethoven")])
def test_every_file_is_full_band(root, part):
    """Beyond 16 and 20 kHz the spectrum stands 15 dB over the noise of quantisation, LSB²/12 in all."""
    for path in audio(root, part):
        wave, rate = soundfile.read(path, always_2d=True)
        wave = wave[:, 0]
        frequency, density = welch(wave, rate, nperseg=2048)
        floor = 2.0**-30 / 12 / (rate / 2)
        for low, high in ((16_000, 20_000), (20_000, 21_500)):
            level = density[(frequency > low) & (frequency < high)].mean()
            assert 10 * np.log10(level / floor) > 15, path


def test_speech_is_not_noise(root):
    """Its long-term spectrum falls as that of speech, and its flatness is far below white noise's."""
    waves = np.concatenate([soundfile.read(path)[0] for path in audio(root, "speech")])
    frequency, density = welch(waves, RATE, nperseg=2048)
    assert np.exp(np.log(density).mean()) / density.mean() < 0.03  # of white noise: 1
    low = density[(frequency > 200) & (frequency < 800)].mean()
    high = density[(frequency > 12_000) & (frequency < 16_000)].mean()
    assert 25 < 10 * np.log10(low / high) < 60


def test_voiced_frames_are_harmonic(root):
    """The autocorrelation of the loudest third of 40 ms frames peaks between 2.5 and 12.5 ms."""
    for path in audio(root, "speech"):
        wave, _ = soundfile.read(path)
        frames = wave[: wave.size // 1920 * 1920].reshape(-1, 1920)
        power = (frames**2).sum(1)
        loud = frames[power > np.quantile(power, 2 / 3)]
        spectrum = np.abs(np.fft.rfft(loud, 4096)) ** 2
        correlation = np.fft.irfft(spectrum)[:, : loud.shape[1]]
        peak = (correlation / correlation[:, :1])[:, 120:600].max(1)
        assert np.median(peak) > 0.5, path


@pytest.mark.parametrize("index", [0, 32, 80, 84, 88, 96, 100, 104, 134, 146, 184, 204, 212])
def test_a_seed_names_a_file(index):
    assert np.array_equal(draw(index), draw(index))
    assert not np.array_equal(draw(index)[:4800], draw(index, seed=1)[:4800])


def test_the_bytes_do_not_depend_on_the_workers(root, tmp_path):
    with_one = tmp_path / "one"
    for index in range(0, len(demo_corpus.plan(0)), 18):
        demo_corpus.write(with_one, 0, index)
    paths = [path.relative_to(with_one) for path in with_one.rglob("*.*") if path.is_file()]
    assert len(paths) == 13
    for path in paths:
        assert (with_one / path).read_bytes() == (root / path).read_bytes()


def test_a_second_call_does_nothing(root):
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*.*") if path.suffix != ".lock"}
    write_demo_corpus(root)
    assert before == {path: path.stat().st_mtime_ns for path in before}
    assert is_demo(root)


def test_it_never_writes_among_other_recordings(tmp_path):
    (tmp_path / "music").mkdir()
    assert not is_demo(tmp_path)
    with pytest.raises(FileExistsError, match="music"):
        write_demo_corpus(tmp_path)
    assert not is_demo(tmp_path)


def test_a_half_made_corpus_is_a_demo(tmp_path):
    (tmp_path / "wideband-demo.json.part").write_text(f'{{"made_by": "{demo_corpus.MADE_BY}"}}')
    assert is_demo(tmp_path)


def test_a_moving_filter_of_unit_response_changes_nothing():
    wave = np.random.default_rng(0).normal(size=10_000)
    unit = np.ones((demo_corpus.frames_of(10_000 / RATE), demo_corpus.FREQUENCY.size))
    np.testing.assert_allclose(shaped(wave, unit), wave, atol=1e-12)


def test_pulses_keep_their_pitch():
    flow, _ = pulses(np.full(201, 100.0), RATE, 0.42, 0.14)
    spectrum = np.abs(np.fft.rfft(flow - flow.mean()))
    assert np.argmax(spectrum) == 100  # 1 s: a bin is 1 Hz
