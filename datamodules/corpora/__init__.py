"""Corpora: recordings in the layouts of their official releases, and named splits of them.

Every corpus is a function `(root, split, **options) -> Selection`; `split` is `train`, `validation` or
`test`. No speaker (or source, or fold) is in two of them, but for the divisions of VCTK whose docstring says
that published code shares them.
"""

from collections.abc import Callable
from pathlib import Path

from datamodules.corpora.folders import ESC50_WHERE, esc50, folder
from datamodules.corpora.hub import hub
from datamodules.corpora.music import AUDIOSTOCK_WHERE, audiostock, beethoven, fma, musdb18hq
from datamodules.corpora.selection import (
    AUDIO_SUFFIXES,
    SPLITS,
    Item,
    Missing,
    Selection,
    beside,
    check_options,
    split_groups,
)
from datamodules.corpora.speech import vctk, voicebank
from signals.errors import UserError
from signals.names import is_text, one_line

__all__ = [
    "AUDIOSTOCK_WHERE",
    "AUDIO_SUFFIXES",
    "CORPORA",
    "ESC50_WHERE",
    "SPLITS",
    "Item",
    "Missing",
    "Selection",
    "select",
    "split_groups",
]

CORPORA: dict[str, Callable[..., Selection]] = {
    "vctk": vctk,
    "voicebank": voicebank,
    "fma": fma,
    "beethoven": beethoven,
    "musdb18hq": musdb18hq,
    "audiostock": audiostock,
    "esc50": esc50,
    "folder": folder,
    "hub": hub,
}


def select(below: Path, split: str, corpus: str, *, root: str | None = None, **options) -> Selection:
    """The files of one split of a corpus, `below` a folder or, where it lies elsewhere, below its own `root`.

    Raises UserError where the corpus or an option is unknown, or there is no file of it; where a folder is
    missing it is a `Missing`, which may know how to fetch it.
    """
    if corpus not in CORPORA:
        raise UserError(f"unknown corpus {corpus}: one of {', '.join(CORPORA)}.")
    check_options(corpus, CORPORA[corpus], options)
    if root is not None:
        below = Path(root).expanduser()
        if not below.is_dir():
            raise UserError(f"corpus {corpus}: root={root}: no such folder{beside(below)}: {below}.")
    if not is_text(below):
        raise UserError(f"corpus {corpus}: the name of {one_line(below)} is not UTF-8: rename it.")
    selection = CORPORA[corpus](below, split, **options)
    if not selection.items:
        raise UserError(f"corpus {selection.corpus}: no files of its {split} split below {below}.")
    return selection
