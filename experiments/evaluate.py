"""Score any folder of audio against references, under any protocol: python experiments/evaluate.py --help"""

import experiments  # noqa: F401  isort: skip  first: it says how PyTorch's threads wait

import argparse
import errno
import io
import itertools
import json
import math
import os
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import scipy.fft
import torch
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress
from rich.table import Table
from rich.text import Text
from torch import Tensor

from callbacks.scores import Scores, in_bits, score
from datamodules.corpora.selection import audio_below
from experiments.averages import LEAST, Averages, averages
from experiments.configuration import configure, load_paper, nearest, paper_names
from experiments.threads import choose_threads
from signals.audio_files import AudioFile, Unreadable
from signals.errors import UserError
from signals.metrics import METRICS
from signals.names import csv_text, one_line
from signals.stretches import correlation, side_by_side, takes_stretches
from signals.types import Pair, Recording, Signal

DEFAULT_METRICS = ("lsd_ssr_eval", "lsd_nuwave", "snr", "si_sdr")
KINDS = ("estimate", "reference")
SECONDS_AT_ONCE = 60  # of sound, all channels: what is in memory at once; longer files go by stretches
SECONDS_WHOLE = 600  # of a channel: what a metric is given at most that does not go by stretches
BLOCK = 2**18  # samples of a file that are decoded at once
REACH = 0.05  # seconds to both sides in which a lag is looked for
LEVEL_OFF = 1.0  # dB of difference in level that is worth a warning
LINES = 30  # more files than these are not printed one by one
# Samples by which the estimate is late, dB by which it is loud, -1 where it is upside down.
ALIGNMENT = ("lag", "level", "polarity")


class Item(NamedTuple):
    """An estimate and its reference, alike in rate (Hz), samples and channels."""

    id: str
    estimate: Path
    reference: Path
    rate: int
    samples: int
    channels: int


# What there is to score by --------------------------------------------------------------------------------


def protocols() -> dict[str, dict]:
    """`paper/name` -> metrics by printed name, word length, rate (Hz) and the rest of a protocol."""
    configs = {paper: configure(paper, "full") for paper in paper_names() if "config" in load_paper(paper)}
    return {
        f"{paper}/{name}": rule | {"rate": config["data"]["rate"]}
        for paper, config in configs.items()
        for name, rule in config["protocols"].items()
    }


def rule_of(args: argparse.Namespace) -> dict:
    """What defines the numbers. Raises UserError on an unknown protocol or metric."""
    rule = {"metrics": {name: name for name in DEFAULT_METRICS}, "bits": None, "rate": None}
    if args.protocol:
        known = protocols()
        if args.protocol not in known:
            raise UserError(f"unknown protocol {args.protocol}" + nearest(args.protocol, known))
        chosen = known[args.protocol]
        rule = {key: chosen[key] for key in ("metrics", "bits", "rate")}
        if chosen.get("crop") or chosen.get("peaks"):
            print(
                f"evaluate.py: {args.protocol} scores the middle of recordings, at a peak of 1: give it what "
                "ran on a cell's recordings/input; files are scored here as they are",
                file=sys.stderr,
            )
    if args.metrics:
        rule["metrics"] = {name: name for name in args.metrics.split(",")}
    if unknown := [name for name in rule["metrics"].values() if name not in METRICS]:
        raise UserError(f"unknown metric {unknown[0]}" + nearest(unknown[0], METRICS))
    if args.cutoff is not None and not 0 < args.cutoff < float("inf"):  # nan fails this, too
        raise UserError("--cutoff needs a frequency in Hz above 0.")
    return rule | {"cutoff": args.cutoff, "average": args.average}


def list_everything() -> None:
    """Protocols with what computes each printed name, and metrics with the first line on each."""
    for name, rule in protocols().items():
        metrics = ", ".join(f"{printed} by {metric}" for printed, metric in rule["metrics"].items())
        print(f"{name}: {metrics}" + (f"; stored in {rule['bits']} bits" if rule["bits"] else ""))
    print("metrics:")
    for name, metric in METRICS.items():
        print(f"  {name}: {(metric.__doc__ or 'see signals/perceptual.py').splitlines()[0]}")


# Files ----------------------------------------------------------------------------------------------------


