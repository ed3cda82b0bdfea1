"""Seconds of each part of a full-size AudioSR, and the memory of all, for a recording of 10.24 s.

    python benchmarks/audiosr.py [--threads 2] [--steps 50] [--precision 32|bf16]

The weights are drawn, which does not matter to the time. Beside ours stands what was measured of the released
modules on two CPU cores (AMD EPYC, AVX2; float32, quiet): encode 12.2 s, a step of guided diffusion 2 x 2.06,
decode 25.2, vocoder about 50, and 6.2 GB of weights. Other machines give other seconds, so a ratio means
something on such a machine alone. Of the steps a few are timed, and counted as often as `--steps` says.
"""

import argparse
import resource
import time
from collections.abc import Callable

import torch
from rich.console import Console
from rich.table import Table

from experiments.configuration import configure
from experiments.runs import build_stage
from lightning_modules.audiosr.latent_diffusion import guided

RELEASED = {"encode": 12.2, "step": 2 * 2.06, "decode": 25.2, "vocoder": 50.0}  # s
SAMPLES = 491_520  # 10.24 s
TIMED = 3  # steps


def timed(call: Callable[[], torch.Tensor], times: int = 1) -> tuple[float, torch.Tensor]:
    """Seconds of one call, and what came out of the last."""
    started = time.perf_counter()
    for _ in range(times):
        made = call()
    return (time.perf_counter() - started) / times, made


def gigabytes() -> float:
    """The most memory that this process has held so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--precision", choices=("32", "bf16"), default="32")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    config = configure("audiosr", "full")
    runs, rate = config["runs"], config["data"]["rate"]
    vae = build_stage(runs["vae"], 0, rate, {}).eval()
    ldm = build_stage(runs["ldm"], 0, rate, {"vae": vae}).eval()
    ldm.averaged = ldm.unet  # one network in use
    vocoder = build_stage(runs["vocoder"], 0, rate, {}).eval()
    vae.critic = vocoder.critic = None
    built = gigabytes()
    with torch.autocast("cpu", torch.bfloat16, enabled=args.precision == "bf16"):
        wave = 0.1 * torch.randn(1, 1, SAMPLES)
        found = {}
        found["encode"], (mean, log_variance) = timed(lambda: vae.posterior(vae.image(wave)))
        condition = ldm.condition(mean, log_variance, None)
        both, t = torch.cat([condition, torch.zeros_like(condition)]), torch.full((2,), 500)
        z = torch.randn_like(condition)

        def step() -> torch.Tensor:
            v = ldm.velocity(torch.cat([z, z]), t, both)
            return guided(*v.chunk(2), 3.5, 0.7)

        step()
        found["step"], _ = timed(step, TIMED)
        found["decode"], log_mel = timed(lambda: vae.decode(z))
        found["vocoder"], _ = timed(lambda: vocoder(log_mel[:, 0].mT))
    table = Table("part", "ours, s", "released, s", "ratio")
    total, released = 0.0, 0.0
    for part, seconds in found.items():
        count = args.steps if part == "step" else 1
        total, released = total + count * seconds, released + count * RELEASED[part]
        name = f"{count} guided steps" if part == "step" else part
        table.add_row(
            name, f"{count * seconds:.1f}", f"{count * RELEASED[part]:.1f}", f"{RELEASED[part] / seconds:.2f}"
        )
    table.add_row("all", f"{total:.1f}", f"{released:.1f}", f"{released / total:.2f}")
    console = Console()
    console.print(table)
    console.print(
        f"real-time factor {total / 10.24:.1f}, released {released / 10.24:.1f}; {args.threads} threads, "
        f"precision {args.precision}; memory {gigabytes():.2f} GiB at most ({built:.2f} GiB once built)"
    )


if __name__ == "__main__":
    main()
