"""Recordings that something happened to, through every way in: enhance.py, evaluate.py, and a corpus.

    python benchmarks/mutated.py [--files 300] [--seed 0] [--folder FOLDER]

Tones and noise in eleven formats, each with flipped bits, a cut, or a few bytes of its header overwritten.
Every file must have a result or be named with a reason, without a traceback or a hang, and no sample may be
read that a plain decoder does not give. Ends with status 1 where one of these does not hold.
"""

import argparse
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile

from datamodules.corpora import Item
from datamodules.store import prepare
from signals.audio_files import Unreadable, read_audio

RATE = 16_000
LIMIT = 600  # seconds that a command may take
EXPERIMENTS = Path(__file__).parents[1] / "experiments"
KINDS = {  # by suffix; what a name holds before it is its codec
    "pcm16.wav": {"subtype": "PCM_16"},
    "pcm24.wav": {"subtype": "PCM_24"},
    "float.wav": {"subtype": "FLOAT"},
    "adpcm.wav": {"subtype": "IMA_ADPCM"},
    "a.w64": {"subtype": "PCM_16", "format": "W64"},
    "a.flac": {},
    "constant.mp3": {"format": "MP3", "bitrate_mode": "CONSTANT"},
    "variable.mp3": {"format": "MP3", "bitrate_mode": "VARIABLE"},
    "vorbis.ogg": {"format": "OGG", "subtype": "VORBIS"},
    "opus.ogg": {"format": "OGG", "subtype": "OPUS"},
    "a.aiff": {},
}


def flipped(content: bytearray, rng: np.random.Generator) -> None:
    for place in rng.integers(0, len(content), rng.integers(1, 20)):
        content[place] ^= 1 << int(rng.integers(8))


def cut(content: bytearray, rng: np.random.Generator) -> None:
    del content[int(rng.integers(0, len(content))) :]


def beheaded(content: bytearray, rng: np.random.Generator) -> None:
    for place in rng.integers(0, min(64, len(content)), rng.integers(1, 6)):
        content[place] = int(rng.choice([0, 0x7F, 0x80, 0xFF, rng.integers(256)]))


MUTATIONS: tuple[Callable, ...] = (flipped, cut, beheaded)


def write_files(folder: Path, count: int, seed: int) -> tuple[Path, Path]:
    """Two folders of the same names: as they were, and what became of them."""
    rng = np.random.default_rng(seed)
    whole, mutated = folder / "whole", folder / "mutated"
    for place in range(count):
        kind = list(KINDS)[place % len(KINDS)]
        time = np.arange(int(rng.integers(RATE // 2, 2 * RATE))) / RATE
        wave = 0.3 * np.sin(2 * np.pi * rng.uniform(100, 4000) * time) + 0.1 * rng.standard_normal(len(time))
        change = MUTATIONS[place // len(KINDS) % len(MUTATIONS)]
        name = f"{change.__name__}/{place:04}_{kind}"
        for root in (whole, mutated):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(whole / name, wave, RATE, **KINDS[kind])
        content = bytearray((whole / name).read_bytes())
        change(content, rng)
        (mutated / name).write_bytes(content)
    return whole, mutated


def plainly(path: Path) -> np.ndarray:
    """Samples [T, C] as libsndfile itself gives them, forward and without a seek."""

    class Forward(soundfile.SoundFile):
        def seekable(self) -> bool:
            return False

    with Forward(path) as file:
        blocks = [file.read(4096, dtype="float32", always_2d=True)]
        while len(blocks[-1]):
            blocks.append(file.read(4096, dtype="float32", always_2d=True))
    return np.concatenate(blocks)


def invented(path: Path) -> str:
    """A line on samples that were read and that a plain decoder does not give; empty where there are none."""
    try:
        ours, _ = read_audio(path)
    except Unreadable:
        return ""
    theirs = plainly(path)
    shared = min(len(ours), len(theirs))
    if not np.array_equal(ours[:shared], theirs[:shared]):
        return f"{path.name}: other samples than those of a plain decoder"
    if len(ours) > shared and path.suffix != ".mp3":  # of which a plain decoder believes a header or a guess
        return f"{path.name}: {len(ours) - shared} samples that a plain decoder does not give"
    return ""


def command(script: str, *arguments: object) -> subprocess.CompletedProcess:
    words = [sys.executable, str(EXPERIMENTS / script), *map(str, arguments)]
    return subprocess.run(words, capture_output=True, text=True, timeout=LIMIT)


def failures_of(
    done: subprocess.CompletedProcess, ids: set[str], good: set[str], told: set[str]
) -> list[str]:
    """Lines on what a command did wrong. good: files with a result. told: files that are named."""
    wrong = ["a traceback:\n" + done.stderr[-2000:]] if "Traceback" in done.stderr else []
    wrong += [f"status {done.returncode}"] if done.returncode not in (0, 1) else []
    wrong += [f"{id_}: neither a result nor a reason" for id_ in sorted(ids - good - told)]
    return wrong + [f"{id_}: a result and a reason" for id_ in sorted(good & told)]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--files", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="kept there (default: a temporary one)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.folder or Path(temporary)
        whole, mutated = write_files(folder, args.files, args.seed)
        files = sorted(path for path in mutated.rglob("*") if path.is_file())
        names = {path.relative_to(mutated).as_posix() for path in files}
        wrong: list[str] = []

        read = Counter()
        for path in files:
            wrong += filter(None, [invented(path)])
            try:
                read_audio(path)
                read["read"] += 1
            except Unreadable as why:
                read[re.sub(r"[\d.,]+", "N", str(why).split(":")[0])] += 1
        print("reader:", ", ".join(f"{count} {what}" for what, count in read.most_common()), flush=True)

        done = command("enhance.py", mutated, "--method", "spline", "--output", folder / "enhanced")
        told = {name for name in names if f"left out: {mutated / name}: " in done.stderr}
        results = {
            path.relative_to(folder / "enhanced").as_posix() for path in folder.glob("enhanced/**/*.wav")
        }
        good = {name for name in names if name.rpartition(".")[0] + ".wav" in results}
        wrong += [f"enhance.py: {line}" for line in failures_of(done, names, good, told)]
        print(f"enhance.py: {len(good)} enhanced, {len(told)} named", flush=True)

        scores = folder / "scores.csv"
        done = command(
            "evaluate.py", "--reference", whole, "--estimate", mutated, "--metrics", "snr,lsd_nuwave",
            "--format", "csv", "--output", scores,
        )  # fmt: skip
        ids = {name.rpartition(".")[0] for name in names}
        told = {id_ for id_ in ids if f"left out {id_}: " in done.stderr}
        lines = scores.read_text().splitlines()[1:] if scores.is_file() else []
        good = {line.split(",")[0] for line in lines} & ids
        wrong += [f"evaluate.py: {line}" for line in failures_of(done, ids, good, told)]
        print(f"evaluate.py: {len(good)} scored, {len(told)} named", flush=True)

        items = tuple(Item(path, path.relative_to(mutated).as_posix(), "group") for path in files)
        store = prepare(items, RATE, folder / "stores", "mutated")
        lost = names - set(store.ids) - store.left_out.keys()
        wrong += [f"corpus: {name}: neither there nor left out" for name in sorted(lost)]
        print(f"corpus: {len(store)} in the store, {len(store.left_out)} left out")
    print(
        f"{args.files} files, seed {args.seed}: " + (f"{len(wrong)} wrong" if wrong else "nothing is wrong")
    )
    for line in wrong:
        print("  " + line)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
