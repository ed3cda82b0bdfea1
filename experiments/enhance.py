"""Super-resolve recordings of your own: python experiments/enhance.py --help"""

import argparse
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import chain, count
from pathlib import Path

from experiments.records import cause, identity_hash, read_record
from signals.errors import UserError
from signals.files import replacing
from signals.names import one_line, say

FORMATS = {"wav": "FLOAT", "flac": "PCM_24"}
BAND = (100, 200_000)  # Hz, in which an input's band may end
RATES = (1000, 400_000)  # Hz, of results
FLAC_CHANNELS = 8
WAV_LIMIT = 2**32 - 2**16  # bytes: a longer WAV file is written as RF64
MARK = "made by Wideband as"  # what results say of themselves, with a hash of how they were made
HUB_FILE = "pytorch_model.bin"  # of a repository on the hub, where none is named


def recordings(inputs: list[str], output: Path) -> tuple[list[tuple[Path, Path]], list[str]]:
    """Audio files of the inputs, each with its place below its input: folders keep their structure.

    And what in the folders could not be followed. Where the output is a folder within an input, what it holds
    are results. Raises UserError where an input is not there, or holds no audio.
    """
    from datamodules.corpora.listing import audio_below
    from signals.audio_files import SUFFIXES

    found: list[tuple[Path, Path]] = []
    left_out: list[str] = []
    for name in inputs:
        path = Path(name).expanduser()
        if path.is_dir():
            within = path.resolve() in output.resolve().parents
            listing = audio_below(path)
            files = [file for file in listing if not (within and output.resolve() in file.resolve().parents)]
            left_out += listing.left_out
            if not files and not listing.left_out:
                raise UserError(f"{one_line(path)} holds no audio ({', '.join(sorted(SUFFIXES))}).")
            found += [(file, file.relative_to(path)) for file in files]
        elif path.is_file():
            found.append((path, Path(path.name)))
        else:
            raise UserError(f"{one_line(path)}: no such file or folder.")
    return list(dict.fromkeys(found)), left_out


def result_names(found: Iterable[tuple[Path, Path]], form: str) -> dict[Path, Path]:
    """By file, the name of its result below the output; no two are the same.

    `take.mp3` becomes `take.wav`; beside a `take.flac` it is `take.mp3.wav`, and where another input has the
    same it stands below that input's own name, or has a number.
    """
    names: dict[Path, Path] = {}
    alike, taken = Counter(place.with_suffix("") for _, place in found), set()
    for file, place in found:
        name = place.with_suffix("") if alike[place.with_suffix("")] == 1 else place
        above = Path(file.parents[len(place.parts) - 1].name)
        numbered = (name.with_name(f"{name.name}-{number}") for number in count(2))
        results = (path.with_name(f"{path.name}.{form}") for path in chain((name, above / name), numbered))
        names[file] = next(result for result in results if result not in taken)
        taken.add(names[file])
    return names


# The method -----------------------------------------------------------------------------------------------


def newest(folder: Path, system: str | None, cutoff: float | None = None) -> Path:
    """The record to use below `folder` (`runs`, or `runs/<paper>`): the system's that was tested last.

    Of a system with a network for each cut-off, that of the one nearest to `cutoff` Hz.
    """
    records = [(path.parent, read_record(path.parent)) for path in sorted(folder.glob("**/record.json"))]
    scored = [(path, record) for path, record in records if record["kind"] == "score" and record["runs"]]
    systems = sorted({record["system"] for _, record in scored})
    if not systems:
        raise UserError(f"{folder} holds no tested system with weights: run.py trains and tests one.")
    if system is None and len(systems) == 1:
        system = systems[0]
    if system not in systems:
        raise UserError(f"{folder} holds {', '.join(systems)}: choose one by --row.")
    mine = [(path, record) for path, record in scored if record["system"] == system]
    path, last = max(mine, key=lambda one: one[1]["provenance"]["finished"])
    alike = ("paper", "preset", "protocol", "seed", "dataset")
    others = [(p, r) for p, r in mine if all(r[key] == last[key] for key in alike)]
    if all(record["runs"] == last["runs"] for _, record in others):
        return path
    edges = {record["cutoff_hz"]: p for p, record in others if record["cutoff_hz"]}
    if not edges:
        raise UserError(f"{folder} holds several networks of {system}: name the folder of one.")
    if cutoff is None:
        each = ", ".join(f"{hertz:,g}" for hertz in sorted(edges))
        raise UserError(f"{system} has a network for each cut-off: choose one by --cutoff ({each} Hz).")
    return edges[min(edges, key=lambda hertz: abs(hertz - cutoff))]