def by_name(folder: Path, report: Callable[[str], object] | None = None) -> dict[str, list[Path]]:
    """Relative path without suffix -> the files of that name. Raises UserError without such a folder.

    report: told of each link, folder or name that cannot be followed.
    """
    if not folder.is_dir():
        raise UserError(f"no folder {one_line(folder)}.")
    found: dict[str, list[Path]] = {}
    listing = audio_below(folder)
    for path in listing:
        found.setdefault(path.relative_to(folder).with_suffix("").as_posix(), []).append(path)
    for line in listing.left_out if report else ():
        report(line)
    return found


@contextmanager
def opened(kind: str, path: Path) -> Iterator[AudioFile]:
    """An estimate or a reference. Raises UserError, which names it, where it cannot be read to its end."""
    try:
        with AudioFile(path) as file:
            yield file
    except Unreadable as error:
        reason = str(error)
        is_ = "is " if reason.startswith(("empty", "undecodable", "joined")) else ""
        raise UserError(f"the {kind} {path.name} {is_}{reason}") from None


def matched(id_: str, estimates: list[Path], references: list[Path]) -> Item:
    """Raises UserError with why the two cannot be compared as they are."""
    found = []
    for kind, paths in zip(KINDS, (estimates, references), strict=True):
        if not paths:
            raise UserError(f"no {kind}")
        if len(paths) > 1:
            raise UserError(f"{len(paths)} files could be the {kind}: {', '.join(p.name for p in paths)}")
        with opened(kind, paths[0]) as file:
            found.append((file.rate, file.frames, file.channels))
    for mine, other, unit in zip(*found, ("Hz", "samples", "channels"), strict=True):
        if mine != other:
            raise UserError(f"the estimate has {mine} {unit}, the reference {other}")
    return Item(id_, estimates[0], references[0], *found[0])


def matched_folders(reference: Path, estimate: Path) -> tuple[list[Item], list[str]]:
    """What can be scored, and a line for what cannot. Raises UserError without any pair."""
    left_out: list[str] = []
    ours, theirs = (by_name(folder, left_out.append) for folder in (estimate, reference))
    if not ours.keys() & theirs.keys():
        why = f" Left out: {left_out[0]}." if left_out else ""
        raise UserError(
            f"nothing in common: {len(ours)} audio files below {one_line(estimate)}, {len(theirs)} below "
            f"{one_line(reference)}; names must agree up to the suffix.{why}"
        )
    items = []
    for id_ in sorted(ours.keys() | theirs.keys()):
        try:
            items.append(matched(id_, ours.get(id_, []), theirs.get(id_, [])))
        except UserError as reason:
            left_out.append(f"{id_}: {reason}")
    return items, left_out


@contextmanager
def side(item: Item, kind: str) -> Iterator[AudioFile]:
    """Its `estimate` or `reference`. Raises UserError where that is not what it was when it was matched."""
    path = getattr(item, kind)
    with opened(kind, path) as file:
        if (file.rate, file.frames, file.channels) != (item.rate, item.samples, item.channels):
            raise UserError(f"the {kind} {path.name} was changed in the meantime")
        yield file


def read(item: Item) -> np.ndarray:
    """[2, C, T] estimate and reference. Raises UserError where one cannot be scored."""
    waves = []
    for kind in KINDS:
        with side(item, kind) as file:
            waves.append(file.read(item.samples).T)
    return np.stack(waves)


@contextmanager
def spooled(item: Item, device: str) -> Iterator[list[Recording]]:
    """Estimate and reference as Recordings [C, 1, ...] that are read where they are needed.

    Each is decoded once, into a file of the temporary folder that has no name: it is gone with the process,
    however that ends. Raises UserError where one cannot be scored, or has no room.
    """
    with ExitStack() as stack:
        recordings = []
        for kind in KINDS:
            with side(item, kind) as file:
                with room_for(item):
                    samples = stack.enter_context(tempfile.TemporaryFile())
                    needed = 4 * item.samples * item.channels * (len(KINDS) - len(recordings))
                    if shutil.disk_usage(tempfile.gettempdir()).free < needed:
                        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                spool(file, samples, item)
            recordings.append(recording_of(samples, item, device))
        yield recordings


