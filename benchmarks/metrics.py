"""LSD (ssr_eval) and SNR of 200 recordings: as the suite scores them, beside a loop over files with librosa.

    python benchmarks/metrics.py [--files 200] [--rate 48000] [--repeats 3]

Ours: batches of four by length, as the suite tests, PyTorch's threads as they are. The loop: one file at
a time, librosa and NumPy, in this process. Both get the same float32 arrays; the best time of each counts.
"""

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

import librosa
import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence

sys.path.insert(0, str(Path(__file__).parents[1]))

from signals.metrics import METRICS
from signals.types import Signal

Recordings = list[tuple[np.ndarray, np.ndarray]]  # estimate and reference, [T] each


def recordings(files: int, rate: int, seed: int = 0) -> Recordings:
    """Noise of 2 to 8 s whose level falls with frequency and swells four times a second, as speech does.

    Of every four, one begins with half a second of digital silence, in the estimate or in both in turn.
    """
    rng = np.random.default_rng(seed)
    made = []
    for k in range(files):
        samples = int(rng.uniform(2, 8) * rate)
        fall = 1 / (1 + np.fft.rfftfreq(samples, 1 / rate) / 500)
        swell = np.sin(np.arange(samples) * 4 * np.pi / rate) ** 2
        wave, error = (np.fft.irfft(np.fft.rfft(rng.standard_normal(samples)) * fall, samples) for _ in "ab")
        reference, estimate = wave * swell, (wave + 0.3 * error) * swell
        if k % 4 == 0:
            estimate[: rate // 2] = 0
            reference[: rate // 2] *= k % 8 > 0
        made.append((estimate.astype(np.float32), reference.astype(np.float32)))
    return made


def ours(pairs: Recordings, rate: int, batch: int = 4) -> np.ndarray:
    """[files, 2] LSD and SNR."""
    order = np.argsort([len(reference) for _, reference in pairs], kind="stable")[::-1]
    scores = np.empty((len(pairs), 2))
    for first in range(0, len(order), batch):
        rows = order[first : first + batch]
        lengths = torch.tensor([len(pairs[row][1]) for row in rows])
        estimate, reference = (
            Signal(
                pad_sequence([torch.from_numpy(pairs[row][side]) for row in rows], True)[:, None],
                rate,
                lengths,
            )
            for side in (0, 1)
        )
        for column, metric in enumerate(("lsd_ssr_eval", "snr")):
            scores[rows, column] = METRICS[metric](estimate, reference, None)[""].numpy()
    return scores


def by_librosa(pairs: Recordings, rate: int) -> np.ndarray:
    """[files, 2] LSD and SNR, by the same definitions."""
    n_fft, hop = int(2048 * rate / 44100), rate // 100
    scores = []
    for estimate, reference in pairs:
        E, R = (np.abs(librosa.stft(wave, n_fft=n_fft, hop_length=hop)) for wave in (estimate, reference))
        ratio = np.log10(R**2 / (E + 1e-12) ** 2 + 1e-12)
        lsd = np.sqrt((ratio**2).mean(0)).mean()
        error = (estimate - reference).astype(np.float64)
        snr = 10 * np.log10((reference.astype(np.float64) ** 2).sum() / (error**2).sum())
        scores.append((lsd, snr))
    return np.array(scores)


def best(measured: Callable[[], np.ndarray], repeats: int) -> tuple[np.ndarray, float]:
    """What it gives, and the shortest of its times in seconds."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        scores = measured()
        times.append(time.perf_counter() - start)
    return scores, min(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=200)
    parser.add_argument("--rate", type=int, default=48000, help="Hz")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    pairs = recordings(options.files, options.rate)
    seconds = sum(len(reference) for _, reference in pairs) / options.rate
    print(f"{options.files} files, {seconds:.0f} s at {options.rate} Hz, {torch.get_num_threads()} threads")

    ours(pairs[:8], options.rate), by_librosa(pairs[:8], options.rate)  # plans and windows are made once
    mine, fast = best(lambda: ours(pairs, options.rate), options.repeats)
    theirs, slow = best(lambda: by_librosa(pairs, options.rate), options.repeats)
    apart = np.abs(mine - theirs).max(0)
    print(f"largest difference: LSD {apart[0]:.1e}, SNR {apart[1]:.1e} dB")
    print(f"ours {fast:.2f} s, librosa {slow:.2f} s: {slow / fast:.1f} times as fast")
    if not apart.max() < 1e-4:
        raise SystemExit("the two do not agree to 1e-4")


if __name__ == "__main__":
    main()