def load(checkpoint: str, system: str | None, cutoff: float | None = None):
    """The method of a tested row's folder, of a run's (or its weights.safetensors), or of a folder of these.

    And what names it: the id of its record. Raises UserError where nothing can be loaded from there.
    """
    from experiments.runs import restored
    from lightning_modules import build_method, in_trusted_file
    from lightning_modules.super_resolver import SuperResolver

    path = Path(checkpoint).expanduser()
    folder = path.parent if path.name == "weights.safetensors" else path
    if not folder.is_dir():
        raise UserError(f"--checkpoint {checkpoint}: no such folder (released weights need --paper).")
    folder = folder if read_record(folder) else newest(folder, system, cutoff)
    record = read_record(folder)
    if record["kind"] == "score":
        identity = record["identity"]
        name = in_trusted_file(identity["method"], identity["source"], folder)
        parts = {part: restored(folder.parent / run) for part, run in identity["parts"].items()}
        return build_method(name, identity["rate"], parts, identity["settings"]), record["id"]
    stage = restored(folder)
    if not isinstance(stage, SuperResolver):
        raise UserError(
            f"{folder} is one part of a method ({type(stage).__name__}): name the folder of a tested row."
        )
    return stage, record["id"]


def weights_file(place: str) -> Path:
    """A file, or one of `hf://owner/name[/file]`, which the hub's own cache keeps.

    Raises UserError where it is not to be had.
    """
    if not place.startswith("hf://"):
        path = Path(place).expanduser()
        if not path.is_file():
            raise UserError(f"--checkpoint {place}: no such file.")
        return path
    from huggingface_hub import hf_hub_download

    owner, _, rest = place.removeprefix("hf://").partition("/")
    name, _, file = rest.partition("/")
    try:
        return Path(hf_hub_download(f"{owner}/{name}", file or HUB_FILE))
    except Exception as error:  # of the network, the hub, or the name; which differs by its version
        raise UserError(
            f"--checkpoint {place}: {cause(error)} Or fetch it elsewhere, and name the file."
        ) from None


def load_released(paper: str, checkpoint: str, system: str | None, changes: list[str]):
    """The method of a row of released weights, straight from their file, and what names it.

    No run is written.

    system: the row, in the paper's first table (None: the first such). changes: `method.key=value`, over the
    row's settings. Raises UserError where nothing can be loaded so.
    """
    from experiments.configuration import configure, load_paper, load_table
    from experiments.runs import converted
    from lightning_modules import build_method, find_method

    for text in changes:
        if not text.startswith("method."):
            raise UserError(f"--set {text}: a key of the method is needed, as in method.guidance=3.5.")
    config = configure(paper, "full", changes)
    table = load_table(paper, load_paper(paper)["tables"][0])
    rows = {
        row.system: row
        for row in table.rows
        if row.parts and all("released" in config["runs"][run] for run in row.parts.values())
    }
    if not rows:
        raise UserError(f"--paper {paper}: no row of its first table has released weights.")
    system = system or next(iter(rows))
    if system not in rows:
        known = ", ".join(f'"{name}"' for name in rows)
        raise UserError(f"--row {system}: {paper} has released weights of {known}.")
    row = rows[system]
    own = config["method"] if row.method == paper else {}
    changed = {text.partition("=")[0].removeprefix("method.") for text in changes}
    if unknown := changed - own.keys():
        raise UserError(f"--set method.{min(unknown)}: {system} is used as it is.")
    path, stages = weights_file(checkpoint), {}
    parts = {part: converted(config, run, path, stages) for part, run in row.parts.items()}
    settings = own | row.settings | {key: own[key] for key in changed}
    resolved = find_method(row.method).resolved(settings)
    name = [paper, system, resolved, *stamp(path)]
    return build_method(row.method, config["data"]["rate"], parts, resolved), name


def method_of(args: argparse.Namespace):
    """The method that was asked for, on its device, and what names it among all that could be."""
    import torch

    from experiments.threads import choose_threads
    from lightning_modules import find_method, own_source, trust
    from lightning_modules.stage import Stage
    from lightning_modules.super_resolver import SuperResolver

    trust(args.method)
    choose_threads()
    if args.paper:
        method, name = load_released(args.paper, args.checkpoint, args.row, args.set)
    elif args.checkpoint:
        method, name = load(args.checkpoint, args.row, args.cutoff)
    else:
        found = find_method(args.method)
        if issubclass(found, Stage) or found.__init__ is not SuperResolver.__init__:
            raise UserError(f"{args.method} needs weights: name a run or a tested row by --checkpoint.")
        method, name = found(rate=args.rate), [found.__name__, args.rate, own_source(args.method)]
    if method.oracle:
        raise UserError(f"{type(method).__name__} is an oracle: it needs the full-band reference.")
    automatic = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        method = method.in_use().to(automatic if args.device == "auto" else args.device).eval()
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"--device {args.device}: {cause(error)}") from None
    return method, [name, method.version]


