"""TFNet (T. Y. Lim, R. A. Yeh, Y. Xu, M. N. Do and M. Hasegawa-Johnson, "Time-frequency networks for audio
super-resolution", ICASSP 2018), as the first author's code has it (moodoki/tfnet, of 2019).

A U-Net hears the waveform, another the magnitudes of its spectrum, and a weight for each bin fuses the two.
The code does no more than that: linear magnitudes, no normalisation, nothing added to the input, and the
spectral branch may give negative magnitudes, which turn the phase.

Where the poster differs or is silent: it prints the norm of the error (`norm`), the code's loss is its mean
square (`mse`); lambda, of the decay of the weights (`decay`), is given nowhere and is off in the code. The
code has rates 2, 4 and 8 only; at others, whose copies of the low band do not fill the spectrum, a last one
is begun and cut.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu, pad

from lightning_modules.audioedsr import PixelShuffle, Regression
from signals.errors import UserError
from signals.types import Pair, Signal

# Spectra --------------------------------------------------------------------------------------------------


def low_bins(cutoff: Tensor, rate: int, block: int) -> Tensor:
    """How many bins above DC of a spectrum of `block` samples at `rate` Hz are up to `cutoff` [B] Hz, [B].

    block / 2r, rounded down, at an integer rate r; at least one, and at most half of `block`.
    """
    bins = cutoff.double() * block / rate
    return (bins + 1e-3).long().clamp(1, block // 2)  # a cut-off is in float32, and may lie on a bin


def replicated(magnitude: Tensor, band: Tensor, replicator: str) -> Tensor:
    """The spectral replicator: the first `band` [B] bins of [B, 1, F] (without DC) again and again.

    replicator: `replicate`; `fold`, every other copy mirrored, as a signal that was not filtered would alias;
    or `zeros`, no copies. The last copy is cut where the spectrum ends.
    """
    k, band = torch.arange(magnitude.shape[-1], device=magnitude.device), band[:, None]
    copy, place = k // band, k % band
    if replicator == "fold":
        place = torch.where(copy % 2 == 1, band - 1 - place, place)
    copied = magnitude.gather(-1, place[:, None])
    return copied * (copy == 0)[:, None] if replicator == "zeros" else copied


# Networks -------------------------------------------------------------------------------------------------


def conv(
    inputs: int, outputs: int, kernel: int, stride: int = 1, bias: bool = False, dilation: int = 1
) -> nn.Module:
    """[B, inputs, T] -> [B, outputs, T / stride], orthogonal at first; biases begin as zero.

    Padded as TensorFlow's SAME: with stride 2, output t lies around sample 2t + 1. `kernel` is odd.
    """
    layer = nn.Conv1d(inputs, outputs, kernel, stride, dilation=dilation, bias=bias)
    nn.init.orthogonal_(layer.weight)
    if bias:
        nn.init.zeros_(layer.bias)
    total = dilation * (kernel - 1) + 1 - stride
    return nn.Sequential(nn.ConstantPad1d((total // 2, total - total // 2), 0.0), layer)


def check_kernels(channels: Sequence[int], kernels: Sequence[int]) -> None:
    """Raises UserError unless there is an odd kernel from 3 on for each of `channels`."""
    if len(kernels) != len(channels) or any(kernel < 3 or kernel % 2 == 0 for kernel in kernels):
        raise UserError(f"kernels={list(kernels)}: an odd one from 3 on for each of {list(channels)}.")


class Branch(nn.Module):
    """The audio U-Net of either branch, [B, 1, T] -> [B, 1, T]; T a multiple of `grid`.

    As Kuleshov et al. 2017, without normalisation and without the skip from input to output: a convolution of
    stride 2 for each of `channels` with its kernel, one more as bottleneck, and back by shuffles of 2, each
    joined by what came from the way down. dropout: after the activation, before the shuffle, from the
    bottleneck on. (The shuffle interleaves channels, where the code's has one phase after the other: the
    same network with its channels in another order.) bias: of all convolutions; here of the bottleneck's and
    the last only.
    """

    def __init__(self, channels: Sequence[int], kernels: Sequence[int], dropout: float, bias: bool = False):
        super().__init__()
        self.grid = 2 ** (len(channels) + 1)
        self.dropout, self.shuffle = nn.Dropout(dropout), PixelShuffle()
        self.down = nn.ModuleList(
            conv(inputs, outputs, kernel, stride=2, bias=bias)
            for (inputs, outputs), kernel in zip(pairwise([1, *channels]), kernels, strict=True)
        )
        self.bottleneck = conv(channels[-1], channels[-1], 9, stride=2, bias=True)
        self.up, inputs = nn.ModuleList(), channels[-1]
        for outputs, kernel in zip(reversed(channels), reversed(kernels), strict=True):
            self.up.append(conv(inputs, 2 * outputs, kernel, bias=bias))
            inputs = 2 * outputs  # shuffled to half of these, and as many from the way down
        self.head = conv(inputs, 2, 9, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        passed = []
        for layer in self.down:
            x = leaky_relu(layer(x), 0.2)
            passed.append(x)
        x = self.dropout(leaky_relu(self.bottleneck(x), 0.2))
        for layer in self.up:
            x = self.shuffle(self.dropout(layer(x).relu()))
            x = torch.cat([x, passed.pop()], dim=1)
        return self.shuffle(self.head(x))


class TFNet(nn.Module):
    """Both branches and their fusion, [B, 1, T] at the full rate -> the same, block by block.

    Blocks of `block` samples follow each other without overlap, the last continued with zeros, and go
    through the network each by itself, by a Fourier transform without window.

    branches: `both`, `time` (no spectrum at all) or `frequency` (the phase of the input, which in an empty
    band is that of rounding errors; the code has the key, but cannot run it). replicator: see `replicated`.
    w: the weight of the time branch, one number from 0 to 1 for all bins; None, the paper's: one for each of
    block / 2 + 1 bins, trained. It is (1 + tanh v) / 2; v begins as zero, in the code near it. As given, by
    the code's preset for the paper, there are 28,214,405 parameters; its own default has channels 128, 256,
    512, 512. Raises UserError on what is unknown.
    """

    def __init__(
        self,
        branches: str = "both",
        replicator: str = "replicate",
        w: float | None = None,
        channels: Sequence[int] = (64, 128, 256, 256),
        kernels: Sequence[int] = (65, 33, 17, 9),
        dropout: float = 0.5,
        block: int = 8192,
    ):
        super().__init__()
        if branches not in ("both", "time", "frequency"):
            raise UserError(f"branches={branches}: both, time or frequency.")
        if replicator not in ("replicate", "fold", "zeros"):
            raise UserError(f"replicator={replicator}: replicate, fold or zeros.")
        if w is not None and not 0 <= w <= 1:
            raise UserError(f"w={w}: from 0 to 1, or null to train one for each bin.")
        check_kernels(channels, kernels)
        self.block, self.replicator, self.fixed = block, replicator, w
        self.time = None if branches == "frequency" else Branch(channels, kernels, dropout)
        self.frequency = None if branches == "time" else Branch(channels, kernels, dropout)
        if branches == "both" and w is None:
            self.v = nn.Parameter(torch.zeros(block // 2 + 1))
        grid = 2 * (self.time or self.frequency).grid
        if block % grid:
            raise UserError(f"block={block}: a multiple of {grid} samples is needed.")

    @property
    def w(self) -> Tensor | float:
        """Of the time branch, [F] or one for all bins."""
        return (1 + self.v.tanh()) / 2 if self.fixed is None else self.fixed

    def forward(self, wave: Tensor, band: Tensor) -> Tensor:
        """wave: [B, 1, T], any T. band: [B], bins of a block up to the cut-off, see `low_bins`."""
        samples = wave.shape[-1]
        blocks = pad(wave, (0, -samples % self.block)).unflatten(-1, (-1, self.block))
        count = blocks.shape[2]
        y = self.of_blocks(blocks.flatten(0, 2)[:, None], band.repeat_interleave(count))
        return y.reshape(len(wave), 1, count * self.block)[..., :samples]

    def of_blocks(self, x: Tensor, band: Tensor) -> Tensor:
        """[N, 1, block] -> the same."""
        if self.frequency is None:
            return self.time(x)
        X = torch.fft.rfft(x.float())
        m = self.magnitude(X.abs(), band)
        if self.time is None:
            # An empty bin has phase 0, as in the code. (The gradient of torch.polar is that of |m|.)
            return torch.fft.irfft(m * torch.polar(torch.ones_like(m), X.angle()))
        Z = torch.fft.rfft(self.time(x).float())
        M = self.w * Z.abs() + (1 - self.w) * m
        return torch.fft.irfft(M * Z / (Z.abs() + 1e-8))  # or its gradient would have no bound

    def magnitude(self, X: Tensor, band: Tensor) -> Tensor:
        """The spectral branch, |X| [N, 1, F] -> m: DC passes by it."""
        return torch.cat([X[..., :1], self.frequency(replicated(X[..., 1:], band, self.replicator))], dim=-1)


# Training -------------------------------------------------------------------------------------------------


class TimeFrequency(Regression):
    """`TFNet` with its options, on the Fourier-interpolated input: any scale.

    Terms: `mse`, the code's, and `norm`, the printed one, mean over items of ||y - H(x)||_2; whichever has a
    weight; and `decay`, lambda's, of all weights but biases: their norm beside `norm`, as printed, and half
    the sum of their squares beside `mse`, as in the code. Windows to learn from should be one block. overlap
    (of use): samples that blocks share, where they cross-fade (None: half a block); the code's do not overlap
    (0), and their seams click.
    """

    upsample = "fft"
    defaults: ClassVar = {"weights": {"mse": 1.0}}
    use: ClassVar = {"overlap": None}

    def __init__(self, weights: Mapping[str, float], optimizer: Mapping, rate: int, **model):
        super().__init__(weights, optimizer, rate)
        self.net = TFNet(**model)
        self.window = self.net.block
        self.used()

    def used(self, **settings) -> None:
        super().used(**settings)
        block = self.window or 0
        self.overlap = block // 2 if self.overlap is None else self.overlap
        if block and not 0 <= self.overlap < block:
            raise UserError(f"overlap={self.overlap}: from 0 to less than the block of {block} samples.")

    def example(self, batch: int, samples: int) -> tuple:
        device = next(self.net.parameters()).device
        band = torch.full((batch,), self.net.block // 8, device=device)  # of rate 4
        return torch.zeros(batch, 1, samples, device=device), band

    def resolve(self, low: Signal, cutoff: Tensor, seeds: Tensor, reference: Tensor | None) -> Tensor:
        return self.net(low.wave, low_bins(cutoff, self.rate, self.net.block))

    def losses(self, pair: Pair) -> dict[str, Tensor]:
        """Raises UserError where neither has a weight."""
        error = self.estimate(pair) - pair.high.wave
        terms = {"mse": error.square().mean(), "norm": error.flatten(1).norm(dim=1).mean()}
        if self.weights.get("decay"):
            named = self.net.named_parameters()
            squares = sum(p.square().sum() for name, p in named if not name.endswith("bias"))
            terms["decay"] = squares.sqrt() if self.weights.get("norm") else squares / 2
        terms = {name: term for name, term in terms.items() if self.weights.get(name)}
        if not {"mse", "norm"} & terms.keys():
            raise UserError(f"{type(self).__name__} needs a weight above 0 for mse or norm.")
        return terms
