"""The prepared store: a corpus decoded once, at one rate, into a memory-mapped Arrow table.

A store is built from a list of files under a lock, in a folder of its own that is renamed when it is
complete: two processes may ask for it at once, and one that was killed half-way leaves nothing that is used.
"""

import hashlib
import json
import os
import shutil
from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import numpy as np
from filelock import FileLock

from datamodules.corpora import Item
from signals.audio_files import Unreadable, read_audio
from signals.errors import UserError

STORE_VERSION = 2  # of what names runs: raised where other samples of the same files shall do so
READ_VERSION = 3  # raised whenever what `decode` returns changes: stores are prepared again
MIN_SECONDS = 0.25
SILENCE = 2.0**-15  # a peak below one 16-bit step


def bandwidth(wave: np.ndarray, rate: int) -> float:
    """Highest frequency in Hz where the long-term spectrum of `wave` [T] is within 70 dB of its maximum.

    Of thresholds from 50 to 110 dB, this one parts real recordings that reach 20 kHz best from others.
    """
    from scipy.signal import welch

    frequencies, power = welch(wave, rate, nperseg=min(4096, len(wave)), scaling="spectrum")
    return float(frequencies[np.flatnonzero(power >= power.max() * 1e-7)[-1]])


def soxr(wave: np.ndarray, source_rate: int, rate: int) -> np.ndarray:
    """As librosa.load. (SciPy's resample_poly leaves images of 44.1 kHz files, -10 dB at 20.5 kHz.)"""
    import soxr

    return soxr.resample(wave, source_rate, rate)