def stamp(path: Path) -> tuple[int, int]:
    """Size and date of a file, by which another in its place is known."""
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns


# Results that are there -----------------------------------------------------------------------------------


def how_made(source: Path, name: object, args: argparse.Namespace) -> str:
    """The text that a result carries: it is the same only where the same would be made again."""
    settings = [name, args.cutoff, args.seed, args.precision, args.format, *stamp(source)]
    return f"{MARK} {identity_hash({'made': settings})}"


def mark_of(result: Path) -> str:
    """The text that a result carries; empty where it is none of ours."""
    import soundfile

    try:
        with soundfile.SoundFile(os.fsencode(result)) as file:
            return file.comment
    except soundfile.LibsndfileError:
        return ""


def to_do(sources: Mapping[Path, Path], name: object, args: argparse.Namespace) -> tuple[list, list[Path]]:
    """What is to be made, as (source, result, its text), and results in the way that are none of ours.

    A result that was made in the same way is there; one of ours that was made otherwise is made again.
    """
    todo, foreign, done = [], [], 0
    for source, result in sources.items():
        target, made = Path(args.output) / result, how_made(source, name, args)
        if target.exists() and target.samefile(source):
            raise UserError(f"{one_line(target)} would replace its own input: choose another --output.")
        there = mark_of(target) if target.exists() and not args.overwrite else None
        if there == made:
            done += 1
        elif there is None or there.startswith(MARK):
            todo.append((source, target, made))
        else:
            foreign.append(target)
    if done:
        print(f"{done} results were there before, nothing to do for them")
    return todo, foreign


# Audio ----------------------------------------------------------------------------------------------------


def opened(file, device):
    """A file as a Recording [channels, 1, ...] that is read where it is needed."""
    import torch

    from signals.audio_files import stretches_of
    from signals.types import Recording

    stretch = stretches_of(file)

    def read(first: int, count: int) -> torch.Tensor:
        return torch.from_numpy(stretch(first, count)).T[:, None].to(device)

    return Recording(read, file.frames, file.rate)


class Unwritable(UserError):
    """A result that cannot be written; the message says why, and the file is named by who catches it."""


@contextmanager
def writing(path: Path, form: str, channels: int, rate: int, samples: int, made: str) -> Iterator[Callable]:
    """A function that writes a wave [T, channels] at the end of a file, which is there only when it is whole.

    made: a text that the file carries. Raises Unwritable.
    """
    import soundfile

    container = "RF64" if form == "wav" and 4 * samples * channels > WAV_LIMIT else form.upper()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as partial:
            kind = {"subtype": FORMATS[form], "format": container}
            with soundfile.SoundFile(os.fsencode(partial), "w", rate, channels, **kind) as out:
                out.comment = made
                yield out.write
    except soundfile.LibsndfileError as error:
        raise Unwritable(f"its result cannot be written: {error.error_string}: is there room?") from None
    except OSError as error:
        raise Unwritable(f"its result cannot be written: {error.strerror}") from None


def enhance_file(
    method, source: Path, target: Path, made: str, args: argparse.Namespace, advance: Callable
) -> list[str]:
    """Enhances one recording. advance: called with the share done. Returns what is to be said of it."""
    from signals.audio_files import AudioFile
    from signals.resampling import resampled_length

    with AudioFile(source) as file:
        if args.format == "flac" and file.channels > FLAC_CHANNELS:
            raise UserError(f"FLAC holds {FLAC_CHANNELS} channels at most, not {file.channels}: --format wav")
        samples = resampled_length(file.frames, file.rate, method.rate)
        written, clipped = 0, 0
        with writing(target, args.format, file.channels, method.rate, samples, made) as write:
            for piece in method.enhance(opened(file, method.device), args.cutoff, args.seed):
                wave = piece[:, 0].T.float().cpu().numpy()
                if args.format == "flac":  # which ends at full scale
                    clipped += int((abs(wave) > 1).sum())
                    wave = wave.clip(-1, 1)
                write(wave)
                written += len(wave)
                advance(written / samples)
        notes = [f"{clipped} samples clipped; --format wav clips none"] if clipped else []
        if file.rate > method.rate:
            notes.append(f"brought down from {file.rate:,} to the method's {method.rate:,} Hz")
    return notes


