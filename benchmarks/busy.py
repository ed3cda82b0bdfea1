"""Training beside other processes: how PyTorch's threads wait for each other, and how many they are.

    python benchmarks/busy.py [--seconds 6] [--repeat 2] [--busy 0,1] [--policy ...] [--network PAPER/RUN ...]

Each line is a policy: `as it is` is what PyTorch does where nothing is set, `this suite` what the commands
do. Each column is a network of preset `demo`, trained forward, backward and by Adam on one batch, beside so
many processes that keep a core busy each. A number is the best of the repeats in steps per second, with its
ratio to the first policy.
"""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
POLICIES = {  # what a user may set; libgomp spins 300,000 times where nothing is set
    "as it is": {"OMP_NUM_THREADS": str(CORES), "GOMP_SPINCOUNT": "300000"},
    "passive": {"OMP_NUM_THREADS": str(CORES), "GOMP_SPINCOUNT": "0"},
    **{f"spin {n}": {"OMP_NUM_THREADS": str(CORES), "GOMP_SPINCOUNT": str(n)} for n in (1000, 3000, 10_000)},
    "one thread": {"OMP_NUM_THREADS": "1"},
    "this suite": {},
}
NETWORKS = ["audioedsr/edsr_x4", "fma_unet/unet", "audiosr/vae", "audiosr/ldm", "audiosr/vocoder"]


def steps_per_second(network: str, seconds: float) -> float:
    """Trains one network in this process."""
    from experiments.configuration import configure  # before torch: its package says how threads wait
    import torch  # isort: skip

    from experiments.runs import count_parameters
    from experiments.threads import choose_threads

    paper, name = network.split("/")
    config = configure(paper, "demo")
    run = config["runs"][name]
    choose_threads(config)
    stage = count_parameters(config, name)[1].to_empty(device="cpu")
    for tensor in (*stage.parameters(), *stage.buffers()):
        if tensor.is_floating_point():
            torch.nn.init.normal_(tensor, std=0.02)
    example = stage.example(run["training"]["batch"], run["data"]["window"])
    optimizer = torch.optim.Adam(stage.network.parameters())

    def step() -> None:
        out = stage.network(*example)
        out = out[0] if isinstance(out, tuple) else getattr(out, "sample", out)
        optimizer.zero_grad()
        out.square().mean().backward()
        optimizer.step()

    step()
    started, steps = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        step()
        steps += 1
    return steps / (time.perf_counter() - started)


@contextmanager
def busy(processes: int) -> Iterator[None]:
    """So many processes that keep a core busy each."""
    load = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(processes)]
    try:
        yield
    finally:
        for process in load:
            process.kill()
            process.wait()


def measured(network: str, policy: dict[str, str], seconds: float) -> float:
    """Steps per second of one network, in a process of its own."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "GOMP_", "KMP_"))}
    command = [sys.executable, __file__, "--measure", network, "--seconds", str(seconds)]
    done = subprocess.run(command, env=clean | policy, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    return float(done.stdout.split()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=6, help="of each measure (default: %(default)s)")
    parser.add_argument("--repeat", type=int, default=2)
    parser.add_argument("--busy", default="0,1", help="so many busy processes (default: %(default)s)")
    parser.add_argument("--policy", action="append", choices=POLICIES)
    parser.add_argument("--network", action="append", metavar="PAPER/RUN")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        print(steps_per_second(args.measure, args.seconds))
        return
    networks, policies = args.network or NETWORKS, args.policy or list(POLICIES)
    print(f"{CORES} cores, load before: {os.getloadavg()[0]:.2f}")
    for beside in map(int, args.busy.split(",")):
        found = {}
        with busy(beside):
            for network in networks:
                for _ in range(args.repeat):  # in turn: what else the machine does meets all alike
                    for name in policies:
                        value = measured(network, POLICIES[name], args.seconds)
                        found[name, network] = max(value, found.get((name, network), 0))
        print(f"\nbeside {beside} busy processes: " + ", ".join(networks) + "; geometric mean", flush=True)
        for name in policies:
            ratios = [found[name, network] / found[policies[0], network] for network in networks]
            cells = [f"{found[name, n]:7.2f} ({r:4.2f})" for n, r in zip(networks, ratios, strict=True)]
            mean = prod(ratios) ** (1 / len(ratios))
            print(f"{name:>12}: " + "  ".join(cells) + f"  {mean:4.2f}", flush=True)


if __name__ == "__main__":
    main()
