"""The prepared store: a corpus decoded once, at one rate, into a memory-mapped Arrow table.

A store is built from a list of files under a lock, in a folder of its own that is renamed when it is complete:
two processes may ask for it at once, and one that was killed half-way leaves nothing behind that is used.
"""

import hashlib
import json
import os
import shutil
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from datamodules.corpora import Item

STORE_VERSION = 1  # raise it whenever what `decode` returns changes
MIN_SECONDS = 0.25
SILENCE = 2.0**-15  # a peak below one 16-bit step


def bandwidth(wave: np.ndarray, rate: int) -> float:
    """Highest frequency in Hz where the long-term spectrum is less than 80 dB below its maximum."""
    from scipy.signal import welch

    frequencies, power = welch(wave, rate, nperseg=min(4096, len(wave)), scaling="spectrum")
    return float(frequencies[np.flatnonzero(power >= power.max() * 1e-8)[-1]])


def decode(row: dict, rate: int) -> dict:
    """One file as mono float32 at `rate`, or an empty wave and the reason why it cannot be used."""
    import soundfile
    from scipy.signal import resample_poly

    def unusable(reason: str) -> dict:
        return {"id": row["id"], "group": row["group"], "reason": reason, "wave": [], "bandwidth": 0.0, "hash": ""}

    try:
        wave, source_rate = soundfile.read(row["path"], dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, OSError) as error:
        return unusable(f"undecodable: {error}")
    wave = wave.mean(axis=1)
    if len(wave) == 0:
        return unusable("empty")
    if not np.isfinite(wave).all():
        return unusable("holds NaN or infinity")
    if np.abs(wave).max() < SILENCE:
        return unusable("silent")
    if len(wave) < MIN_SECONDS * source_rate:
        return unusable(f"shorter than {MIN_SECONDS} s")
    if source_rate != rate:
        shared = np.gcd(source_rate, rate)
        wave = resample_poly(wave, rate // shared, source_rate // shared).astype(np.float32)
    return {
        "id": row["id"],
        "group": row["group"],
        "reason": "",
        "wave": wave,
        "bandwidth": bandwidth(wave, rate),
        "hash": hashlib.sha256(wave.tobytes()).hexdigest(),
    }


@dataclass
class Store:
    """Recordings that share a rate; `waves[i]` is a view of the memory-mapped table, never a copy."""

    folder: Path
    rate: int
    ids: list[str] = field(default_factory=list)
    groups: list[str] = field(default_factory=list)
    bandwidths: list[float] = field(default_factory=list)
    hashes: list[str] = field(default_factory=list)
    waves: list[np.ndarray] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)  # id -> reason

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
        """Names what is in the store: its rate and every recording's samples, not paths or dates."""
        content = json.dumps([STORE_VERSION, self.rate, sorted(zip(self.ids, self.hashes, strict=True))])
        return hashlib.sha256(content.encode()).hexdigest()[:16]

    def subset(self, rows: list[int]) -> "Store":
        """The same store with only these rows."""
        picked = {name: [getattr(self, name)[i] for i in rows] for name in ("ids", "groups", "bandwidths", "hashes", "waves")}
        return Store(self.folder, self.rate, left_out=self.left_out, **picked)

    def reaching(self, hertz: float) -> "Store":
        """Only recordings whose band reaches `hertz`."""
        return self.subset([i for i, reach in enumerate(self.bandwidths) if reach >= hertz])

    def spread(self, count: int | None) -> "Store":
        """At most `count` recordings, taken evenly over the groups in the order of their names."""
        if count is None or count >= len(self):
            return self
        by_group: dict[str, list[int]] = {}
        for row in sorted(range(len(self)), key=lambda i: self.ids[i]):
            by_group.setdefault(self.groups[row], []).append(row)
        turns = sorted((turn, group, row) for group, rows in by_group.items() for turn, row in enumerate(rows))
        return self.subset([row for _, _, row in turns[:count]])


def listing_key(items: tuple[Item, ...], rate: int) -> str:
    """What a store is valid for: these files (name, size, date), this rate, this version of the code."""
    files = [(item.id, item.group, (stat := item.path.stat()).st_size, stat.st_mtime_ns) for item in items]
    return hashlib.sha256(json.dumps([STORE_VERSION, rate, files]).encode()).hexdigest()[:16]


def prepare(items: tuple[Item, ...], rate: int, root: Path, name: str, workers: int = 1) -> Store:
    """The store of these files, built if it is not there yet (in parallel, with a progress bar).

    root: folder of all stores. name: a readable prefix of its folder.
    """
    from filelock import FileLock

    root.mkdir(parents=True, exist_ok=True)
    key = f"{name}-{rate}-{listing_key(items, rate)}"
    with FileLock(root / f"{key}.lock"):
        if not (root / key).is_dir():
            partial = root / f"{key}.partial"
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir()
            _build(items, rate, partial, name, workers)
            os.replace(partial, root / key)
    return _open(root / key, rate)


def _build(items: tuple[Item, ...], rate: int, folder: Path, name: str, workers: int) -> None:
    import datasets

    # A 64-bit list: an hour at 48 kHz times a few recordings a batch would overflow the 32-bit offsets.
    wave = datasets.LargeList(datasets.Value("float32"))
    texts = {key: datasets.Value("string") for key in ("id", "group", "reason", "hash")}
    features = datasets.Features({**texts, "bandwidth": datasets.Value("float32"), "wave": wave})
    rows = datasets.Dataset.from_list([{**item._asdict(), "path": str(item.path)} for item in items])
    rows.map(
        decode,
        fn_kwargs={"rate": rate},
        remove_columns=["path"],
        features=features,
        num_proc=min(workers, len(items)) if workers > 1 else None,
        cache_file_name=str(folder / "recordings.arrow"),
        load_from_cache_file=False,
        writer_batch_size=16,
        new_fingerprint=folder.name.replace(".", "-")[-60:],
        desc=f"preparing {name}",
    )


def _open(folder: Path, rate: int) -> Store:
    import datasets

    store = Store(folder, rate)
    for file in sorted(folder.glob("*.arrow")):
        table = datasets.Dataset.from_file(str(file)).data
        for chunk in table.column("wave").chunks:
            starts = chunk.offsets.to_numpy()
            samples = chunk.values.to_numpy(zero_copy_only=True)
            store.waves += [samples[a:b] for a, b in zip(starts[:-1], starts[1:], strict=True)]
        for name, values in (("ids", "id"), ("groups", "group"), ("bandwidths", "bandwidth"), ("hashes", "hash")):
            getattr(store, name).extend(table.column(values).to_pylist())
        reasons = table.column("reason").to_pylist()
        store.left_out |= {id_: why for id_, why in zip(table.column("id").to_pylist(), reasons, strict=True) if why}
    return store.subset([i for i, id_ in enumerate(store.ids) if id_ not in store.left_out])
