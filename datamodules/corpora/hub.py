"""Any audio dataset of the Hugging Face hub, written once as files and then read as such."""

import io
import os
import re
import shutil
from functools import partial
from pathlib import Path

from filelock import FileLock

from datamodules.corpora.listing import LISTED_SUFFIXES
from datamodules.corpora.selection import SPLITS, Item, Missing, Selection, demand_audio, part
from signals.errors import UserError

HUB_SPLITS = {name: name for name in SPLITS} | {
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
}


def hub(
    root: Path,
    split: str,
    id: str,
    config: str | None = None,
    audio: str = "audio",
    group: str | None = None,
    min_bandwidth: float = 0,
) -> Selection:
    """A dataset of https://huggingface.co/datasets, by its `id` (owner/name) and, if need be, its `config`.

    Known to be of use: JacobLinCool/VoiceBank-DEMAND-16k (audio=clean), ashraq/esc50 (group=fold),
    benjamin-paine/free-music-archive-small, krandiash/beethoven (gated: accept its terms, `hf auth login`).

    audio: the column of the recordings. group: the column of the speakers or sources (None: each recording is
    its own). Where the dataset has no validation or test split, groups of its train split stand for it: a
    tenth and a fifth of them. min_bandwidth: Hz. With data.download=true the files are written to
    `<root>/hub/<owner>--<name>/<these options>/<split>/<group>/`; `datasets` keeps its own copy in HF_HOME.
    """
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", id):
        raise UserError(f"corpus hub: id={id}: an id is owner/name.")
    names = [safe(name) for name in (config, audio, group) if name is not None]
    folder = root / "hub" / id.replace("/", "--") / "-".join(names)
    if not folder.is_dir():
        message = f"corpus {id}: no folder {folder}. data.download=true fetches it from the Hugging Face hub."
        raise Missing(message, partial(fetch_hub, folder, id, config, audio, group))
    own = split if (folder / split).is_dir() else "train"
    found = demand_audio(folder / own, id, split)
    files = {path: path.relative_to(folder / own) for path in found}
    items = [Item(path, f"{own}/{inside.stem}", inside.parent.name) for path, inside in files.items()]
    count = len(groups := {item.group for item in items})
    if own == "train":  # of which it gives what the dataset lacks
        lacks = {name for name in SPLITS if not (folder / name).is_dir()}
        validations = max(1, count // 10) if "validation" in lacks else 0
        tests = max(1, count // 5) if "test" in lacks else 0
        groups = part(groups, split, validations, tests)
    chosen = tuple(item for item in items if item.group in groups)
    return Selection(id, split, chosen, None, min_bandwidth=min_bandwidth, left_out=found.left_out)


def safe(name: object) -> str:
    """A name that is one part of a path: letters, digits, `_`, `.` and `-`, and no dot at an end."""
    return re.sub(r"[^\w.-]+", "_", str(name))[:100].strip(".") or "_"


def fetch_hub(folder: Path, id: str, config: str | None, audio: str, group: str | None) -> None:
    """Writes the recordings as `<split>/<group>/<row>.<suffix>` below `folder`, whole or not at all.

    Raises UserError where the hub does not give the dataset, or it has no such columns or splits.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = folder.with_name(folder.name + ".partial")
    with FileLock(f"{folder}.lock"):
        if folder.is_dir():
            return
        shutil.rmtree(unfinished, ignore_errors=True)
        try:
            for name, rows in load_splits(id, config).items():
                write_rows(rows, unfinished / name, id, audio, group)
            os.replace(unfinished, folder)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)


def load_splits(id: str, config: str | None) -> dict:
    """The dataset's train, validation and test, as far as it has them."""
    import datasets

    try:
        parts = datasets.load_dataset(id, config)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"corpus {id} could not be fetched from the hub: {reason}") from error
    known = {HUB_SPLITS[name]: rows for name, rows in parts.items() if name in HUB_SPLITS}
    if not known:
        raise UserError(
            f"corpus {id} has {', '.join(parts)} on the hub, and none of {', '.join(HUB_SPLITS)}."
        )
    return known


def write_rows(rows, folder: Path, id: str, audio: str, group: str | None) -> None:
    """One file a row, as encoded on the hub."""
    import datasets

    wanted = [audio] if group is None else [audio, group]
    if unknown := [name for name in wanted if name not in rows.column_names]:
        raise UserError(
            f"corpus {id} has no column {unknown[0]} on the hub: one of {', '.join(rows.column_names)}."
        )
    if isinstance(rows.features[audio], datasets.Value):  # a text would be cast to the path of a file here
        raise UserError(f"corpus {id}: its column {audio} holds no audio.")
    rows = rows.select_columns(wanted).cast_column(audio, datasets.Audio(decode=False))
    for number, row in enumerate(rows):
        if row[audio] is None:
            continue
        content = row[audio]["bytes"] or Path(row[audio]["path"]).read_bytes()
        name = f"{number:07d}"
        path = folder / safe(name if group is None else row[group]) / (name + suffix_of(row[audio], content))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def suffix_of(audio: dict, content: bytes) -> str:
    """`.flac` and so on, by the name of the recording or, if it has none, by its content."""
    import soundfile

    suffix = Path(audio["path"] or "").suffix.lower()
    if suffix in LISTED_SUFFIXES:
        return suffix
    try:
        return f".{soundfile.info(io.BytesIO(content)).format.lower()}"
    except soundfile.LibsndfileError:
        return ".wav"  # of which the store will say why it is left out
