"""AudioSR as released (the PyPI package `audiosr`) and ours, side by side: outputs, seconds, memory.

    pip install --no-deps audiosr==0.0.7
    pip install einops ftfy phonemizer progressbar timm torchlibrosa "torchvision==0.26.*" unidecode
    python benchmarks/audiosr_reference.py [--seconds 10.24] [--steps 50] [--threads 2] [--folder FOLDER]

Both read one file of the released names and full-size shapes, with drawn weights (2.7 GB below `--folder`
while it lasts; default: where temporary files go): theirs by `audiosr.build_model`, ours as `enhance.py
--checkpoint` does. Both hear noise below 8 kHz, through the Chebyshev filter of the four that are drawn from.

First each makes a whole run of a few steps in a process of its own, from the waveform to the waveform, for
its memory (resident, so with what is mapped of the file). Then, part by part in one process, both get the
same input and the same noise: a call each, whose outputs are compared, then theirs, ours, theirs, ours
against the clock, of which the better counts. The sum is of the parts as often as a run of `--steps` has
them. On the CPU of a Linux machine; at 5.12 s it takes 7 minutes on two cores, and 12 GiB.

What is not as released, so that it runs today and on equal terms: no CLAP, no file of audio (and so no
padding to 5.12 s), our noise for `torch.randn`. Theirs is counted with its second encoding, never used.
What differs by more than rounding: the pre-filter, since what folds where theirs resamples between its two
passes is left out of ours; and the mel bands that are kept, whose edge theirs estimates anew.
"""

import argparse
import io
import os
import resource
import sys
import tempfile
import time
import warnings
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import replace
from functools import partial
from math import prod
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple
from unittest import mock

if __name__ == "__main__":
    sys.path.pop(0)  # `audiosr` is their package, not the script of that name beside this one
os.environ["HF_HUB_OFFLINE"] = "1"  # importing theirs asks the hub for a tokenizer, for minutes without one

import numpy as np
import torch
from torch import Tensor

from experiments.enhance import load_released
from lightning_modules.audiosr.frontend import normalise
from lightning_modules.audiosr.latent_diffusion import BLOCK, ddim, guided
from lightning_modules.audiosr.method import CONTEXT
from lightning_modules.audiosr.released import AGAIN, NETWORKS, VAE, released_shapes
from lightning_modules.stage import endless_noise
from signals.types import Recording, Signal

warnings.filterwarnings("ignore", category=FutureWarning)  # theirs calls much by its old name
INSTALL = (
    "pip install --no-deps audiosr==0.0.7 && "
    'pip install einops ftfy phonemizer progressbar timm torchlibrosa "torchvision==0.26.*" unidecode'
)
RATE, HOP = 48_000, 480  # Hz, samples a frame
SCALE, GUIDANCE = 0.36, 3.5
CHAIN = 4  # steps of the runs that are made, a divisor of 1000
SEEDS = torch.zeros(1, dtype=torch.long)  # of all that is random in ours


# The same for both ----------------------------------------------------------------------------------------


def drawn(name: str, shape: tuple[int, ...]) -> Tensor:
    """The weight of a released name: the scale of gains, of biases, or what keeps the variance."""
    generator = np.random.RandomState(zlib.crc32(f"wideband-{name}".encode()))
    w = torch.from_numpy(generator.standard_normal(shape).astype(np.float32))
    if len(shape) == 1:
        return 0.05 * w + float(name.endswith("weight"))
    return w / prod(shape[1:]) ** 0.5


def write_weights(path: str) -> None:
    """Everything of a released file but CLAP, the moving average and the schedule, which neither uses."""
    names = {f"{prefix}{name}": s for prefix in NETWORKS for name, s in released_shapes(prefix).items()}
    state = {name: drawn(name, shape) for name, shape in names.items()}
    state |= {name.replace(VAE, AGAIN, 1): state[name] for name in names if name.startswith(VAE)}
    torch.save({"state_dict": state | {"scale_factor": torch.tensor(SCALE)}}, path)


def noise_below_8khz(samples: int) -> Tensor:
    """[T]"""
    spectrum = torch.fft.rfft(torch.randn(samples, generator=torch.Generator().manual_seed(0)))
    spectrum[round(len(spectrum) * 8000 / (RATE / 2)) :] = 0
    return 0.1 * torch.fft.irfft(spectrum, samples)


