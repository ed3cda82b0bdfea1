"""Outputs of generators, to put a system behind: python experiments/generate.py --help"""

import argparse
import csv
import sys
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np
import yaml

from experiments.configuration import PAPERS, nearest
from signals.audio_files import read_audio
from signals.errors import UserError
from signals.files import replacing
from signals.names import csv_text, one_line

MATERIAL = PAPERS / "audiosr" / "plug_and_play.yaml"
HUB_SECONDS = 10  # until the hub counts as out of reach

Make = Callable[[str, int], tuple[np.ndarray, int]]  # prompt and seed -> wave [T, C] and its rate in Hz
Tagger = Callable[[np.ndarray, int], list[str]]  # wave [T, C] and its rate in Hz -> the likeliest classes


class Item(NamedTuple):
    """One output: its name below the folder, and all that it follows from."""

    file: str
    prompt: str
    model: str
    seed: str


LEFT_OUT = (*Item._fields, "why")


# Generators -----------------------------------------------------------------------------------------------
# Each takes its settings, a device, and whether the hub is out of reach: then its cache must do.


def musicgen(settings: Mapping, device: str, offline: bool) -> Make:
    """Text to music (Copet et al. 2023), drawn at random under guidance."""
    import torch
    from transformers import AutoProcessor, MusicgenForConditionalGeneration

    processor = AutoProcessor.from_pretrained(settings["model"], local_files_only=offline)
    model = MusicgenForConditionalGeneration.from_pretrained(settings["model"], local_files_only=offline)
    model = model.to(device).eval()
    codec = model.config.audio_encoder
    # Each codebook is one token behind the one before it: what has not all of them is cut off.
    tokens = round(settings["seconds"] * codec.frame_rate) + model.config.decoder.num_codebooks - 1

    def make(prompt: str, seed: int) -> tuple[np.ndarray, int]:
        torch.manual_seed(seed)
        inputs = processor(text=[prompt], padding=True, return_tensors="pt").to(device)
        guidance = settings["guidance"]
        waves = model.generate(**inputs, do_sample=True, guidance_scale=guidance, max_new_tokens=tokens)
        return waves[0].T.float().cpu().numpy(), codec.sampling_rate

    return make


def audioldm(settings: Mapping, device: str, offline: bool) -> Make:
    """Text to sound (Liu et al. 2023a)."""
    import torch
    from diffusers import AudioLDMPipeline

    pipeline = AudioLDMPipeline.from_pretrained(settings["model"], local_files_only=offline).to(device)
    pipeline.set_progress_bar_config(disable=True)

    def make(prompt: str, seed: int) -> tuple[np.ndarray, int]:
        waves = pipeline(
            prompt,
            audio_length_in_s=settings["seconds"],
            num_inference_steps=settings["steps"],
            guidance_scale=settings["guidance"],
            generator=torch.Generator().manual_seed(seed),  # of the CPU: the same noise on every device
        ).audios
        return waves[0][:, None], pipeline.vocoder.config.sampling_rate

    return make


def fastspeech2(settings: Mapping, device: str, offline: bool) -> Make:
    """Text to speech: FastSpeech 2 with Conformer blocks, of ESPnet (Guo et al. 2021). Nothing is random."""
    from transformers import FastSpeech2ConformerTokenizer, FastSpeech2ConformerWithHifiGan

    if find_spec("g2p_en") is None:
        raise ImportError("g2p-en")
    model = FastSpeech2ConformerWithHifiGan.from_pretrained(settings["model"], local_files_only=offline)
    model = model.to(device).eval()
    fetch_tagger()
    tokenizer = FastSpeech2ConformerTokenizer.from_pretrained(settings["tokenizer"], local_files_only=offline)

    def make(prompt: str, seed: int) -> tuple[np.ndarray, int]:
        inputs = tokenizer(prompt, return_tensors="pt").to(device)
        return model(inputs["input_ids"], return_dict=True)["waveform"].T.cpu().numpy(), settings["rate"]

    return make


