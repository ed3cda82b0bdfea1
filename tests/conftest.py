"""What tests share: a tiny corpus in the official layouts, and a workplace of their own."""

import csv
import os
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

RATE = 48_000
SPEAKERS = (
    "p225",
    "p226",
    "p347",
    "p360",
    "s5",
)  # of VCTK: two to train on, one for validation, two for tests
VOICES = {"clean_trainset_28spk_wav": ("p226", "p230", "p231"), "clean_testset_wav": ("p232", "p257")}
FOLDS = (1, 4, 5)  # of ESC-50: training, validation, test
TRACKS = {"training": range(2, 8), "validation": range(8, 10), "test": range(10, 12)}  # of FMA
CLIPS = (0, 1, 3808, 4068)  # of SampleRNN's Beethoven: two to train on, one for validation, one for tests


def write_noise(path: Path, seed: int, seconds: float = 1.0) -> None:
    """Full-band noise whose level falls with frequency and swells in time."""
    rng = np.random.default_rng(seed)
    samples = round(seconds * RATE)
    hertz = np.fft.rfftfreq(samples, 1 / RATE)
    wave = np.fft.irfft(np.fft.rfft(rng.standard_normal(samples)) / (1 + hertz / 1000), samples)
    wave *= 0.3 + np.sin(np.linspace(0, (2 + seed % 5) * np.pi, samples)) ** 2
    path.parent.mkdir(parents=True, exist_ok=True)
    subtype = "MPEG_LAYER_III" if path.suffix == ".mp3" else "PCM_16"
    soundfile.write(path, 0.5 * wave / np.abs(wave).max(), RATE, subtype)


def write_corpus(root: Path) -> Path:
    """A few seconds of every corpus that a configuration names, and a stand-in for AudioStock."""
    vctk = root / "VCTK-Corpus-0.92" / "wav48_silence_trimmed"
    for take in range(20):  # of King et al.'s one speaker, enough to need no stand-in
        write_noise(vctk / "p228" / f"p228_{take:03}_mic1.flac", take, seconds=0.5)
    for take in (
        *range(1, 13),
        *range(16, 24),
        355,
        356,
    ):  # and of Kuleshov et al.'s, of whom two are held out
        write_noise(vctk / "p225" / f"p225_{take:03}_mic1.flac", 100 + take, seconds=0.6)
    files = [vctk / name / f"{name}_{take:03}_mic1.flac" for name in SPEAKERS for take in (1, 2)]
    for part in ("speech", "music", "effects"):
        files += [root / part / f"{part}_{group}" / "1.flac" for group in "abcdef"]
    for folder, voices in VOICES.items():
        files += [
            root / "VoiceBank" / folder / f"{voice}_{take:03}.wav" for voice in voices for take in (1, 2)
        ]
    clips = [(f"{fold}-{take}-A-0.wav", fold) for fold in FOLDS for take in (1, 2)]
    files += [root / "ESC-50" / "audio" / name for name, _ in clips]
    tracks = [(track, split) for split, numbers in TRACKS.items() for track in numbers]
    files += [root / "fma_small" / "000" / f"{track:06}.mp3" for track, _ in tracks]
    files += [root / "beethoven" / f"{clip}.wav" for clip in CLIPS]
    for seed, path in enumerate(files):
        write_noise(path, seed)
    (root / "ESC-50" / "meta").mkdir()
    with (root / "ESC-50" / "meta" / "esc50.csv").open("w", newline="") as lines:
        csv.writer(lines).writerows([("filename", "fold"), *clips])
    (root / "fma_metadata").mkdir()
    with (root / "fma_metadata" / "tracks.csv").open("w", newline="") as lines:  # a header of two levels
        header = [("", "artist", "set"), ("", "id", "split"), ("track_id", "", "")]
        csv.writer(lines).writerows([*header, *((track, track // 2, split) for track, split in tracks)])
    return root


@pytest.fixture(scope="session")
def tiny_corpus(tmp_path_factory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="session")
def demo_corpus(tmp_path_factory) -> Path:
    """The demo corpus, made once for all workers."""
    from filelock import FileLock

    from datamodules.demo_corpus import write_demo_corpus

    shared = tmp_path_factory.getbasetemp()
    shared = shared.parent if "PYTEST_XDIST_WORKER" in os.environ else shared
    with FileLock(shared / "demo.lock"):
        write_demo_corpus(shared / "demo", workers=2)
    return shared / "demo"


@pytest.fixture(scope="session", autouse=True)
def offline():
    """No test has an account."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_MODE", "disabled")
        yield


@pytest.fixture(scope="session", autouse=True)
def own_core():
    """Several workers of pytest share the machine: threads of one would wait for those of the others."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")  # of what tests start
        yield


@pytest.fixture(autouse=True)
def one_thread():
    """Commands may set their own number (`trainer.threads`)."""
    torch.set_num_threads(1)


@pytest.fixture
def workplace(tmp_path, monkeypatch) -> Path:
    """An empty current directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path