def enhance(args: argparse.Namespace) -> int:
    """Enhances every recording that has no result yet."""
    import torch

    from callbacks.progress import progress_bar

    found, left_out = recordings(args.inputs, Path(args.output))
    sources = result_names(found, args.format)
    method, name = method_of(args)
    todo, foreign = to_do(sources, name, args)
    failed = dict.fromkeys(foreign, "is there, but does not say how it was made: --overwrite replaces it")
    bf16 = torch.autocast(method.device.type, torch.bfloat16, enabled=args.precision == "bf16")
    with progress_bar() as bar, torch.inference_mode(), bf16:
        progress = bar.add_task("enhancing", total=len(todo), note="")
        for place, (source, target, made) in enumerate(todo):
            bar.update(progress, note=one_line(source.name), completed=place)

            def advance(share: float, at: int = place) -> None:
                bar.update(progress, completed=at + share)

            try:
                for note in enhance_file(method, source, target, made, args, advance):
                    say(bar.console, f"{one_line(source)}: {note}")
            except (UserError, OSError, RuntimeError, MemoryError) as error:
                failed[source] = cause(error)
        bar.update(progress, note="", completed=len(todo))
    left_out += [one_line(f"{path}: {why}") for path, why in failed.items()]
    for line in left_out:
        print(f"enhance.py: left out: {line}", file=sys.stderr)
    enhanced = len(todo) + len(foreign) - len(failed)
    print(f"{enhanced} of {len(sources)} recordings enhanced into {one_line(args.output)}/")
    return 1 if left_out else 0


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Super-resolve recordings: any length, rate and number of channels, in bounded memory.",
    )
    parser.add_argument("inputs", nargs="+", metavar="INPUT", help="audio files, and folders of them")
    parser.add_argument(
        "--output", required=True, help="folder of the results, as long and as loud as the inputs"
    )
    parser.add_argument(
        "--checkpoint",
        metavar="RUN_OR_FILE",
        help="folder of a tested row or of a run, or `runs`; with --paper a file, or hf://owner/name",
    )
    parser.add_argument(
        "--method",
        help="one without weights: spline, sinc, hold, ...; with --checkpoint, FILE.py:CLASS that its record "
        "was made by: the file is executed, so a record alone may not name it",
    )
    parser.add_argument("--paper", help="whose authors released the file of weights that --checkpoint names")
    parser.add_argument(
        "--set", action="append", default=[], metavar="method.KEY=VALUE", help="how it is used, with --paper"
    )
    parser.add_argument("--row", metavar="SYSTEM", help="which system, if --checkpoint is a folder of many")
    parser.add_argument("--rate", type=int, default=48000, help="Hz, with --method (default: %(default)s)")
    parser.add_argument("--cutoff", type=float, help="Hz, where the inputs' band ends (default: see README)")
    parser.add_argument("--seed", type=int, default=0, help="of what is random (default: %(default)s)")
    parser.add_argument("--device", default="auto", help="cpu, cuda, ... (default: %(default)s)")
    parser.add_argument(
        "--precision",
        choices=("32", "bf16"),
        default="32",
        help="bf16: networks in half precision where their layers can, faster (default: %(default)s)",
    )
    parser.add_argument("--format", choices=FORMATS, default="wav", help="wav: 32-bit float; flac: 24-bit")
    parser.add_argument("--overwrite", action="store_true", help="also what has a result already")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    args = parse(argv)
    try:
        if args.cutoff is not None and not BAND[0] <= args.cutoff <= BAND[1]:  # nan fails this, too
            raise UserError("--cutoff needs a frequency from {:,} to {:,} Hz.".format(*BAND))
        if not (args.checkpoint or args.method):
            raise UserError("what by? --checkpoint RUN_OR_FILE, or --method of one without weights.")
        if args.checkpoint and args.method and ":" not in args.method:
            raise UserError(f"--checkpoint has its own method, so --method {args.method} goes without it.")
        if ((args.method or not args.checkpoint) and args.paper) or (args.set and not args.paper):
            raise UserError("--paper goes with --checkpoint, and --set with --paper.")
        if not RATES[0] <= args.rate <= RATES[1]:
            raise UserError("--rate needs a rate from {:,} to {:,} Hz.".format(*RATES))
        return enhance(args)
    except UserError as error:
        print(f"enhance.py: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("enhance.py: interrupted; the same command goes on with what is missing.", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
