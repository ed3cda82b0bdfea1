"""Music: FMA, SampleRNN's Beethoven, MUSDB18-HQ, and AudioStock, which only licensees have."""

import csv
import re
from dataclasses import replace
from functools import cache
from pathlib import Path

from datamodules.corpora.folders import folder
from datamodules.corpora.listing import FORMER_SUFFIXES
from datamodules.corpora.selection import (
    Item,
    Selection,
    check_choice,
    check_options,
    demand,
    demand_audio,
    ids_of,
    part,
    shuffled,
)
from datamodules.demo_corpus import is_demo
from signals.errors import UserError

# FMA ------------------------------------------------------------------------------------------------------

FMA_WHERE = (
    "FMA is at https://github.com/mdeff/fma: unpack fma_small.zip or fma_medium.zip and fma_metadata.zip "
    "below data.root (data.download=true fetches them: 7.2 GiB, 22 GiB, 342 MiB)."
)
FMA_SPLITS = {"train": "training", "validation": "validation", "test": "test"}  # in its own words
FMA_COUNTS = {
    "small": {"train": 6400, "validation": 800, "test": 800},
    "medium": {"train": 19_922, "validation": 2505, "test": 2573},
}


def fma(
    root: Path,
    split: str,
    size: str = "small",
    division: str = "official",
    tracks: int = 2000,
    min_bandwidth: float = 0,
) -> Selection:
    """The Free Music Archive (Defferrard 2017): MP3 clips of 30 s, many band-limited at 16 to 19 kHz.

    size: small or medium. division: `official`, by artist, from fma_metadata/tracks.csv; or `cukaj`, the
    first `tracks` of the shuffled tracks, 80/10/10 by track (Cukaj and Corsi; theirs followed the order of a
    file system, ours follows from the names). min_bandwidth: Hz. The store leaves a few broken clips out.
    """
    check_choice("fma", "size", size, FMA_COUNTS)
    check_choice("fma", "division", division, ("official", "cukaj"))
    files = demand_audio(demand(root / f"fma_{size}", "fma", FMA_WHERE), "fma", split, "*/*.mp3")
    if division == "official":
        known = fma_tracks(demand(root / "fma_metadata", "fma", FMA_WHERE) / "tracks.csv")
        named = [(path, *known.get(path.stem, ("", ""))) for path in files]
        items = [Item(path, path.stem, artist) for path, its, artist in named if its == FMA_SPLITS[split]]
        expected = FMA_COUNTS[size][split]
    else:
        names = shuffled(path.stem for path in files)[:tracks]
        chosen = part(names, split, validations=len(names) // 10, tests=len(names) // 10)
        items = [Item(path, path.stem, path.stem) for path in files if path.stem in chosen]
        expected = tracks // 10 if split != "train" else tracks - 2 * (tracks // 10)
    demo, left_out = is_demo(root), files.left_out
    return Selection(f"fma_{size}", split, tuple(items), expected, demo, min_bandwidth, left_out)


@cache
def fma_tracks(table: Path) -> dict[str, tuple[str, str]]:
    """Split and artist of every track, by the name of its file. Raises UserError on another table."""
    if not table.is_file():
        raise UserError(f"corpus fma: no {table}. {FMA_WHERE}")
    csv.field_size_limit(1 << 24)  # whole biographies
    with table.open(newline="", encoding="utf-8") as lines:
        rows = csv.reader(lines)
        columns = list(zip(next(rows, []), next(rows, []), strict=False))  # a header of two levels
        try:
            split, artist = columns.index(("set", "split")), columns.index(("artist", "id"))
        except ValueError:
            raise UserError(
                f"corpus fma: {table} has no columns set/split and artist/id. {FMA_WHERE}"
            ) from None
        return {
            f"{int(row[0]):06d}": (row[split], f"artist{row[artist]}") for row in rows if row[0].isdigit()
        }


# Beethoven ------------------------------------------------------------------------------------------------

BEETHOVEN_WHERE = (
    "SampleRNN's 4,328 clips are at https://huggingface.co/datasets/krandiash/beethoven (accept its terms "
    "there): unpack them into beethoven/ below data.root."
)
BEETHOVEN_CLIPS = {"train": range(3808), "validation": range(3808, 4068), "test": range(4068, 4328)}


def beethoven(root: Path, split: str, stand_in: dict | None = None) -> Selection:
    """SampleRNN's piano sonatas (Mehri 2017), 4,328 clips of 8 s at 16 kHz, split 88/6/6 by their numbers.

    Its terms must be accepted: where the folder is not there, `stand_in` (the options of `folder`) takes its
    place, and says so.
    """
    expected = len(BEETHOVEN_CLIPS[split])
    if stand_in is not None and not (root / "beethoven").is_dir():
        return stood_in("beethoven", root, split, stand_in, expected)
    base = demand(root / "beethoven", "beethoven", BEETHOVEN_WHERE)
    files = demand_audio(base, "beethoven", split, "*")
    first = sorted(
        files, key=lambda path: path.suffix.lower() in FORMER_SUFFIXES
    )  # of a number, the last counts
    numbered = [(re.search(r"\d+$", path.stem), path) for path in first]
    clips = {int(n[0]): path for n, path in numbered if n}
    items = tuple(
        Item(clips[n], clips[n].stem, "beethoven") for n in sorted(clips) if n in BEETHOVEN_CLIPS[split]
    )
    left_out = files.left_out
    return Selection("beethoven", split, items, expected, stand_in=is_demo(root), left_out=left_out)


# MUSDB18-HQ -----------------------------------------------------------------------------------------------

MUSDB_WHERE = (
    "MUSDB18-HQ is at https://zenodo.org/records/3338373 (data.download=true fetches it, 23 GB): unpack "
    "musdb18hq.zip as musdb18hq/ below data.root. (Plain MUSDB18 ends at 16 kHz.)"
)
MUSDB_STEMS = ("mixture", "vocals", "drums", "bass", "other")
MUSDB_COUNTS = {"train": 86, "validation": 14, "test": 50}
MUSDB_VALIDATION = {  # of the musdb package
    "ANiMAL - Rockshow",
    "Actions - One Minute Smile",
    "Alexander Ross - Goodbye Bolero",
    "Clara Berry And Wooldog - Waltz For My Victims",
    "Fergessen - Nos Palpitants",
    "James May - On The Line",
    "Johnny Lokke - Promises & Lies",
    "Leaf - Summerghost",
    "Meaxic - Take A Step",
    "Patrick Talbot - A Reason To Leave",
    "Skelpolu - Human Mistakes",
    "Traffic Experiment - Sirens",
    "Triviul - Angelsaint",
    "Young Griffo - Pennies",
}


def musdb18hq(root: Path, split: str, stem: str = "mixture") -> Selection:
    """One stem of each track of MUSDB18-HQ (Rafii 2019), 44.1 kHz stereo; a track is a group."""
    check_choice("musdb18hq", "stem", stem, MUSDB_STEMS)
    base = demand(root / "musdb18hq", "musdb18hq", MUSDB_WHERE)
    tracks = demand(base / ("test" if split == "test" else "train"), "musdb18hq", MUSDB_WHERE)
    files = demand_audio(tracks, "musdb18hq", split, f"*/{stem}.wav")
    items = [Item(path, f"{path.parent.name}/{stem}", path.parent.name) for path in files]
    if split != "test":
        items = [item for item in items if (item.group in MUSDB_VALIDATION) == (split == "validation")]
    expected, left_out = MUSDB_COUNTS[split], files.left_out
    return Selection("musdb18hq", split, tuple(items), expected, stand_in=is_demo(root), left_out=left_out)


# AudioStock -----------------------------------------------------------------------------------------------

AUDIOSTOCK_TRACKS = 100
AUDIOSTOCK_WHERE = (
    "Its tracks are licensed at https://audiostock.net: list yours in AudioStock/tracks.txt, one path a line."
)


def audiostock(root: Path, split: str, stand_in: dict | None = None) -> Selection:
    """AudioSR's 100 hand-picked AudioStock tracks: a licensed catalogue, and the list was never published.

    `AudioStock/tracks.txt` below the root names a user's own licensed tracks, one path a line, relative to
    it; all are for test. Without it, `stand_in` (the options of `folder`) takes the column, and says so.
    """
    base = root / "AudioStock"
    listing = base / "tracks.txt"
    if listing.is_file():
        names = sorted({line.strip() for line in listing.read_text().splitlines() if line.strip()})
        missing = [name for name in names if not (base / name).is_file()]
        if missing:
            raise UserError(f"corpus audiostock: {listing} names {missing[0]}, which is not there.")
        tracks = zip(names, ids_of(map(Path, names)), strict=True)
        items = tuple(Item(base / name, id_, name) for name, id_ in tracks) if split == "test" else ()
        return Selection("audiostock", split, items, AUDIOSTOCK_TRACKS, stand_in=is_demo(root))
    if stand_in is None:
        raise UserError(f"corpus audiostock: no {listing}. {AUDIOSTOCK_WHERE}")
    return stood_in("audiostock", root, split, stand_in, AUDIOSTOCK_TRACKS)


def stood_in(corpus: str, root: Path, split: str, options: dict, expected: int) -> Selection:
    """What `folder` finds with these options, in the place of a corpus that is not there."""
    check_options(f"{corpus}, stand_in,", folder, options)
    found = folder(root, split, **options)
    return replace(found, expected=expected, stand_in=True)
