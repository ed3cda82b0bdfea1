"""Training windows per second: our loader, and the usual way on the same files in the same process.

    python benchmarks/data.py [--root FOLDER] [--batches 50] [--threads 2]

Ours: the prepared store (decoded once, memory-mapped), windows cut from it without copying a recording,
low-passed per batch by frequency response. The usual way: every item decodes its file, takes a random crop
and low-passes it by SciPy, design and sosfiltfilt. Both draw recordings by length, and from the same random
filters. The longer the files, the larger the ratio.
"""

import argparse
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import scipy.signal
import soundfile
import soxr
import torch
from torch.utils.data import DataLoader, Dataset

from datamodules.corpora.selection import Item, audio_below
from datamodules.degradations import RandomLowpass
from datamodules.library import Library
from datamodules.pairs import Mixture, PairDataModule
from datamodules.store import Store, prepare
from signals.filters import Lowpass

RATE, WINDOW, BATCH = 48_000, 32_768, 16
DEGRADATION = RandomLowpass(kinds=("chebyshev", "elliptic", "butterworth"))
DESIGNS = {
    "chebyshev": lambda order, **edge: scipy.signal.cheby1(order, 0.1, **edge),
    "elliptic": lambda order, **edge: scipy.signal.ellip(order, 0.1, 60, **edge),
    "butterworth": scipy.signal.butter,
}


class Files(Dataset):
    """The usual way: item k is a random window of a random file, and the same low-passed; [1, T] each."""

    def __init__(self, paths: list[Path], lengths: np.ndarray, items: int):
        self.paths, self.chances, self.items = paths, lengths / lengths.sum(), items

    def __len__(self) -> int:
        return self.items

    def __getitem__(self, k: int) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng(k)
        wave, rate = soundfile.read(rng.choice(self.paths, p=self.chances), dtype="float32", always_2d=True)
        wave = wave.mean(axis=1)
        if rate != RATE:
            wave = soxr.resample(wave, rate, RATE)
        start = rng.integers(max(1, len(wave) - WINDOW + 1))
        high = wave[start : start + WINDOW]
        high = np.pad(high, (0, WINDOW - len(high)))
        low = scipy.signal.sosfiltfilt(design(DEGRADATION.draw(k)), high).astype(np.float32)
        return low[None], high[None]


def design(drawn: Lowpass) -> np.ndarray:
    return DESIGNS[drawn.kind](drawn.order, Wn=drawn.cutoff, fs=RATE, output="sos")


def ours(store: Store, batches: int) -> Iterator[object]:
    module = PairDataModule(
        DEGRADATION, rate=RATE, batch=BATCH, train=Mixture({"all": (store, 1)}), window=WINDOW, steps=batches
    )
    for batch in module.train_dataloader():
        yield module.on_after_batch_transfer(batch, 0)


def usual(paths: list[Path], lengths: np.ndarray, batches: int) -> Iterator[object]:
    yield from DataLoader(Files(paths, lengths, batches * BATCH), batch_size=BATCH)


def windows_per_second(batches: Iterator[object], warm_up: int = 5) -> float:
    for _ in range(warm_up):
        next(batches)
    start = time.perf_counter()
    timed = sum(1 for _ in batches)
    return timed * BATCH / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--root", type=Path, help="a folder with recordings; left out: the demo corpus")
    parser.add_argument("--folder", default="data", help="where the demo corpus and the store are written")
    parser.add_argument("--batches", type=int, default=50)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of torch")
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    library = Library(None if chosen.root is None else str(chosen.root), chosen.folder)
    library.make_demo()
    paths = {path.relative_to(library.root).as_posix(): path for path in audio_below(library.root)}
    items = tuple(Item(path, name, name) for name, path in paths.items())
    store = prepare(items, RATE, Path(chosen.folder) / "stores", "benchmark", library.workers)
    seconds = store.lengths.mean() / RATE
    print(f"{len(store)} files, {seconds:.1f} s each on average; {chosen.threads} threads")
    steps = chosen.batches + 5
    kept = [paths[name] for name in store.ids]
    rates = {"ours": windows_per_second(ours(store, steps))}
    rates["the usual way"] = windows_per_second(usual(kept, store.lengths, steps))
    for name, rate in rates.items():
        print(f"{name:14} {rate:8.0f} windows/s of {WINDOW} samples")
    print(f"{'ratio':14} {rates['ours'] / rates['the usual way']:8.1f}")


if __name__ == "__main__":
    main()
