"""Steps per second of one run on several devices, and of several runs at once on one device.

    python benchmarks/scaling.py --devices 1,2 --runs 1,2 paper=tfnet row=TFNet dataset=vctk scale=4

Every line is `experiments/run.py` with these arguments in a folder of its own, and what its records say; the
ratio is to the first line. On a CPU a process has one thread (`trainer.threads=1`): two have two cores.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

RUN = Path(__file__).parents[1] / "experiments" / "run.py"


def steps_per_second(commands: list[list[str]], outputs: list[Path]) -> float:
    """Of all runs that these commands train at the same time, together."""
    started = [subprocess.Popen(command, stdout=subprocess.DEVNULL) for command in commands]
    codes = [process.wait() for process in started]
    if any(codes):
        raise SystemExit("a command failed, see above")
    records = [json.loads(path.read_text()) for output in outputs for path in output.glob("*/*/record.json")]
    trained = [record for record in records if record["kind"] == "run" and record["steps_per_second"]]
    if len(trained) < len(commands):
        raise SystemExit("nothing was trained: name a row with a run")
    total = sum(run["seconds"] * run["steps_per_second"] for run in trained)
    return total / (sum(run["seconds"] for run in trained) / len(commands))


def measured(arguments: list[str], devices: int, runs: int) -> float:
    with tempfile.TemporaryDirectory() as folder:
        outputs = [Path(folder) / str(seed) for seed in range(runs)]
        fixed = [f"trainer.devices={devices}", "trainer.threads=1", "pictures=0"]
        commands = [
            [sys.executable, str(RUN), *arguments, *fixed, f"seed={seed}", f"output={output}"]
            for seed, output in enumerate(outputs)
        ]
        return steps_per_second(commands, outputs)


def numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--devices", type=numbers, default=[1, 2], help="of one run (default: 1,2)")
    parser.add_argument("--runs", type=numbers, default=[], help="at once on one device, each with a seed")
    parser.add_argument("arguments", nargs="+", metavar="key=value", help="of run.py")
    args = parser.parse_intermixed_args()
    os.environ |= {"OMP_NUM_THREADS": "1", "WANDB_MODE": "disabled"}
    first = None
    for devices, runs in [*((n, 1) for n in args.devices), *((1, n) for n in args.runs)]:
        speed = measured(args.arguments, devices, runs)
        first = first or speed
        print(f"devices {devices}, runs {runs}: {speed:8.3f} steps/s, {speed / first:.2f}", flush=True)


if __name__ == "__main__":
    main()