def fetch_tagger() -> None:
    """What g2p_en needs of nltk under its present name; under the old one it fetches it itself."""
    import nltk

    try:
        nltk.data.find("taggers/averaged_perceptron_tagger_eng")
    except LookupError:
        nltk.download("averaged_perceptron_tagger_eng", quiet=True)


GENERATORS = {"musicgen": musicgen, "audioldm": audioldm, "fastspeech2": fastspeech2}


def audioset(settings: Mapping, device: str, offline: bool) -> Tagger:
    """The likeliest classes of AudioSet, by a spectrogram transformer (Gong et al. 2021)."""
    from transformers import AutoFeatureExtractor, AutoModelForAudioClassification, pipeline

    extractor = AutoFeatureExtractor.from_pretrained(settings["model"], local_files_only=offline)
    model = AutoModelForAudioClassification.from_pretrained(settings["model"], local_files_only=offline)
    classify = pipeline("audio-classification", model=model, feature_extractor=extractor, device=device)

    def tags(wave: np.ndarray, rate: int) -> list[str]:
        found = classify({"raw": wave.mean(1), "sampling_rate": rate}, top_k=settings["top"])
        return [tag["label"] for tag in found]

    return tags


def told(error: BaseException) -> str:
    """The first line that says something, with its kind."""
    line = next((line.strip() for line in str(error).splitlines() if line.strip(" *")), "")
    return f"{type(error).__name__}: {line}".rstrip(": ")


def loaded(load: Callable, settings: Mapping, device: str):
    """What `load` makes of a model of the hub, or of a folder. Raises UserError where it is not to be had.

    The hub is asked once: each of a model's files would try it again for half a minute.
    """
    import diffusers
    import transformers
    from huggingface_hub import model_info

    transformers.logging.set_verbosity_error()
    diffusers.utils.logging.set_verbosity_error()
    name, out_of_reach = settings["model"], None
    if not Path(name).is_dir():
        try:
            model_info(name, timeout=HUB_SECONDS)
        except Exception as error:  # of the network, the hub, or the name; which differs by its version
            out_of_reach = error
    try:
        return load(settings, device, out_of_reach is not None)
    except ImportError as error:
        raise UserError(f'{name} needs a package: pip install -e ".[generate]" ({told(error)}).') from None
    except Exception as error:  # of as many kinds
        raise UserError(
            f"{name} is not to be had: {told(out_of_reach or error)}. Or fetch it elsewhere, and name its "
            "folder in a copy of plug_and_play.yaml, by --material."
        ) from None


# Ready recordings -----------------------------------------------------------------------------------------


def ready(folder: Path) -> tuple[dict[str, list[str]], Make]:
    """Names of audio files by sub-folder, and what reads them in the place of a generator.

    Raises UserError where there are none.
    """
    from datamodules.corpora.selection import audio_below

    if not folder.is_dir():
        raise UserError(f"--from {folder}: no such folder.")
    found: dict[str, list[str]] = {}
    files = audio_below(folder)
    for line in files.left_out:
        print(f"generate.py: left out: {line}", file=sys.stderr)
    for path in files:
        name = path.relative_to(folder)
        if len(name.parts) > 1:
            found.setdefault(name.parts[0], []).append(name.as_posix())
    if not found:
        raise UserError(f"--from {folder}: audio in sub-folders is needed, each named as a generator.")

    def make(name: str, seed: int) -> tuple[np.ndarray, int]:
        return read_audio(folder / name)

    return found, make


# The work -------------------------------------------------------------------------------------------------