def butterworth(wave: np.ndarray, source_rate: int, rate: int) -> np.ndarray:
    """King et al.'s: a causal Butterworth filter of order 8 at half the new rate, then every r-th sample.

    What comes at no multiple of the new rate is first brought to four times it.
    """
    from scipy.signal import butter, sosfilt

    if source_rate == rate:
        return wave
    if source_rate % rate:
        wave, source_rate = soxr(wave, source_rate, 4 * rate), 4 * rate
    sections = butter(8, rate / 2, fs=source_rate, output="sos")
    return sosfilt(sections, wave)[:: source_rate // rate].astype(np.float32)


def none(wave: np.ndarray, source_rate: int, rate: int) -> np.ndarray:
    """QISTA-Net's: as the file has it. What comes at another rate is not used, which `decode` sees to."""
    return wave


RESAMPLERS = {"soxr": soxr, "butterworth": butterworth, "none": none}


def decode(row: dict, rate: int, resampling: str = "soxr") -> dict:
    """One file as mono float32 [T] at `rate`, or an empty wave and the reason why it cannot be used."""
    named = {"id": row["id"], "group": row["group"]}

    def unusable(reason: str) -> dict:
        return {**named, "reason": reason, "wave": np.zeros(0, np.float32), "bandwidth": 0.0, "hash": ""}

    try:
        wave, source_rate = read_audio(row["path"])
    except Unreadable as why:
        return unusable(str(why))
    wave = wave.mean(axis=1)
    if np.abs(wave).max() < SILENCE:
        return unusable("silent")
    if len(wave) < MIN_SECONDS * source_rate:
        return unusable(f"shorter than {MIN_SECONDS} s")
    if resampling == "none" and source_rate != rate:
        at = f"at {source_rate:,} Hz, not {rate:,}"
        return unusable(f"{at}, and is not to be resampled: set data.rate to its rate")
    band = bandwidth(wave, source_rate)
    wave = RESAMPLERS[resampling](wave, source_rate, rate)
    return {**named, "reason": "", "wave": wave, "bandwidth": band, "hash": hashlib.sha256(wave).hexdigest()}


@dataclass
class Store:
    """Recordings that share a rate; `waves[i]` [T] is a view of the memory-mapped table, never a copy.

    bandwidths: Hz, of the files before their rate was changed. hashes: of the samples. left_out: why, by id.
    """

    folder: Path
    rate: int
    ids: list[str] = field(default_factory=list)
    groups: list[str] = field(default_factory=list)
    bandwidths: list[float] = field(default_factory=list)
    hashes: list[str] = field(default_factory=list)
    waves: list[np.ndarray] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def lengths(self) -> np.ndarray:
        """[recordings] in samples."""
        return np.array([len(wave) for wave in self.waves], dtype=np.int64)

    @property
    def hours(self) -> float:
        return float(self.lengths.sum()) / self.rate / 3600

    @cached_property
    def fingerprint(self) -> str:
        """Names what is in the store: its rate, every recording's samples and group, not paths or dates."""
        recordings = sorted(zip(self.ids, self.groups, self.hashes, strict=True))
        content = json.dumps([STORE_VERSION, self.rate, recordings])
        return hashlib.sha256(content.encode()).hexdigest()[:16]

    def subset(self, rows: list[int]) -> "Store":
        """The same store with only these rows."""
        names = ("ids", "groups", "bandwidths", "hashes", "waves")
        picked = {name: [getattr(self, name)[i] for i in rows] for name in names}
        return Store(self.folder, self.rate, left_out=self.left_out, **picked)

    @classmethod
    def joined(cls, stores: list["Store"]) -> "Store":
        """The recordings of several stores of one rate, one after the other."""
        whole = cls(stores[0].folder, stores[0].rate)
        for store in stores:
            for name in ("ids", "groups", "bandwidths", "hashes", "waves"):
                getattr(whole, name).extend(getattr(store, name))
        return whole

    def reaching(self, hertz: float) -> "Store":
        """Only recordings whose band reaches `hertz`; the others are left out by that name."""
        kept = self.subset([i for i, reach in enumerate(self.bandwidths) if reach >= hertz])
        short = {id_: reach for id_, reach in zip(self.ids, self.bandwidths, strict=True) if reach < hertz}
        kept.left_out = self.left_out | {id_: f"reaches only {reach:.0f} Hz" for id_, reach in short.items()}
        return kept

    def spread(self, count: int | None) -> "Store":
        """At most `count` recordings, taken evenly over the groups in the order of their names."""
        if count is None or count >= len(self):
            return self
        by_group: dict[str, list[int]] = {}
        for row in sorted(range(len(self)), key=lambda i: self.ids[i]):
            by_group.setdefault(self.groups[row], []).append(row)
        turns = sorted(
            (turn, group, row) for group, rows in by_group.items() for turn, row in enumerate(rows)
        )
        return self.subset([row for _, _, row in turns[:count]])


def listing_key(items: tuple[Item, ...], rate: int, resampling: str) -> str:
    """What a store is valid for: these files (name, size, date), this rate, this version of the code."""
    files = [(item.id, item.group, (stat := item.path.stat()).st_size, stat.st_mtime_ns) for item in items]
    return hashlib.sha256(json.dumps([READ_VERSION, rate, resampling, files]).encode()).hexdigest()[:16]


class Unprepared(UserError):
    """A store is not there yet, and was not to be built."""


def prepare(
    items: tuple[Item, ...],
    rate: int,
    root: Path,
    name: str,
    workers: int = 1,
    resampling: str = "soxr",
    build: bool = True,
) -> Store:
    """The store of these files, built if it is not there yet (in parallel, with a progress bar).

    root: folder of all stores. name: a readable prefix of its folder. resampling: how the files come to
    `rate` Hz, a name in RESAMPLERS. build: false where it must be there, or Unprepared is raised. Raises
    UserError if no file is usable, two have one id, or the resampling is unknown.
    """
    if resampling not in RESAMPLERS:
        raise UserError(f"unknown resampling {resampling}: one of {', '.join(RESAMPLERS)}.")
    id_, count = Counter(item.id for item in items).most_common(1)[0]
    if count > 1:
        paths = " and ".join([str(item.path) for item in items if item.id == id_][:2])
        raise UserError(f"corpus {name}: {paths} have one id, {id_}: rename one of them.")
    key = listing_key(items, rate, resampling)
    folder = root / f"{name.replace('/', '_')}-{rate}-{key}"
    if not build and not folder.is_dir():
        raise Unprepared(f"{folder} is not prepared yet.")
    root.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not folder.is_dir():
            partial = Path(f"{folder}.partial")
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir()
            _build(
                items, {"rate": rate, "resampling": resampling}, partial, key, f"preparing {name}", workers
            )
            os.replace(partial, folder)
    store = _open(folder, rate)
    if not len(store):
        id_, reason = next(iter(store.left_out.items()))
        raise UserError(f"corpus {name}: none of its {len(items)} files can be used: {id_}: {reason}.")
    return store


def _build(
    items: tuple[Item, ...], options: dict, folder: Path, fingerprint: str, title: str, workers: int
) -> None:
    import datasets

    # A 64-bit list: sixteen recordings of an hour and more would overflow 32-bit offsets.
    wave = datasets.LargeList(datasets.Value("float32"))
    texts = {key: datasets.Value("string") for key in ("id", "group", "reason", "hash")}
    features = datasets.Features({**texts, "bandwidth": datasets.Value("float32"), "wave": wave})
    rows = datasets.Dataset.from_list([{**item._asdict(), "path": str(item.path)} for item in items])
    rows.map(
        decode,
        fn_kwargs=options,
        remove_columns=["path"],
        features=features,
        num_proc=min(workers, len(items)) if workers > 1 else None,
        cache_file_name=str(folder / "recordings.arrow"),
        load_from_cache_file=False,
        writer_batch_size=16,
        new_fingerprint=fingerprint,
        desc=title,
    )


def _open(folder: Path, rate: int) -> Store:
    import datasets

    store, reasons = Store(folder, rate), []
    columns = {"ids": "id", "groups": "group", "bandwidths": "bandwidth", "hashes": "hash"}
    for file in sorted(folder.glob("*.arrow")):  # one of each worker, in order
        table = datasets.Dataset.from_file(str(file)).data
        for chunk in table.column("wave").chunks:
            starts = chunk.offsets.to_numpy()
            samples = chunk.values.to_numpy(zero_copy_only=True)
            store.waves += [samples[a:b] for a, b in pairwise(starts)]
        for name, column in columns.items():
            getattr(store, name).extend(table.column(column).to_pylist())
        reasons += table.column("reason").to_pylist()
    store.left_out = {id_: why for id_, why in zip(store.ids, reasons, strict=True) if why}
    return store.subset([i for i, why in enumerate(reasons) if not why])
