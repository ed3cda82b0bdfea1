"""Score any folder of audio against references, under any protocol: python experiments/evaluate.py --help"""

import experiments  # noqa: F401  isort: skip  first: it says how PyTorch's threads wait

import argparse
import csv
import io
import itertools
import json
import os
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import scipy.fft
import soundfile
import torch
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress
from rich.table import Table
from torch import Tensor

from callbacks.scores import Scores
from datamodules.corpora.selection import audio_below
from experiments.averages import LEAST, Averages, averages
from experiments.configuration import configure, load_paper, nearest, paper_names
from experiments.threads import choose_threads
from signals.errors import UserError
from signals.metrics import METRICS
from signals.types import Pair, Signal

DEFAULT_METRICS = ("lsd_ssr_eval", "lsd_nuwave", "snr", "si_sdr")
SECONDS_AT_ONCE = 60  # of sound, all channels: what bounds the memory
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


def by_name(folder: Path) -> dict[str, list[Path]]:
    """Relative path without suffix -> the files of that name. Raises UserError without such a folder."""
    if not folder.is_dir():
        raise UserError(f"no folder {folder}.")
    found: dict[str, list[Path]] = {}
    for path in audio_below(folder):
        found.setdefault(path.relative_to(folder).with_suffix("").as_posix(), []).append(path)
    return found


def matched(id_: str, estimates: list[Path], references: list[Path]) -> Item:
    """Raises UserError with why the two cannot be compared as they are."""
    headers = []
    for kind, paths in (("estimate", estimates), ("reference", references)):
        if not paths:
            raise UserError(f"no {kind}")
        if len(paths) > 1:
            raise UserError(f"{len(paths)} files could be the {kind}: {', '.join(p.name for p in paths)}")
        try:
            headers.append(soundfile.info(paths[0]))
        except soundfile.SoundFileError:
            raise UserError(f"the {kind} {paths[0].name} is broken") from None
    ours, theirs = headers
    for what, unit in (("samplerate", "Hz"), ("frames", "samples"), ("channels", "channels")):
        mine, other = getattr(ours, what), getattr(theirs, what)
        if mine != other:
            raise UserError(f"the estimate has {mine} {unit}, the reference {other}")
    if not ours.frames:
        raise UserError("both are empty")
    return Item(id_, estimates[0], references[0], ours.samplerate, ours.frames, ours.channels)


def matched_folders(reference: Path, estimate: Path) -> tuple[list[Item], dict[str, str]]:
    """What can be scored, and why each other file cannot. Raises UserError without any pair."""
    ours, theirs = by_name(estimate), by_name(reference)
    if not ours.keys() & theirs.keys():
        raise UserError(
            f"nothing in common: {len(ours)} audio files below {estimate}, {len(theirs)} below {reference};"
            " names must agree up to the suffix."
        )
    items, left_out = [], {}
    for id_ in sorted(ours.keys() | theirs.keys()):
        try:
            items.append(matched(id_, ours.get(id_, []), theirs.get(id_, [])))
        except UserError as reason:
            left_out[id_] = str(reason)
    return items, left_out


def read(item: Item) -> np.ndarray:
    """[2, C, T] estimate and reference. Raises UserError where one cannot be scored."""
    waves = []
    for kind, path in (("estimate", item.estimate), ("reference", item.reference)):
        try:
            wave, _ = soundfile.read(path, dtype="float32", always_2d=True)
        except soundfile.SoundFileError:
            raise UserError(f"the {kind} {path.name} is broken") from None
        if len(wave) != item.samples:
            raise UserError(f"the {kind} {path.name} breaks off after {len(wave)} of {item.samples} samples")
        if not np.isfinite(wave).all():
            raise UserError(f"the {kind} {path.name} holds NaN or infinity")
        waves.append(wave.T)
    return np.stack(waves)


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
    correlation = torch.fft.irfft((E * R.conj()).sum(1), size)
    lags = torch.arange(-reach, reach + 1, device=correlation.device)
    lags = lags[lags.abs().argsort(stable=True)]
    found = lags[correlation[:, lags].abs().argmax(1)]
    return found, correlation.gather(1, found[:, None] % size)[:, 0].sign()


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


def score_all(items: list[Item], rule: Mapping) -> tuple[dict[str, dict[str, float]], dict[str, str]]:
    """Scores by file, and why files could not be read after all."""
    files, left_out = {}, {}
    columns = (*Progress.get_default_columns(), MofNCompleteColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("scoring", total=len(items))
        for batch in batches(items):
            waves: dict[Item, np.ndarray] = {}
            for item in batch:
                try:
                    waves[item] = read(item)
                except UserError as reason:
                    left_out[item.id] = str(reason)
            if waves:
                files |= score_batch(list(waves), list(waves.values()), rule)
            bar.advance(task, len(batch))
    return dict(sorted(files.items())), left_out


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
    text = io.StringIO()
    columns = ["file", *next(iter(files.values())), "rule"]
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows({"file": id_, **scores} for id_, scores in files.items())
    for name, values in totals(found, len(files)).items():
        line = {"file": name, **values}
        writer.writerow(line | ({"rule": json.dumps(rule, sort_keys=True)} if name == "mean" else {}))
    return text.getvalue()


def as_table(files: Mapping, found: Averages, rule: Mapping, width: int | None) -> str:
    columns = list(next(iter(files.values())))
    pretty = Table("file", title=f"{len(files):,} file" + "s" * (len(files) > 1), title_justify="left")
    for name in columns:
        pretty.add_column(name, justify="right")
    if len(files) <= LINES:
        for id_, scores in files.items():
            pretty.add_row(id_, *(f"{scores[name]:.4g}" for name in columns))
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


def warn(files: Mapping[str, Mapping[str, float]], found: Averages) -> None:
    """What is odd about files that were scored as they are; on stderr, a line a kind."""
    late = [f"{id_} ({s['lag']:+d} samples)" for id_, s in files.items() if s["lag"]]
    loud = [f"{id_} ({s['level']:+.1f} dB)" for id_, s in files.items() if not abs(s["level"]) <= LEVEL_OFF]
    turned = [id_ for id_, s in files.items() if s["polarity"] < 0]
    lines = [("not aligned with the reference", late), ("not at the level of the reference", loud)]
    lines += [("upside down against the reference (reversed polarity)", turned)]
    lines += [(f"no finite {metric}, left out of its mean", ids) for metric, ids in found.not_finite.items()]
    for what, which in lines:
        if which:
            rest = f", and {len(which) - LINES} more" if len(which) > LINES else ""
            print(f"evaluate.py: {what}: {', '.join(which[:LINES])}{rest}", file=sys.stderr)


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
    files, unreadable = score_all(items, rule)
    left_out |= unreadable
    for id_, reason in left_out.items():
        print(f"evaluate.py: left out {id_}: {reason}", file=sys.stderr)
    if not files:
        raise UserError("no file could be scored.")
    scores = {id_: {m: v for m, v in s.items() if m not in ALIGNMENT} for id_, s in files.items()}
    found = averages(scores, groups, args.average)
    warn(files, found)
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