def load_material(path: Path) -> tuple[dict, dict]:
    """Settings and prompts of each generator, and those of the tagger. Raises UserError where it has none."""
    try:
        material = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"--material {path}: {str(error).splitlines()[0]}") from None
    if not isinstance(material, dict) or not {"generators", "tagger"} <= material.keys():
        raise UserError(f"--material {path}: `generators` and `tagger` are needed, as in {MATERIAL.name}.")
    if not isinstance(material["generators"], dict) or not isinstance(material["tagger"], dict):
        raise UserError(f"--material {path}: `generators` and `tagger` are sections, as in {MATERIAL.name}.")
    for name, settings in material["generators"].items():
        if name not in GENERATORS:
            raise UserError(f"--material {path}: unknown generator {name}" + nearest(name, GENERATORS))
        known = settings if isinstance(settings, dict) else {}
        lists = [known.get("prompts"), known.get("keep", [])]
        if not isinstance(known.get("model"), str) or not all(isinstance(one, list) for one in lists):
            raise UserError(
                f"--material {path}: {name} needs a model and lists of prompts, as in {MATERIAL.name}."
            )
    return material["generators"], material["tagger"]


def read_lines(path: Path, fields: tuple[str, ...]) -> dict[str, dict[str, str]]:
    """What is known of each file, by its name. Raises UserError where the list is not one of ours."""
    if not path.is_file():
        return {}
    with path.open(newline="", encoding="utf-8") as file:
        try:
            header, *rows = csv.reader(file)
        except (UnicodeDecodeError, ValueError, csv.Error):  # ValueError: not even a header
            header, rows = [], []
    if tuple(header) != fields or any(len(row) != len(fields) for row in rows):
        raise UserError(
            f"{path} is not ours, or was changed (columns {','.join(fields)}): choose another --output."
        )
    return {row[0]: dict(zip(fields, row, strict=True)) for row in rows}


def write_lines(path: Path, lines: Mapping[str, Mapping[str, str]], fields: tuple[str, ...]) -> None:
    rows = ([lines[file][field] for field in fields] for file in sorted(lines))
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as unfinished:
        unfinished.write_text(csv_text([fields, *rows]), encoding="utf-8", newline="")


class Folder:
    """The outputs that are there (`prompts.csv`), and those that are none for listeners (`left_out.csv`).

    strict: what was left out before is not made again.
    """

    def __init__(self, path: Path, strict: bool):
        self.path, self.strict = path, strict
        self.prompts = read_lines(path / "prompts.csv", Item._fields)
        self.left_out = read_lines(path / "left_out.csv", LEFT_OUT)

    def lacks(self, item: Item) -> bool:
        """Raises UserError where the file of this name follows from something else."""
        known = self.prompts.get(item.file) or self.left_out.get(item.file)
        for field in Item._fields if known else ():
            if known[field] != getattr(item, field):
                raise UserError(
                    f"{self.path / item.file} has the {field} {known[field]!r}, not "
                    f"{getattr(item, field)!r}: choose another --output."
                )
        there = item.file in self.prompts and (self.path / item.file).is_file()
        return not there and not (self.strict and item.file in self.left_out)

    def keep(self, item: Item, wave: np.ndarray, rate: int) -> None:
        import soundfile

        target = self.path / item.file
        target.parent.mkdir(parents=True, exist_ok=True)
        with replacing(target) as unfinished:
            soundfile.write(unfinished, wave, rate, "FLOAT", format="WAV")
        self.prompts[item.file] = item._asdict()
        write_lines(self.path / "prompts.csv", self.prompts, Item._fields)
        if self.left_out.pop(item.file, None):
            write_lines(self.path / "left_out.csv", self.left_out, LEFT_OUT)

    def leave_out(self, item: Item, why: str) -> None:
        self.left_out[item.file] = item._asdict() | {"why": why}
        write_lines(self.path / "left_out.csv", self.left_out, LEFT_OUT)


def unfit(wave: np.ndarray, rate: int, keep: list[str], tagger: Tagger | None) -> str:
    """Why an output is none for listeners; empty where it is one.

    keep: classes of which the tagger must hear one; where there are none, it is not asked.
    """
    if not wave.size:
        return "empty"
    if not np.isfinite(wave).all():
        return "NaN or infinity"
    tags = tagger(wave, rate) if keep else []
    return "heard: " + "; ".join(tags) if keep and not {*tags} & {*keep} else ""