@contextmanager
def room_for(item: Item) -> Iterator[None]:
    """Raises UserError, which names the temporary folder, where there is no room for both files."""
    size = 4 * item.samples * item.channels * len(KINDS)
    try:
        yield
    except OSError as error:
        raise UserError(
            f"no room for {size / 1e9:.1f} GB in the temporary folder {tempfile.tempdir or ''} "
            f"({error.strerror}): set TMPDIR to a folder that has it"
        ) from None


def spool(file: AudioFile, samples: BinaryIO, item: Item) -> None:
    """Decodes a file into another, as bare floats [T, C]."""
    while len(wave := file.read(BLOCK)):
        with room_for(item):
            samples.write(wave)
            samples.flush()


def recording_of(samples: BinaryIO, item: Item, device: str) -> Recording:
    """What `spool` has written."""

    def read(first: int, count: int) -> Tensor:
        wave = np.zeros((count, item.channels), np.float32)
        start, stop = max(first, 0), min(first + count, item.samples)
        if start < stop:
            samples.seek(wave.itemsize * item.channels * start)
            samples.readinto(wave[start - first : stop - first])
        return torch.from_numpy(wave).T.contiguous()[:, None].to(device)

    return Recording(read, item.samples, item.rate)


def is_long(item: Item) -> bool:
    """Whether it goes by stretches."""
    return item.channels * item.samples > SECONDS_AT_ONCE * item.rate


def batches(items: list[Item]) -> Iterator[list[Item]]:
    """Of one rate and number of channels, near in length; at most SECONDS_AT_ONCE, or one file."""

    def kind(item: Item) -> tuple[int, int]:
        return item.rate, item.channels

    ordered = sorted(items, key=lambda item: (*kind(item), item.samples))
    for (rate, channels), alike in itertools.groupby(ordered, kind):
        batch: list[Item] = []
        for item in alike:
            if batch and (len(batch) + 1) * channels * item.samples > SECONDS_AT_ONCE * rate:
                yield batch
                batch = []
            batch.append(item)
        yield batch


# Scores ---------------------------------------------------------------------------------------------------


def lag_and_polarity(estimate: Tensor, reference: Tensor, reach: int) -> tuple[Tensor, Tensor]:
    """[B] samples by which each estimate [B, C, T] is late: the peak of the cross-correlation's modulus.

    Within +-`reach` samples; of equal peaks the nearest to 0, and 0 for silence. Channels move together. And
    [B] the polarity: the sign of the cross-correlation there, -1 where the estimate is upside down.
    """
    size = scipy.fft.next_fast_len(estimate.shape[-1] + reach, real=True)
    E, R = (torch.fft.rfft(wave.double(), size) for wave in (estimate, reference))
    both = torch.fft.irfft((E * R.conj()).sum(1), size)
    return peak(torch.cat([both[:, size - reach :], both[:, : reach + 1]], dim=1))


def peak(correlation: Tensor) -> tuple[Tensor, Tensor]:
    """[B] the lag of the largest modulus of correlations [B, 2 reach + 1], and its sign there."""
    reach = correlation.shape[1] // 2
    lags = torch.arange(-reach, reach + 1, device=correlation.device)
    nearest = lags.abs().argsort(stable=True)
    found = lags[nearest][correlation[:, nearest].abs().argmax(1)]
    return found, correlation.gather(1, found[:, None] + reach)[:, 0].sign()


def level(estimate: Tensor, reference: Tensor) -> Tensor:
    """[B] dB by which the power of each estimate [B, C, T] is above its reference's, channels together."""
    ours, theirs = (wave.double().square().sum((1, 2)) for wave in (estimate, reference))
    return 10 * (ours / theirs).log10()


