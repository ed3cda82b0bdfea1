"""A mixture enhanced as it is, beside its stems enhanced one by one and added: time, error of mixing, scores.

    python benchmarks/separation.py [--root FOLDER] [--run FOLDER] [--separator demucs] [--seconds 6]

Of every test track of MUSDB18-HQ (`--root`; the demo corpus without it), the middle `--seconds`, in mono, as
Cukaj and Corsi degrade it (`fma_biquad`): the mixture through the enhancer; the true stems, each degraded by
itself, through it (what a perfect separator would give); and what `--separator` makes of the mixture. The
enhancer is the run in the folder `--run`, or a waveform U-Net with random weights, which takes as long, but
whose scores mean nothing.

sum: SNR in dB of the stems' sum against the mixture, before and after enhancement. Scores are against the
full-band mixture. All are means over tracks.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile
import torch
from torch import Tensor

from datamodules.degradations import FmaBiquad
from datamodules.library import Library
from experiments.runs import restored
from lightning_modules.fma_unet import FmaUNet
from lightning_modules.separation import SEPARATORS, SeparateThenEnhance
from lightning_modules.super_resolver import SuperResolver
from signals.metrics import METRICS
from signals.types import Recording, Signal

RATE = 44_100
STEMS = ("vocals", "drums", "bass", "other")
SCORES = ("si_sdr", "lsd_nuwave")


class Way(NamedTuple):
    """Of one track. Sums in dB, nan where nothing is added; scores as SCORES names them."""

    seconds: float
    sum_before: float
    sum_after: float
    scores: tuple[float, ...]


def timed(call: Callable[[], Tensor]) -> tuple[float, Tensor]:
    started = time.perf_counter()
    out = call()
    if out.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - started, out


def score(metric: str, estimate: Tensor, reference: Tensor) -> float:
    """Of one item [1, 1, T] at RATE."""
    return METRICS[metric](Signal.of(estimate, RATE), Signal.of(reference, RATE), None)[""].item()


def middle(path: Path, seconds: float) -> Tensor:
    """[1, 1, T] in mono."""
    with soundfile.SoundFile(path) as file:
        if file.samplerate != RATE:
            raise SystemExit(f"{path} is at {file.samplerate} Hz, not at {RATE} Hz")
        count = min(round(seconds * RATE), file.frames)
        file.seek((file.frames - count) // 2)
        return torch.from_numpy(file.read(count, dtype="float32", always_2d=True).mean(1))[None, None]


def enhancer(run: str | None) -> SuperResolver:
    if run:
        stage = restored(Path(run))
        if not isinstance(stage, SuperResolver) or stage.rate != RATE:
            raise SystemExit(f"{run} is no super-resolver at {RATE} Hz")
        return stage
    torch.manual_seed(0)
    return FmaUNet({"stft": 1.0}, {}, RATE).eval().requires_grad_(False)


def ways(track: Path, model: SeparateThenEnhance, seconds: float, device: str) -> dict[str, Way]:
    """Of one track: the input as it is, and the three ways to enhance it."""
    high, *true = (middle(track / f"{name}.wav", seconds).to(device) for name in ("mixture", *STEMS))
    degrade, seeds = FmaBiquad(), torch.zeros(1, dtype=torch.long)
    low, *lows = (degrade(Signal.of(wave, RATE), seeds)[0] for wave in (high, *true))
    separated = sum(stem.read(0, stem.samples) for stem in model.separator(Recording.of(low.wave, low.rate)))
    mixed = timed(lambda: model.enhancer(low).wave)
    stems = timed(lambda: sum(model.enhancer(stem).wave for stem in lows))
    found = timed(lambda: model(low).wave)

    def way(made: tuple[float, Tensor], sum_before: Tensor | None = None) -> Way:
        took, estimate = made
        sums = (float("nan"), float("nan"))
        if sum_before is not None:
            sums = score("snr", sum_before, low.wave), score("snr", estimate, mixed[1])
        return Way(took, *sums, tuple(score(name, estimate, high) for name in SCORES))

    return {
        "input": way((0.0, low.wave)),
        "mixture": way(mixed),
        "true stems": way(stems, sum(stem.wave for stem in lows)),
        "separated": way(found, separated),
    }


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", help="folder with musdb18hq/ (default: the demo corpus)")
    parser.add_argument("--folder", default="data", help="where the demo corpus is made")
    parser.add_argument("--run", help="folder of a finished run (default: random weights)")
    parser.add_argument("--separator", choices=SEPARATORS, default="harmonic_percussive")
    parser.add_argument("--seconds", type=float, default=6, help="of every track")
    parser.add_argument("--tracks", type=int, help="at most")
    parser.add_argument("--threads", type=int, help="of PyTorch")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    library = Library(options.root, options.folder)
    library.make_demo()
    tracks = sorted(path.parent for path in library.root.glob("musdb18hq/test/*/mixture.wav"))
    tracks = tracks[: options.tracks]
    if not tracks:
        raise SystemExit(f"no musdb18hq/test/<track>/mixture.wav below {library.root}")
    model = SeparateThenEnhance(RATE, enhancer(options.run), options.separator).eval().to(options.device)
    weights = options.run or "random weights, so the scores mean nothing"
    print(f"{type(model.enhancer).__name__}, {weights}; {options.separator}; {options.device}")
    ways(tracks[0], model, 1, options.device)  # what is made once
    found = [ways(track, model, options.seconds, options.device) for track in tracks]
    columns = ("seconds", "sum before", "sum after", *SCORES)
    print(f"{'':12}" + "".join(f"{name:>12}" for name in columns))
    means = {}
    for name in found[0]:
        rows = np.array([(*track[name][:3], *track[name].scores) for track in found])
        means[name] = rows.mean(0)
        print(f"{name:12}" + "".join(f"{'' if mean != mean else f'{mean:.2f}':>12}" for mean in means[name]))
    once, perfect, separated = (means[name][0] for name in ("mixture", "true stems", "separated"))
    print(
        f"{len(tracks)} tracks of {options.seconds:g} s: the true stems take {perfect / once:.1f} times as "
        f"long as the mixture, separate then enhance {separated / once:.1f} times"
    )


if __name__ == "__main__":
    main()
