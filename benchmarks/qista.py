"""Real-time factors of QISTA-Net-n and -m on one core, beside the plain form of the same networks.

    python benchmarks/qista.py [--seconds 8] [--threads 1]

Ours: both rows of the image as channels of one convolution, 32 frames at a time. Plain: one convolution
after another as the paper draws them, over a padded image of two rows, all frames of the recording at once.
Time over duration, the better of two; the weights are drawn, which does not matter to the time. Both forms
give the same spectra, and the largest difference is printed.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import conv2d, pad

from lightning_modules.qista import BINS, NetworkM, NetworkN, analyse, image


def plain_n(net: NetworkN, Y: Tensor) -> Tensor:
    """Algorithm 1 as it is printed, and as the released code's convolutions see it."""

    def C(x: Tensor, kernel: Tensor) -> Tensor:
        return conv2d(pad(x, (0, 1, 0, 1)), kernel)

    X = Y @ net.B.mT
    for phase in net.phases:
        K = phase.C
        R = X + phase.beta * (Y - X @ net.A.mT) @ net.B.mT
        h = C(C(C(C(R[:, None], K[0]), K[1]).relu(), K[2]).relu(), K[3])
        g = phase.lambda_ / (0.1 + h.abs()) ** (1 - net.q)
        s = h.sign() * (h.abs() - g).relu()
        X = R + phase.alpha * C(C(C(C(s - h, K[4]).relu(), K[5]).relu(), K[6]), K[7])[:, 0]
    return X


def plain_m(net: NetworkM, y: Tensor) -> Tensor:
    """Algorithm 2 as it is printed."""
    x = y @ net.B.mT
    for beta, lambda_ in zip(net.beta, net.lambda_, strict=True):
        r = x + beta * (y - x @ net.A.mT) @ net.B.mT
        x = r.sign() * (r.abs() - lambda_ / (0.1 + r.abs()) ** (1 - net.q)).relu()
    return x


def timed(call: Callable[[], Tensor]) -> tuple[float, Tensor]:
    """Seconds of the better of two, and what came out."""
    best = float("inf")
    for _ in range(2):
        started = time.perf_counter()
        out = call()
        best = min(best, time.perf_counter() - started)
    return best, out


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=8, help="of the recording")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    n, m = NetworkN(), NetworkM()
    for rate in (16_000, 48_000):
        recording = 0.05 * torch.randn(1, round(options.seconds * rate / 2))
        spectra = analyse(recording, BINS // 2)[0]
        rows, magnitude = image(spectra), spectra.abs()
        for name, net, plain, given in (("n", n, plain_n, rows), ("m", m, plain_m, magnitude)):
            (fast, found), (slow, expected) = timed(partial(net, given)), timed(partial(plain, net, given))
            print(
                f"QISTA-Net-{name} at {rate} Hz: real-time factor {fast / options.seconds:.4f}, "
                f"plain {slow / options.seconds:.4f}, ratio {slow / fast:.1f}; "
                f"differ by {float((found - expected).abs().max()):.1e}",
                flush=True,
            )


if __name__ == "__main__":
    main()