def score_batch(items: list[Item], waves: list[np.ndarray], rule: Mapping) -> dict[str, dict[str, float]]:
    """Scores by file and name, with ALIGNMENT. A file of several channels has the mean of theirs."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    rate, channels, longest = items[0].rate, items[0].channels, max(item.samples for item in items)
    batch = torch.zeros(2, len(items), channels, longest)
    for row, wave in enumerate(waves):
        batch[:, row, :, : wave.shape[-1]] = torch.from_numpy(wave)
    estimate, reference = batch.to(device)
    lengths = torch.tensor([item.samples for item in items], device=device).repeat_interleave(channels)
    estimated, high = (Signal(wave.reshape(-1, 1, longest), rate, lengths) for wave in (estimate, reference))
    cutoff = None if rule["cutoff"] is None else torch.full((len(lengths),), rule["cutoff"], device=device)
    ids = [(item.id, channel) for item in items for channel in range(channels)]
    scores = Scores(rule["metrics"], rule["bits"])
    scores.add(estimated, Pair(high, high, cutoff, ids, torch.zeros_like(lengths)))
    lags, polarities = lag_and_polarity(estimate, reference, min(round(REACH * rate), longest - 1))
    beside = zip(*(x.tolist() for x in (lags, level(estimate, reference), polarities.int())), strict=True)
    found = {}
    for item, alignment in zip(items, beside, strict=True):
        each = [scores.files[item.id, channel] for channel in range(channels)]
        found[item.id] = {name: sum(one[name] for one in each) / channels for name in each[0]}
        found[item.id] |= zip(ALIGNMENT, alignment, strict=True)
    return found


def score_long(item: Item, rule: Mapping) -> tuple[dict[str, float], list[str]]:
    """Scores by name, with ALIGNMENT, of a file that is read by stretches, and the names that it cannot have.

    What does not go by stretches is given one channel after the other as a whole, unless that is too long.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    cutoff = None if rule["cutoff"] is None else torch.full((item.channels,), rule["cutoff"], device=device)
    scores, missing = {}, []
    with spooled(item, device) as (estimate, reference):
        stored = estimate.mapped(partial(in_bits, bits=rule["bits"]))
        for name, metric in rule["metrics"].items():
            if takes_stretches(METRICS[metric]):
                found = score({name: metric}, stored, reference, cutoff)
            elif item.samples <= SECONDS_WHOLE * item.rate:
                found = score_channels({name: metric}, stored, reference, cutoff)
            else:
                found = {name: torch.tensor([math.nan])}
                missing.append(name)
            scores |= {key: sum(values.tolist()) / len(values) for key, values in found.items()}
        return scores | dict(zip(ALIGNMENT, alignment(estimate, reference), strict=True)), missing


def score_channels(
    metrics: Mapping[str, str], estimate: Recording, reference: Recording, cutoff: Tensor | None
) -> dict[str, Tensor]:
    """`score` of each channel as a whole."""
    found = []
    for row in range(len(reference.lengths)):
        waves = (
            torch.cat([part[row : row + 1].clone() for part in x.stretches(BLOCK)], dim=-1)
            for x in (estimate, reference)
        )
        pair = (Signal.of(wave, reference.rate) for wave in waves)
        found.append(score(metrics, *pair, None if cutoff is None else cutoff[row : row + 1]))
    return {name: torch.cat([scores[name] for scores in found]) for name in found[0]}


def alignment(estimate: Recording, reference: Recording) -> tuple[int, float, int]:
    """`lag_and_polarity` and `level` in the order of ALIGNMENT, all channels together."""
    reach = min(round(REACH * reference.rate), reference.samples - 1)
    lag, polarity = peak(correlation(estimate, reference, reach).sum(0, keepdim=True))
    powers = 0
    for _, *waves in side_by_side(estimate, reference):
        powers = powers + torch.stack([wave.square().sum(dtype=torch.float64) for wave in waves])
    return lag.item(), (10 * (powers[0] / powers[1]).log10()).item(), int(polarity)


class Scored(NamedTuple):
    """files: scores by name. left_out: a line for each that could not be read after all.

    missing: ids by the name of a score that does not go by stretches, and of which they are too long.
    """

    files: dict[str, dict[str, float]]
    left_out: list[str]
    missing: dict[str, list[str]]

    def add(self, batch: list[Item], rule: Mapping) -> None:
        """Scores a batch of `batches`."""
        waves: dict[Item, np.ndarray] = {}
        for item in batch:
            try:
                if is_long(item):
                    self.files[item.id], missing = score_long(item, rule)
                    for name in missing:
                        self.missing.setdefault(name, []).append(item.id)
                else:
                    waves[item] = read(item)
            except UserError as reason:
                self.left_out.append(f"{item.id}: {reason}")
        if waves:
            self.files.update(score_batch(list(waves), list(waves.values()), rule))

    def sorted(self) -> "Scored":
        """By id, and every file with the scores of all: what one does not have is nan."""
        names = dict.fromkeys(name for scores in self.files.values() for name in scores)
        files = {
            id_: {name: scores.get(name, math.nan) for name in names}
            for id_, scores in sorted(self.files.items())
        }
        return self._replace(files=files)


