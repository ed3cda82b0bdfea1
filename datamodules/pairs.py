"""Where pairs come from: windows of the store for training, recordings for tests, degraded per batch."""

import hashlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import lightning
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from datamodules.degradations import Identity
from datamodules.store import Store
from signals.resampling import ratio, resampled_length
from signals.types import Pair, Signal, silence_padding


class Batch(NamedTuple):
    """Full-band recordings on their way to the degradation; `margin` samples on each side are its to read."""

    high: Signal
    ids: list[str]
    seeds: Tensor
    margin: int


def item_seed(run_seed: int, split: str, item: int | str) -> int:
    """[0, 2^63): the same for an item on every machine, in every batch and after every resume."""
    digest = hashlib.sha256(f"{run_seed}/{split}/{item}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


class Mixture:
    """Stores with weights: a window comes from a part by its weight, from a recording by its length."""

    def __init__(self, parts: dict[str, tuple[Store, float]]):
        self.stores = [store for store, _ in parts.values()]
        weights = np.array([weight for _, weight in parts.values()], dtype=float)
        self.weights = weights / weights.sum()
        self.ends = [np.cumsum(store.lengths) for store in self.stores]

    @property
    def fingerprint(self) -> list[list]:
        """What is in each part and how often it is drawn from, whatever the parts are called."""
        parts = zip(self.stores, self.weights, strict=True)
        return [[store.fingerprint, round(float(weight), 6)] for store, weight in parts]

    def draw(self, rng: np.random.Generator, length: int) -> tuple[Store, int, int]:
        """A store, a row of it, and where a window of `length` samples starts there."""
        part = rng.choice(len(self.stores), p=self.weights)
        store, ends = self.stores[part], self.ends[part]
        row = int(np.searchsorted(ends, rng.integers(ends[-1]), side="right"))
        return store, row, int(rng.integers(max(1, store.lengths[row] - length + 1)))


def cut(wave: np.ndarray, start: int, length: int, margin: int) -> np.ndarray:
    """[margin + length + margin] samples of `wave` [T] around `start`, zeros outside the recording."""
    first, last = start - margin, start + length + margin
    inside = wave[max(first, 0) : min(last, len(wave))]
    return np.pad(inside, (max(-first, 0), max(last - len(wave), 0)))


WINDOW_SEEDS = {"train": "window", "validation": "validation window"}  # of where windows lie


class Windows(Dataset):
    """Random windows. Item k follows from (seed, split, k) alone, k modulo its size with a finite `pool`."""

    def __init__(
        self,
        mixture: Mixture,
        length: int,
        margin: int,
        seed: int,
        pool: int | None = None,
        split: str = "train",
    ):
        self.mixture, self.length, self.margin, self.seed = mixture, length, margin, seed
        self.pool, self.split = pool, split

    def __getitem__(self, k: int) -> tuple[np.ndarray, int, str, int]:
        item = k % self.pool if self.pool else k
        # Not the pair's seed: the degradation would draw the same numbers again, and its order tell the part.
        rng = np.random.default_rng(item_seed(self.seed, WINDOW_SEEDS[self.split], item))
        store, row, start = self.mixture.draw(rng, self.length)
        wave = store.waves[row]
        window = cut(wave, start, self.length, self.margin)
        seed = item_seed(self.seed, self.split, item)
        return window, min(self.length, len(wave) - start), store.ids[row], seed


class Recordings(Dataset):
    """Every recording once: whole, or its middle `length` samples."""

    def __init__(self, store: Store, split: str, seed: int, length: int | None = None, margin: int = 0):
        self.store, self.split, self.seed, self.length, self.margin = store, split, seed, length, margin

    def __len__(self) -> int:
        return len(self.store)

    def __getitem__(self, row: int) -> tuple[np.ndarray, int, str, int]:
        wave, id_ = self.store.waves[row], self.store.ids[row]
        seed = item_seed(self.seed, self.split, id_)
        if self.length is None:
            return np.pad(wave, self.margin), len(wave), id_, seed
        start = max(0, (len(wave) - self.length) // 2)
        return cut(wave, start, self.length, self.margin), min(self.length, len(wave)), id_, seed


class Steps(Sampler):
    """Item numbers of an epoch of `steps` batches, from the batches already `seen()` to its end.

    So which windows a step sees follows from (seed, batches seen), and a resumed run sees the same. Of
    `ranks` processes, each gets every so manieth of a batch: all see together what one alone would.
    """

    def __init__(self, steps: int, batch: int, seen: Callable[[], int], rank: int = 0, ranks: int = 1):
        self.steps, self.batch, self.seen = steps, batch, seen
        self.rank, self.ranks = rank, ranks

    def __len__(self) -> int:
        """Of a whole epoch."""
        return self.steps * self.batch // self.ranks

    def __iter__(self) -> Iterator[int]:
        seen = self.seen()
        end = (seen // self.steps + 1) * self.steps
        return iter(range(seen * self.batch + self.rank, end * self.batch, self.ranks))


def collate(items: list[tuple[np.ndarray, int, str, int]], rate: int, margin: int) -> Batch:
    """Recordings of different lengths, zero-padded at the end to the longest."""
    waves, lengths, ids, seeds = zip(*items, strict=True)
    padded = np.zeros((len(waves), 1, max(map(len, waves))), dtype=np.float32)
    for row, wave in zip(padded, waves, strict=True):
        row[0, : len(wave)] = wave
    high = Signal(torch.from_numpy(padded), rate, torch.tensor(lengths))
    return Batch(high, list(ids), torch.tensor(seeds), margin)


def crop(signal: Signal, margin: int, high_rate: int, lengths: Tensor) -> Signal:
    """`signal` without its margins, and silent beyond `lengths`: what a degradation leaves there is dropped.

    margin: samples of the high rate on each side. lengths: [B] samples of the high rate, without margins.
    Raises ValueError where the margin is off the low rate's grid.
    """
    up, down = ratio(high_rate, signal.rate)
    if margin * up % down:
        raise ValueError(f"margin of {margin} samples at {high_rate} Hz is off the grid of {signal.rate} Hz")
    edge = margin * up // down
    wave = signal.wave[..., edge : signal.wave.shape[-1] - edge]
    lengths = resampled_length(lengths, high_rate, signal.rate)
    return Signal(silence_padding(wave, lengths), signal.rate, lengths)


def at_peak(signal: Signal) -> Signal:
    """Every item with a peak of 1; silence stays."""
    peak = signal.wave.abs().amax(-1, keepdim=True)
    return signal._replace(wave=signal.wave / peak.where(peak > 0, 1))


class PairDataModule(lightning.LightningDataModule):
    """Batches of pairs for one task: recordings from the store, degraded on the device, once per batch.

    train: a mixture of stores, cut into windows of `window` samples. held_out: recordings for validation,
    their middle window each or, drawn by length, `held_out_windows` at random. test: whole recordings, or
    their middle `crop` samples, batched by length. peaks: input and reference each get a peak of 1.
    share: of the batches of a test, those of one process, as (rank, of how many); `batch` is of all together
    in a training, which Lightning knows the processes of.
    """

    def __init__(
        self,
        degradation: Callable[[Signal, Tensor], tuple[Signal, Tensor]] | None = None,
        *,
        rate: int,
        seed: int = 0,
        batch: int = 4,
        train: Mixture | None = None,
        window: int = 0,
        steps: int = 0,
        pool: int | None = None,
        held_out: Store | None = None,
        held_out_windows: int | None = None,
        test: Store | None = None,
        crop: int | None = None,
        peaks: bool = False,
        loaders: int = 0,
        share: tuple[int, int] = (0, 1),
    ):
        super().__init__()
        self.degradation = degradation or Identity()
        self.rate, self.seed, self.batch, self.loaders = rate, seed, batch, loaders
        self.mixture, self.window, self.steps, self.pool = train, window, steps, pool
        self.held_out, self.held_out_windows, self.test = held_out, held_out_windows, test
        self.crop, self.peaks, self.share = crop, peaks, share

    @property
    def ranks(self) -> tuple[int, int]:
        """Of the training under way: this process, and how many there are."""
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)

    @property
    def batches_seen(self) -> int:
        """Of the training under way: its stage counts them, and only its checkpoints keep the count."""
        return int(self.trainer.lightning_module.batches_seen) if self.trainer else 0

    def _loader(self, dataset: Dataset, margin: int, **options) -> DataLoader:
        return DataLoader(
            dataset,
            collate_fn=partial(collate, rate=self.rate, margin=margin),
            num_workers=self.loaders,
            persistent_workers=self.loaders > 0,
            pin_memory=torch.cuda.is_available(),
            **options,
        )

    def train_dataloader(self) -> DataLoader:
        margin = self.degradation.margin(self.rate)
        windows = Windows(self.mixture, self.window, margin, self.seed, self.pool)
        rank, ranks = self.ranks
        steps = Steps(self.steps, self.batch, lambda: self.batches_seen, rank, ranks)
        return self._loader(windows, margin, batch_size=self.batch // ranks, sampler=steps)

    def val_dataloader(self) -> DataLoader:
        margin = self.degradation.margin(self.rate)
        if self.held_out_windows is None:
            items = Recordings(self.held_out, "validation", self.seed, self.window, margin)
        else:
            mixture = Mixture({"held_out": (self.held_out, 1)})
            items = Windows(mixture, self.window, margin, self.seed, split="validation")
        numbers, (rank, ranks) = range(self.held_out_windows or len(self.held_out)), self.ranks
        mine = numbers[rank::ranks] if len(numbers) >= ranks else numbers
        return self._loader(items, margin, batch_size=self.batch, sampler=mine)

    def test_dataloader(self) -> DataLoader:
        order = np.argsort(self.test.lengths, kind="stable")[::-1]  # the longest first: memory fails early
        batches = [order[i : i + self.batch].tolist() for i in range(0, len(order), self.batch)]
        rank, ranks = self.share
        margin = 0 if self.crop is None else self.degradation.margin(self.rate)
        recordings = Recordings(self.test, "test", self.seed, self.crop, margin)
        return self._loader(recordings, margin, batch_sampler=batches[rank::ranks])

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Pair:
        """The one place where a degradation happens, for training, validation and test alike."""
        wide, lengths, margin = batch.high, batch.high.lengths, batch.margin
        low, cutoff = self.degradation(wide._replace(lengths=lengths + 2 * margin), batch.seeds)
        low, high = (crop(signal, margin, wide.rate, lengths) for signal in (low, wide))
        if self.peaks:
            low, high = at_peak(low), at_peak(high)
        return Pair(low, high, cutoff, batch.ids, batch.seeds)
