"""Peak memory of enhance.py on an hour of stereo, beside that on a minute of it.

    python benchmarks/enhance.py [--method spline] [--rate 16000] [--minutes 60] [--folder FOLDER]

Each is enhanced to 48 kHz in a process of its own, by a method without weights. What is printed is the
process's largest resident memory, with Python, PyTorch and its libraries in it, and their ratio. An hour
takes 1.6 GB of disk below `--folder` while it lasts (default: where temporary files go).
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import soundfile

HOUSE = Path(__file__).parents[1]
PROGRAM = """
import resource, sys
from experiments.enhance import main
code = main(sys.argv[1:])
print("kibibytes", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
sys.exit(code)
"""


def record(path: Path, rate: int, minutes: int) -> None:
    """Stereo noise in 16 bits, written second by second: a process begins with its parent's peak."""
    rng = np.random.default_rng(0)
    with soundfile.SoundFile(path, "w", rate, 2, "PCM_16") as file:
        for _ in range(60 * minutes):
            file.write(0.1 * rng.standard_normal((rate, 2)))


def peak(path: Path, output: Path, method: str) -> float:
    """MiB of the largest resident memory in which the file was enhanced."""
    arguments = [str(path), "--method", method, "--output", str(output), "--device", "cpu"]
    program = [sys.executable, "-c", PROGRAM, *arguments]
    done = subprocess.run(program, cwd=HOUSE, stdout=subprocess.PIPE, text=True, check=True)
    return int(done.stdout.split()[-1]) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--method", default="spline", help="one without weights")
    parser.add_argument("--rate", type=int, default=16_000, help="Hz, of the recordings")
    parser.add_argument("--minutes", type=int, default=60, help="of the long recording")
    parser.add_argument("--folder", help="for the recordings and results")
    options = parser.parse_args()
    peaks = []
    for minutes in (1, options.minutes):
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            path = Path(folder) / "recording.wav"
            record(path, options.rate, minutes)
            peaks.append(peak(path, Path(folder) / "enhanced", options.method))
        print(
            f"{options.method}, {minutes} min of stereo at {options.rate} Hz: {peaks[-1]:.0f} MiB", flush=True
        )
    print(f"ratio {peaks[1] / peaks[0]:.2f}")


if __name__ == "__main__":
    main()
