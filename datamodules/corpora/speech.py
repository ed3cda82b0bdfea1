"""Speech: VCTK with the divisions that papers made of it, and VoiceBank."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

import yaml

from datamodules.corpora.selection import (
    Item,
    Missing,
    Selection,
    check_choice,
    demand,
    demand_audio,
    ids_of,
    part,
    without,
)
from datamodules.demo_corpus import is_demo

# VCTK -----------------------------------------------------------------------------------------------------


class Release(NamedTuple):
    """Where a release of VCTK lies below the root, and which files of a microphone it has."""

    folder: str
    audio: str
    pattern: str
    where: str


VCTK_RELEASES = {
    "0.92": Release(
        "VCTK-Corpus-0.92",
        "wav48_silence_trimmed",
        "*/*_{mic}.flac",
        "VCTK 0.92 is at https://datashare.ed.ac.uk/handle/10283/3443 (data.download=true fetches it, 11 GB)"
        "; or set data.root to the folder that holds VCTK-Corpus-0.92.",
    ),
    "0.80": Release(
        "VCTK-Corpus",
        "wav48",
        "*/*.wav",
        "VCTK 0.80 is VCTK-Corpus.tar.gz, once at https://datashare.ed.ac.uk/handle/10283/2651: unpack it "
        "below data.root.",
    ),
}
VCTK_TEST = {"p360", "p361", "p362", "p363", "p364", "p374", "p376", "s5"}  # the last 8; 2,937 utterances
VCTK_VALIDATION = {"p347", "p351"}  # ours: the papers name none
VCTK_DROPPED = {"p280", "p315"}  # faults of the second microphone; no transcripts
KULESHOV = yaml.safe_load(Path(__file__).with_name("kuleshov.yaml").read_text())


def utterance(item: Item) -> str:
    """`p225_001` of p225_001.wav (0.80) and of p225_001_mic1.flac (0.92) alike."""
    return "_".join(item.path.stem.split("_")[:2])


def by_speaker(
    items: list[Item], split: str, test: set[str], validation: set[str], dropped: Iterable[str] = ()
) -> list[Item]:
    """The named speakers for validation and test, and all others that are not dropped for training."""
    named = {"test": test, "validation": validation}
    if split in named:
        return [item for item in items if item.group in named[split]]
    return [item for item in items if item.group not in test | validation | set(dropped)]


def numbers(ranges: str) -> list[str]:
    """`001-003, 005` as 001, 002, 003 and 005: speakers or utterances as their names have them."""
    spans = [[int(end) for end in span.split("-")] for span in ranges.split(",")]
    return [f"{number:03d}" for span in spans for number in range(span[0], span[-1] + 1)]


def listed(division: str, split: str) -> list[str]:
    """The numbers that Kuleshov et al. published for a split; validation and test are the same."""
    return numbers(KULESHOV[division]["train" if split == "train" else "held_out"])


def kuleshov(items: list[Item], split: str) -> list[Item]:
    """All speakers, by speaker."""
    speakers = {f"p{number}" for number in listed("kuleshov", split)}
    return [item for item in items if item.group in speakers]


def kuleshov_p225(items: list[Item], split: str) -> list[Item]:
    """One speaker, by utterance."""
    utterances = {f"p225_{number}" for number in listed("kuleshov_p225", split)}
    return [item for item in items if utterance(item) in utterances]


def king_p228(items: list[Item], split: str) -> list[Item]:
    """One speaker by utterance, 88/6/6. Theirs was drawn anew at each run; ours follows from the names."""
    speaker = [item for item in items if item.group == "p228"]
    chosen = eighty_eight(map(utterance, speaker), split)
    return [item for item in speaker if utterance(item) in chosen]


def king(items: list[Item], split: str) -> list[Item]:
    """All speakers, 88/6/6 by speaker: what the paper says, and no speaker is in two splits."""
    chosen = eighty_eight((item.group for item in items), split)
    return [item for item in items if item.group in chosen]


def eighty_eight(names: Iterable[str], split: str) -> set[str]:
    share = max(1, round(0.06 * len(names := set(names))))
    return part(names, split, validations=share, tests=share)


class Division(NamedTuple):
    """Which items are in a split, and how many files of the first microphone the published splits have."""

    chosen: Callable[[list[Item], str], list[Item]]
    counts: Mapping[str, int]


VCTK_DIVISIONS = {
    "ssr_eval": Division(
        partial(by_speaker, test=VCTK_TEST, validation=VCTK_VALIDATION, dropped=VCTK_DROPPED), {"test": 2937}
    ),
    "nuwave": Division(
        partial(by_speaker, test=VCTK_TEST, validation=VCTK_TEST, dropped=VCTK_DROPPED),
        {"validation": 2937, "test": 2937},
    ),
    "kuleshov": Division(kuleshov, KULESHOV["kuleshov"]["files"]),
    "kuleshov_p225": Division(kuleshov_p225, KULESHOV["kuleshov_p225"]["files"]),
    "king_p228": Division(king_p228, {"train": 321, "validation": 22, "test": 22}),
    "king": Division(king, {}),
    "all": Division(lambda items, split: items if split == "test" else [], {}),
}
ONE_SPEAKER = {"kuleshov_p225": "p225", "king_p228": "p228"}
TOO_FEW = 20  # recordings of one speaker, below which another may stand in


def best_recorded(root: Path, path: str, split: str) -> tuple[list[Item], tuple[str, ...]]:
    """The speaker below a folder of speakers who has the most recordings, 88/6/6 by recording.

    And a line for what is left out.
    """
    base = demand(root / Path(path).expanduser(), "vctk", "It is the stand-in for one speaker of VCTK.")
    files = demand_audio(base, "vctk, stand_in,", split)
    insides = [file.relative_to(base) for file in files]
    speakers = [inside.parent.as_posix() for inside in insides]
    best, _ = max(sorted(Counter(speakers).items()), key=lambda counted: counted[1])
    items = [
        Item(file, id_, speaker)
        for file, id_, speaker in zip(files, ids_of(insides), speakers, strict=True)
        if speaker == best
    ]
    chosen = eighty_eight((item.path.stem for item in items), split)
    return [item for item in items if item.path.stem in chosen], files.left_out


def vctk(
    root: Path,
    split: str,
    division: str = "ssr_eval",
    release: str = "0.92",
    mic: str = "mic1",
    stand_in: str | None = None,
) -> Selection:
    """VCTK, all or one speaker of it, divided as a paper did.

    division:
        ssr_eval: the last 8 speakers are test (ssr_eval, NVSR, AudioSR); validation is ours.
        nuwave: 100 speakers train, the same last 8 test, and, as published, validate (NU-Wave 1 and 2).
        kuleshov: 100 speakers train; 9 others validate and test, as published (Kuleshov 2017, TFNet; 0.80).
        kuleshov_p225: one speaker; 223 listed utterances train, 8 others validate and test, as published
            (Kuleshov 2017, TFNet; 0.80).
        king_p228: one speaker, 88/6/6 by utterance, as AudioEDSR's code has it.
        king: all speakers, 88/6/6 by speaker, as its paper has it.
        all: every recording, for test.
    stand_in: a folder of speakers below the root, whose best recorded one stands in for a single speaker of
    whom there are fewer than 20 recordings, and says so (None: as few as there are).
    release: 0.92 or 0.80. Their utterances have the same names, so any division can be made of either; where
    the release is not the paper's, the counts differ. mic: mic1 or mic2, of 0.92 (0.80 has one microphone).
    """
    release = str(release).ljust(4, "0")  # YAML reads 0.80 as a number
    check_choice("vctk", "division", division, VCTK_DIVISIONS)
    check_choice("vctk", "release", release, VCTK_RELEASES)
    check_choice("vctk", "mic", mic, ("mic1", "mic2") if release == "0.92" else ("mic1",))
    audio = vctk_folder(root, release)
    files = demand_audio(audio, "vctk", split, VCTK_RELEASES[release].pattern.format(mic=mic))
    items = [Item(path, path.stem, path.parent.name) for path in files]
    if mic == "mic2":
        items = without(items, ["p280"])  # its second microphone failed; p362 lacks some files, which is fine
    chosen, counts = VCTK_DIVISIONS[division]
    expected = counts.get(split) if mic == "mic1" else None
    one = ONE_SPEAKER.get(division)
    if stand_in and one and sum(item.group == one for item in items) < TOO_FEW:
        best, left_out = best_recorded(root, stand_in, split)
        return Selection(stand_in, split, tuple(best), expected, stand_in=True, left_out=left_out)
    items, left_out = tuple(chosen(items, split)), files.left_out
    return Selection("vctk", split, items, expected, stand_in=is_demo(root), left_out=left_out)


def vctk_folder(root: Path, release: str) -> Path:
    """The folder of the speakers. Raises Missing, which names another release that is there."""
    folder, audio, _, where = VCTK_RELEASES[release]
    others = [name for name, other in VCTK_RELEASES.items() if (root / other.folder / other.audio).is_dir()]
    try:
        return demand(demand(root / folder, "vctk", where) / audio, "vctk", where)
    except Missing as missing:
        if not others:
            raise
        hint = f"{missing} Release {others[0]} is there: set release={others[0]} for it."
        raise Missing(hint, missing.fetch, ("vctk", "release", others[0])) from None


# VoiceBank ------------------------------------------------------------------------------------------------

VOICEBANK_WHERE = (
    "VoiceBank-DEMAND is at https://datashare.ed.ac.uk/handle/10283/2791: unpack its clean_*_wav.zip into "
    "VoiceBank/ below data.root (16 kHz only: the corpus hub has it as JacobLinCool/VoiceBank-DEMAND-16k)."
)
VOICEBANK_FOLDERS = {28: ("28",), 56: ("56",), 84: ("28", "56")}
VOICEBANK_COUNTS = {28: 11_572, 56: 23_075, 84: 34_647}
VOICEBANK_VALIDATION = {"p226", "p287"}  # a habit of the field, of the 28 speakers


def voicebank(root: Path, split: str, speakers: int = 28, leave_out: str | Iterable[str] = ()) -> Selection:
    """The clean half of VoiceBank-DEMAND (Valentini-Botinhao 2016), 48 kHz; p232 and p257 are its test.

    It has no official validation: p226 and p287 are held out of training, or, where neither is there, a tenth
    of the speakers. So train is expected to have the count of its folder, and lacks what validation holds.
    speakers: 28, 56 or 84 (both). leave_out: patterns of speakers (the 28 have test speakers of VCTK).
    """
    check_choice("voicebank", "speakers", speakers, VOICEBANK_FOLDERS)
    base = demand(root / "VoiceBank", "voicebank", VOICEBANK_WHERE)
    names = ["clean_testset_wav"]
    if split != "test":
        names = [f"clean_trainset_{count}spk_wav" for count in VOICEBANK_FOLDERS[speakers]]
    folders = [demand(base / name, "voicebank", VOICEBANK_WHERE) for name in names]
    listings = [demand_audio(folder, "voicebank", split, "*.wav") for folder in folders]
    files = sorted(path for listing in listings for path in listing)
    items = without((Item(path, path.stem, path.stem.split("_")[0]) for path in files), leave_out)
    if split != "test":
        found = {item.group for item in items}
        held_out = found & VOICEBANK_VALIDATION or part(
            found, "validation", validations=max(1, len(found) // 10), tests=0
        )
        items = [item for item in items if (item.group in held_out) == (split == "validation")]
    counts = {"train": VOICEBANK_COUNTS[speakers], "test": 824}
    left_out = tuple(line for listing in listings for line in listing.left_out)
    return Selection(
        "voicebank", split, tuple(items), counts.get(split), stand_in=is_demo(root), left_out=left_out
    )