def device_of(name: str) -> str:
    """Raises UserError where there is no such device."""
    import torch

    name = ("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"--device {name}: {told(error)}") from None
    return name


def items_of(prompts: Mapping[str, list[str]], models: Mapping[str, str], args) -> dict[str, list[Item]]:
    """What is to be made, by generator. Raises UserError where one is unknown."""
    items = {}
    for generator in args.generator or prompts:
        if generator not in prompts:
            raise UserError(f"unknown generator {generator}" + nearest(generator, prompts))
        items[generator] = [
            Item(f"{generator}/{number:03}.wav", prompt, models[generator], str(args.seed + number))
            for number, prompt in enumerate(prompts[generator][: args.count], 1)
        ]
    return items


def generate(args: argparse.Namespace, tagger: Tagger | None = None) -> None:
    """Makes every output that is not there yet. tagger: None for the material's own, once one is needed."""
    import torch

    from callbacks.progress import progress_bar

    settings, of_tagger = load_material(Path(args.material))
    if args.source:
        prompts, make = ready(Path(args.source).expanduser())
        models = dict.fromkeys(prompts, "ready")
    else:
        prompts = {name: settings[name]["prompts"] for name in settings}
        models = {name: settings[name]["model"] for name in settings}
    folder = Folder(Path(args.output), strict=args.tagger != "none")
    items = items_of(prompts, models, args)
    todo = {name: [item for item in of_one if folder.lacks(item)] for name, of_one in items.items()}
    device, made = device_of(args.device), 0
    with progress_bar() as bar, torch.inference_mode():
        for name in (name for name in todo if todo[name]):
            progress = bar.add_task(name, total=len(todo[name]), note="")
            keep = settings.get(name, {}).get("keep", []) if args.tagger != "none" else []
            if keep and tagger is None:
                tagger = loaded(audioset, of_tagger, device)
            if not args.source:
                make = loaded(GENERATORS[name], settings[name], device)
            for item in todo[name]:
                bar.update(progress, note=item.prompt)
                try:
                    wave, rate = make(item.prompt, int(item.seed))
                    why = unfit(wave, rate, keep, tagger)
                except UserError as error:
                    why = str(error)
                except Exception as error:  # a generator's own, of any kind
                    raise UserError(f"{item.file}: {told(error)}") from error
                if why:
                    folder.leave_out(item, why)
                    print(one_line(f"generate.py: left out: {item.file}: {why}"), file=sys.stderr)
                else:
                    folder.keep(item, wave, rate)
                    made += 1
                bar.advance(progress)
    wanted = [item.file for of_one in items.values() for item in of_one]
    there = sum(file in folder.prompts for file in wanted)
    rest = ", the others in left_out.csv" if there < len(wanted) else ""
    print(f"{made} recordings made; {there} of {len(wanted)} in {args.output}/{rest}")


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Outputs of generators, as FOLDER/<generator>/<number>.wav, with a list: prompts.csv."
    )
    parser.add_argument("--output", required=True, metavar="FOLDER", help="what is there already is kept")
    parser.add_argument("--generator", nargs="+", metavar="NAME", help=f"of {', '.join(GENERATORS)}")
    parser.add_argument("--count", type=int, help="so many of each (default: all prompts, 50, 50 and 20)")
    parser.add_argument(
        "--from", dest="source", metavar="FOLDER", help="take ready ones: a sub-folder for each generator"
    )
    parser.add_argument("--tagger", choices=("audioset", "none"), default="audioset", help="none: keep all")
    parser.add_argument(
        "--material", metavar="YAML", default=str(MATERIAL), help="other prompts, other models"
    )
    parser.add_argument("--seed", type=int, default=0, help="each output has its own, from this on")
    parser.add_argument("--device", default="auto", help="cpu, cuda, ... (default: %(default)s)")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    args = parse(argv)
    try:
        if args.count is not None and args.count < 1:
            raise UserError("--count needs a number from 1 on.")
        generate(args)
    except (UserError, OSError, RuntimeError) as error:  # also of memory
        line = str(error) if isinstance(error, UserError) else told(error)
        print(one_line(f"generate.py: {line}"), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("generate.py: interrupted; the same command goes on with what is missing.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
