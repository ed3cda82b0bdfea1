"""The recordings of one root: corpora found, fetched or made, and prepared once for a rate."""

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path

from datamodules.corpora import Missing, Selection, select
from datamodules.corpora.selection import beside
from datamodules.demo_corpus import write_demo_corpus
from datamodules.store import Store, prepare
from signals.errors import UserError
from signals.names import one_line, shortened


def corpus_of(part: Mapping) -> dict:
    """The options of `select` in a part of a mixture or in a test set: not how it counts or is tested."""
    return {key: value for key, value in part.items() if key not in ("weight", "average", "protocol", "rate")}


class Library:
    """Corpora below `root` (None: the demo corpus, made below `folder`), their stores below `folder`.

    workers: processes that decode (None: one a core). report: called with each line worth reading. prepare:
    false where only stores that are there are to be had, and Unprepared is raised for others.
    """

    def __init__(
        self,
        root: str | None,
        folder: str,
        *,
        download: bool = False,
        workers: int | None = None,
        report: Callable[[str], None] = print,
        prepare: bool = True,
    ):
        self.folder, self.download, self.report = Path(folder), download, report
        self.prepare = prepare
        self.workers = workers or os.cpu_count() or 1
        self.demo = root is None
        self.root = self.folder / "demo" if root is None else Path(root).expanduser()
        self._selections: dict[str, Selection] = {}
        self._stores: dict[tuple, Store] = {}
        self._told: set[str] = set()  # of what was left out, each line once
        if root is not None and not self.root.is_dir():
            raise UserError(f"data.root={root}: no such folder{beside(self.root)}: {self.root}.")

    @classmethod
    def of(cls, data: Mapping, **options) -> "Library":
        """Of a configuration's `data`. options: over it."""
        given = {"download": data["download"], "workers": data["workers"]}
        return cls(data["root"], data["folder"], **given | options)

    def make_demo(self) -> None:
        """Writes the demo corpus where it is the root and not there yet."""
        if self.demo:
            try:
                write_demo_corpus(self.root, workers=self.workers)
            except FileExistsError as error:
                raise UserError(f"the demo corpus: {error}; choose another data.folder.") from None

    def select(self, split: str, **corpus) -> Selection:
        """The files of a split, looked for once; a missing corpus is fetched where `download` allows.

        Raises UserError.
        """
        key = json.dumps([split, corpus], sort_keys=True, default=str)
        if key not in self._selections:
            try:
                self._selections[key] = select(self.root, split, **corpus)
            except Missing as missing:
                if not self.download or missing.fetch is None:
                    raise
                missing.fetch()
                return self.select(split, **corpus)  # which may miss another folder
            for line in self._selections[key].left_out:
                if line not in self._told:
                    self._told.add(line)
                    self.report(f"left out: {line}")
        return self._selections[key]

    def store(self, rate: int, split: str, *, resampling: str = "soxr", **corpus) -> tuple[Store, Selection]:
        """A split prepared at `rate` Hz (how: `store.RESAMPLERS`), without what its targets cannot use.

        Raises UserError where nothing is left.
        """
        selection = self.select(split, **corpus)
        key = (rate, resampling, selection)
        if key not in self._stores:
            name = shortened(selection.corpus.replace("/", "-"), 100)
            place = (self.folder / "stores", f"{name}-{split}")
            store = prepare(selection.items, rate, *place, self.workers, resampling, self.prepare)
            for id_, reason in store.left_out.items():
                self.report(one_line(f"left out: {selection.corpus}/{id_}: {reason}"))
            if selection.min_bandwidth:
                whole, store = len(store), store.reaching(selection.min_bandwidth)
                self.report(
                    f"{selection.corpus} {split}: {len(store)} of {whole} recordings reach "
                    f"{selection.min_bandwidth / 1000:g} kHz, the others are no targets"
                )
            if not len(store):
                where = f"its {split} split below {self.root}"
                raise UserError(f"corpus {selection.corpus}: nothing usable in {where}.")
            self._stores[key] = store
        return self._stores[key], selection

    def mixture(
        self, rate: int, split: str, parts: Mapping[str, Mapping], resampling: str = "soxr"
    ) -> dict[str, tuple[Store, float]]:
        """Store and weight of each named part; parts with weight 0 are not needed.

        Raises UserError where no part is left.
        """
        if not any(part["weight"] > 0 for part in parts.values()):
            raise UserError("a mixture needs a part with a weight above 0.")
        return {
            name: (self.store(rate, split, resampling=resampling, **corpus_of(part))[0], part["weight"])
            for name, part in parts.items()
            if part["weight"] > 0
        }