def our_noise(samples: int, salt: int) -> Tensor:
    """[1, 16, N/8, 32] as ours draws it. salt: 1 for the posterior, 2 for z_T, 3, 4, ... for the steps."""
    return endless_noise((16, samples // HOP // 8, 32), SEEDS, torch.zeros_like(SEEDS), BLOCK, salt)


@contextmanager
def given(*noises: Tensor) -> Iterator[None]:
    """Within, the released code draws these, in this order, and prints nothing."""
    drawing = mock.patch("torch.randn", side_effect=noises)
    with drawing, redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        yield


# Theirs and ours ------------------------------------------------------------------------------------------


def build_theirs(file: str):
    """`audiosr.build_model`, with our file in the place of the hub's."""
    from audiosr import pipeline
    from audiosr.latent_diffusion.models import ddpm

    pipeline.download_checkpoint = lambda _: file
    # CLAP is built from a configuration on the hub; super-resolution never calls it.
    ddpm.CLAPAudioEmbeddingClassifierFreev2 = lambda **_: torch.nn.Identity()
    with redirect_stdout(io.StringIO()):
        return pipeline.build_model(device="cpu")


def their_batch(wave: Tensor) -> dict:
    """What they make of a recording [T]: waveform, low-passed waveform, their mels."""
    from audiosr import pipeline, utils

    frames = len(wave) // HOP
    # From memory: torchaudio.load needs TorchCodec now. Without padding to 5.12 s: short trials stay short.
    utils.read_wav_file = lambda _: (utils.normalize_wav(wave.numpy())[None], frames, frames / 100)
    np.random.seed(1)  # draws the Chebyshev filter
    return pipeline.make_batch_for_super_resolution("")[0]


def build_ours(file: str, samples: int):
    """As `enhance.py --paper audiosr --checkpoint` does, in the variant of the released code."""
    window = f"window={samples // HOP}"
    changes = ("variant=code", "prefilters=[chebyshev]", f"steps={CHAIN}", window, "overlap=0")
    method = load_released("audiosr", file, None, [f"method.{change}" for change in changes])
    return method.in_use().eval()


class Run(NamedTuple):
    wave: np.ndarray  # [T]
    seconds: float
    loading: float  # GiB at most, until the networks are there
    running: float  # GiB at most, from then on


def gigabytes() -> float:
    """The most memory that this process has held since it was last asked (Linux), mapped files included."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    Path("/proc/self/clear_refs").write_text("5")
    return peak / 2**20


@torch.no_grad()
def whole_run(side: str, file: str, samples: int, threads: int) -> Run:
    """From the waveform to the waveform in CHAIN steps, as a user calls it."""
    torch.set_num_threads(threads)
    wave = noise_below_8khz(samples)
    if side == "theirs":
        model = build_theirs(file)
        loading, started = gigabytes(), time.perf_counter()
        # The first draw is for the latent of the input itself, which is never used.
        with given(*(our_noise(samples, max(salt, 1)) for salt in range(3 + CHAIN))):
            made = model.generate_batch(
                their_batch(wave), ddim_steps=CHAIN, unconditional_guidance_scale=GUIDANCE
            )
    else:
        method = build_ours(file, samples)
        loading, started = gigabytes(), time.perf_counter()
        made = method(Signal.of(wave[None, None], RATE), seeds=SEEDS).wave.numpy()
    seconds = time.perf_counter() - started
    return Run(made[0, 0], seconds, loading, gigabytes())


def apart(function: Callable, *args):
    """What a call returns, made in a process of its own."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(function, *args).result()


# Part by part ---------------------------------------------------------------------------------------------


def seconds_of(call: Callable[[], Tensor]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


class Table:
    """Printed row by row. Theirs first in every pair."""

    def __init__(self):
        self.sums = np.zeros(2)
        print(
            f"{'part':20}{'theirs, s':>11}{'ours, s':>11}{'ratio':>8}{'largest difference':>20}{'of rms':>10}"
        )

    def part(
        self,
        name: str,
        theirs: Callable[[], Tensor],
        ours: Callable[[], Tensor],
        counts: tuple[int, int] = (1, 1),
    ) -> Tensor:
        """What theirs gives. counts: how often a run has it; what it never has is compared, but not timed."""
        expected = theirs()
        a, b = (out.double().squeeze() for out in (expected, ours()))
        if a.shape != b.shape:
            raise SystemExit(f"{name}: theirs has the shape {tuple(a.shape)}, ours {tuple(b.shape)}")
        times = ""
        if any(counts):
            rounds = [(seconds_of(theirs), seconds_of(ours)) for _ in range(2)]
            times = self.times(np.min(rounds, axis=0))
            self.sums += np.min(rounds, axis=0) * counts
        print(f"{name:20}{times:30}{(a - b).abs().max():20.1e}{a.square().mean().sqrt():10.2g}", flush=True)
        return expected

    def total(self, name: str) -> None:
        print(f"{name:20}{self.times(self.sums)}")

    @staticmethod
    def times(seconds: np.ndarray) -> str:
        return f"{seconds[0]:11.3f}{seconds[1]:11.3f}{seconds[0] / seconds[1]:8.2f}"


@torch.no_grad()
def compare(theirs, ours, wave: Tensor, steps: int) -> None:
    """Each part from what theirs made of the one before; wave: [T]."""
    from audiosr import utils
    from audiosr.latent_diffusion.models.ddim import DDIMSampler

    table, samples = Table(), len(wave)
    vae, ldm, noise = ours.vae, ours.ldm, partial(our_noise, samples)

    batch, signal = their_batch(wave), Signal.of(wave[None, None], RATE)
    normal, filtered, mel = batch["waveform"], batch["waveform_lowpass"], batch["lowpass_mel"][:, None]
    table.part(
        "level", lambda: torch.from_numpy(utils.normalize_wav(wave.numpy())), lambda: normalise(signal)[0]
    )
    edge = table.part(
        "band edge, Hz",
        lambda: torch.tensor([utils._locate_cutoff_freq(batch["stft"][0], 0.985) / 1024 * RATE / 2]),
        lambda: ours.band_edge(Recording.of(normal, RATE), RATE / 2),
    )

    inside = slice(CONTEXT, samples - CONTEXT)  # at the ends SciPy mirrors, ours is silent

    def their_filter() -> Tensor:
        wave = utils.lowpass(normal[0, 0].numpy(), edge.item(), RATE, 8, "cheby1")
        return torch.from_numpy(wave[inside].copy())

    def our_filter() -> Tensor:
        return ours.prefilter(normal, edge.floor(), SEEDS)[..., inside]

    table.part("pre-filter", their_filter, our_filter)
    settings = replace(ours.settings, prefilter_resamples=False)
    with (
        mock.patch("audiosr.lowpass.stft_hard_lowpass", lambda wave, *_, **__: wave),
        mock.patch.object(ours, "settings", settings),
    ):
        table.part("- not resampled", their_filter, our_filter, counts=(0, 0))
    frames = samples // HOP
    table.part(
        "log-mel",
        lambda: utils.wav_feature_extraction(filtered[0], frames)[0],
        lambda: vae.image(filtered),
        counts=(2, 1),  # of the input, too, for the band edge; ours takes the spectrogram only
    )

    def their_posterior() -> Tensor:
        posterior = theirs.first_stage_model.encode(mel)
        return torch.cat([posterior.mean, posterior.logvar], dim=1)

    posterior = table.part(
        "encode",
        their_posterior,
        lambda: torch.cat(vae.posterior(mel), dim=1),
        counts=(2, 1),  # of the input, too, which is never used
    )
    mean, log_variance = posterior.chunk(2, dim=1)
    latent, z, key = mean + (0.5 * log_variance).exp() * noise(1), noise(2), "concat_lowpass_cond"
    condition, null = {key: latent}, {key: torch.full_like(latent, -11.4981)}
    scaled = ldm.scale * latent
    both = torch.cat([scaled, ldm.null.expand_as(scaled)])
    for t in (981, 21):
        at = torch.tensor([t])
        table.part(
            f"denoiser, t = {t}",
            partial(theirs.apply_model, z, at, condition),
            partial(ldm.velocity, z, at, scaled),
            counts=(0, 0),
        )

    sampler, scheduler = DDIMSampler(theirs, device="cpu"), ddim(ours.settings)
    sampler.make_schedule(CHAIN, ddim_eta=1.0, verbose=False)
    scheduler.set_timesteps(CHAIN)
    t = scheduler.timesteps[0]
    guidance = {"unconditional_guidance_scale": GUIDANCE, "unconditional_conditioning": null}

    def their_step() -> Tensor:
        with given(noise(3)):
            return sampler.p_sample_ddim(z, condition, t[None], CHAIN - 1, **guidance)[0]

    def our_step() -> Tensor:
        v = guided(*ldm.velocity(torch.cat([z, z]), t.expand(2), both).chunk(2), GUIDANCE, 0.0)
        return scheduler.step(v, t, z, eta=1.0, variance_noise=noise(3)).prev_sample

    table.part("guided step", their_step, our_step, counts=(steps, steps))

    def their_steps() -> Tensor:
        with given(*(noise(3 + number) for number in range(CHAIN))):
            shape = z.shape[1:]
            return sampler.sample(CHAIN, 1, shape, condition, eta=1.0, verbose=False, x_T=z, **guidance)[0]

    made = table.part(
        f"all of {CHAIN} steps",
        their_steps,
        lambda: ldm.sample(mean, log_variance, SEEDS, ours.settings) * ldm.scale,
        counts=(0, 0),
    )
    decoded = table.part(
        "decode", lambda: theirs.decode_first_stage(made), lambda: vae.decode(made / ldm.scale)
    )

    table.part(
        "low mel bands",
        lambda: torch.tensor(float(theirs._locate_cutoff_freq(mel[0, 0].exp()))),
        lambda: (ours.mel_centres() < edge).sum(),
    )
    log_mel = theirs.mel_replace_ops(decoded.clone(), mel[:, 0])
    made = table.part(
        "vocoder",
        lambda: torch.from_numpy(theirs.mel_spectrogram_to_waveform(log_mel, save=False))[..., :samples],
        lambda: ours.vocoder(log_mel[:, 0].mT),
    )
    their_edge = torch.tensor([theirs._get_cutoff_index_np(filtered[0, 0].numpy()) * RATE / 2048])
    table.part(
        "low band",
        lambda: torch.from_numpy(theirs.postprocessing(made.numpy().copy(), filtered)),
        lambda: ours.replace_low_band(made, filtered, their_edge),
    )
    table.total(f"a run of {steps} steps")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=10.24, help="of the recording, in multiples of 0.64")
    parser.add_argument("--steps", type=int, default=50, help="of the sampler, in the sum")
    parser.add_argument("--threads", type=int, default=2, help="of PyTorch")
    parser.add_argument("--folder", help="for the drawn weights")
    options = parser.parse_args()
    try:
        import audiosr.pipeline  # noqa: F401
    except ImportError as error:
        print(f"The released code cannot be imported ({error}): {INSTALL}", file=sys.stderr)
        raise SystemExit(2) from None
    samples = max(1, round(options.seconds / 0.64)) * 64 * HOP
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        file = str(Path(folder) / "pytorch_model.bin")
        # In processes of their own, and before this one grows: a process begins with its parent's peak.
        apart(write_weights, file)
        runs = [apart(whole_run, side, file, samples, options.threads) for side in ("theirs", "ours")]
        for side, run in zip(("theirs", "ours"), runs, strict=True):
            print(
                f"{side}: {run.running:.2f} GiB at most, {run.loading:.2f} GiB while loading; "
                f"{CHAIN} steps of {samples / RATE:g} s took {run.seconds:.1f} s",
                flush=True,
            )
        theirs, ours = runs[0].wave[:samples], runs[1].wave
        ratio = 20 * np.log10(np.std(theirs) / np.std(theirs - ours))
        print(
            f"whole runs, each with its own pre-filter: the difference is {ratio:.1f} dB below theirs",
            flush=True,
        )
        torch.set_num_threads(options.threads)
        compare(build_theirs(file), build_ours(file, samples), noise_below_8khz(samples), options.steps)


if __name__ == "__main__":
    main()