def score_all(items: list[Item], rule: Mapping) -> Scored:
    """Scores of all files, in batches or by stretches."""
    scored = Scored({}, [], {})
    columns = (*Progress.get_default_columns(), MofNCompleteColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("scoring", total=len(items))
        for batch in batches(items):
            scored.add(batch, rule)
            bar.advance(task, len(batch))
    return scored.sorted()


def groups_of(files: Mapping, average: str) -> dict[str, str]:
    """The first folder of each file. Raises UserError where groups are asked for and there are none."""
    groups = {id_: id_.partition("/")[0] if "/" in id_ else "" for id_ in files}
    if average == "group" and "" in groups.values():
        raise UserError("--average group: a group is a folder, and some files are in none.")
    return groups


# What is said about them ----------------------------------------------------------------------------------


def totals(found: Averages, count: int) -> dict[str, dict[str, float]]:
    """Rows below the files, by name: values by metric."""
    n = {metric: count - len(found.not_finite.get(metric, [])) for metric in found.mean}
    low, high = ({m: ends[side] for m, ends in found.interval.items()} for side in (0, 1))
    return {"mean": found.mean, "std": found.std, "n": n, "interval low": low, "interval high": high}


def as_csv(files: Mapping, found: Averages, rule: Mapping) -> str:
    """A line a file, then the totals; what defines the numbers stands in the line of the mean."""
    columns = ["file", *next(iter(files.values())), "rule"]
    lines = [{"file": id_, **scores} for id_, scores in files.items()]
    for name, values in totals(found, len(files)).items():
        defined = {"rule": json.dumps(rule, sort_keys=True)} if name == "mean" else {}
        lines.append({"file": name, **values, **defined})
    return csv_text([columns, *([line.get(column, "") for column in columns] for line in lines)])


def as_table(files: Mapping, found: Averages, rule: Mapping, width: int | None) -> str:
    columns = list(next(iter(files.values())))
    pretty = Table("file", title=f"{len(files):,} file" + "s" * (len(files) > 1), title_justify="left")
    for name in columns:
        pretty.add_column(name, justify="right")
    if len(files) <= LINES:
        for id_, scores in files.items():
            pretty.add_row(Text(one_line(id_)), *(f"{scores[name]:.4g}" for name in columns))
        pretty.add_section()
    rows = totals(found, len(files))
    counts = rows.pop("n")
    for name, values in rows.items():
        if not values:  # no interval of so few files
            continue
        pretty.add_row(name, *(f"{values[m]:.4g}" if m in values else "" for m in columns))
    pretty.add_row("n", *(f"{counts[m]:,} of {len(files):,}" if m in counts else "" for m in columns))
    console = Console(file=io.StringIO(), width=width)
    console.print(pretty)
    by = ", ".join(
        name if name == metric else f"{name} by {metric}" for name, metric in rule["metrics"].items()
    )
    notes = [f"metrics: {by}"]
    notes += [f"cut-off: {rule['cutoff']:g} Hz"] if rule["cutoff"] else []
    notes += [f"stored in {rule['bits']} bits before scoring"] if rule["bits"] else []
    notes += [f"rate: {', '.join(f'{rate:,}' for rate in rule['rates'])} Hz"]
    interval = "by bootstrap" if found.interval else f"of {LEAST} files or more only"
    notes += [f"mean of {'folders' if rule['average'] == 'group' else 'files'}; 95 % interval {interval}"]
    if len(files) > LINES:
        notes.append("--format csv has every file")
    console.print("\n".join(notes), highlight=False, markup=False)
    return console.file.getvalue()


def warn(scored: Scored, found: Averages) -> None:
    """What is odd about files that were scored as they are; on stderr, a line a kind."""
    files, missing = scored.files, scored.missing
    late = [f"{id_} ({s['lag']:+d} samples)" for id_, s in files.items() if s["lag"]]
    loud = [f"{id_} ({s['level']:+.1f} dB)" for id_, s in files.items() if not abs(s["level"]) <= LEVEL_OFF]
    turned = [id_ for id_, s in files.items() if s["polarity"] < 0]
    lines = [("not aligned with the reference", late), ("not at the level of the reference", loud)]
    lines += [("upside down against the reference (reversed polarity)", turned)]
    for metric, ids in found.not_finite.items():
        others = [id_ for id_ in ids if id_ not in missing.get(metric, [])]
        lines.append((f"no finite {metric}, left out of its mean", others))
    lines += [(f"{metric}: not by stretches, left out of", sorted(ids)) for metric, ids in missing.items()]
    for what, which in lines:
        if which:
            rest = f", and {len(which) - LINES} more" if len(which) > LINES else ""
            print(one_line(f"evaluate.py: {what}: {', '.join(which[:LINES])}{rest}"), file=sys.stderr)


def warn_of_rates(rates: Mapping[int, int], wanted: int | None) -> None:
    """Where the means are of several rates, or not the protocol's. rates: Hz -> files."""
    told = ", ".join(f"{count:,} at {rate:,} Hz" for rate, count in sorted(rates.items()))
    if len(rates) > 1:
        print(f"evaluate.py: files of several rates are in one mean: {told}", file=sys.stderr)
    if wanted and rates.keys() != {wanted}:
        print(f"evaluate.py: the protocol's rate is {wanted:,} Hz, but there are {told}", file=sys.stderr)


def check_output(path: Path) -> None:
    """Raises UserError where no file can be written, before anything is scored."""
    if path.is_dir() or not os.access(path.parent, os.W_OK):
        raise UserError(f"--output {path}: no file can be written there.")


def evaluate(args: argparse.Namespace) -> int:
    """Scores two folders. Returns 1 where files were left out."""
    if not args.reference or not args.estimate:
        raise UserError("which folders? --reference DIR --estimate DIR, or --list shows what there is.")
    choose_threads()
    rule = rule_of(args)
    if args.output:
        check_output(args.output)
    items, left_out = matched_folders(args.reference, args.estimate)
    groups = groups_of([item.id for item in items], args.average)
    scored = score_all(items, rule)
    files, left_out = scored.files, left_out + scored.left_out
    for line in left_out:
        print(one_line(f"evaluate.py: left out {line}"), file=sys.stderr)
    if not files:
        raise UserError("no file could be scored.")
    scores = {id_: {m: v for m, v in s.items() if m not in ALIGNMENT} for id_, s in files.items()}
    found = averages(scores, groups, args.average)
    warn(scored, found)
    rates = Counter(item.rate for item in items if item.id in files)
    warn_of_rates(rates, rule["rate"])
    rule |= {"rates": sorted(rates)}
    if args.format == "csv":
        text = as_csv(files, found, rule)
    else:
        text = as_table(files, found, rule, None if sys.stdout.isatty() and not args.output else 200)
    if args.output:
        args.output.write_text(text)
    else:
        print(text, end="")
    return 1 if left_out else 0


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Score a folder of audio against references: per file and in total.",
        epilog="Files are paired by their paths without suffix. Nothing is resampled, trimmed, shifted or "
        "scaled: what does not fit is left out by name, and the exit code is 1. A file of several channels "
        f"has the mean of their scores. Protocols: {', '.join(protocols())}.",
    )
    parser.add_argument("--reference", type=Path, metavar="DIR", help="full-band recordings")
    parser.add_argument("--estimate", type=Path, metavar="DIR", help="what a system made of their low bands")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--protocol", metavar="PAPER/NAME", help="metrics and word length of a paper's protocol")
    default = ",".join(DEFAULT_METRICS)
    how.add_argument("--metrics", metavar="A,B", help=f"names of metrics (default: {default})")
    parser.add_argument(
        "--cutoff", type=float, metavar="HZ", help="band edge of the input: LSD-LF and LSD-HF"
    )
    parser.add_argument(
        "--average", choices=("file", "group"), default="file", help="group: of folders' means"
    )
    parser.add_argument("--format", choices=("table", "csv"), default="table")
    parser.add_argument("--output", type=Path, metavar="FILE", help="instead of the terminal")
    parser.add_argument("--list", action="store_true", help="protocols and metrics")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    args = parse(argv)
    try:
        if args.list:
            list_everything()
            return 0
        return evaluate(args)
    except (UserError, OSError) as error:
        print(f"evaluate.py: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("evaluate.py: interrupted.", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
