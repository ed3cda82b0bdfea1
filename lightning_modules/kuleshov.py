"""The audio U-Net of V. Kuleshov, S. Z. Enam and S. Ermon, "Audio super-resolution using neural networks",
ICLR 2017 workshop, and its variant with TFiLM (S. Birnbaum, V. Kuleshov, S. Z. Enam, P. W. Koh and S. Ermon,
"Temporal FiLM", NeurIPS 2019), as the authors' code has them (kuleshov/audio-super-res).

The code rather than the text, as the first author advises (its issue 4): no batch normalisation, which is
commented out; the loss is the mean over patches of the root of their mean square error; the input is the
cubic spline of the low resolution, and is added to the output. Its last version has 384 channels at the
second level, where it had 256 before, and cannot be run as it stands: only the variant with TFiLM can. King
et al.'s network of the same name is `audioedsr.AudioUNet`.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import max_pool1d, pad

from lightning_modules.audioedsr import PixelShuffle, Regression
from lightning_modules.tfnet import Branch, check_kernels, conv
from signals.errors import UserError
from signals.types import Pair, Signal

# The audio U-Net ------------------------------------------------------------------------------------------


def quiet(head: nn.Module) -> nn.Module:
    """The last convolution at first: N(0, 1e-3), so that an untrained network all but passes its input on."""
    nn.init.normal_(head[1].weight, std=1e-3)
    return head


class UNet(Branch):
    """[B, 1, T] at the full rate -> the same: a `Branch` of TFNet's with biases, added to its input.

    Dropout and the activations, which are homogeneous, commute: theirs is the same network in another order.
    The end is filled with zeros to a multiple of `grid` samples; theirs is cut. With the paper's channels
    there are 56,411,394 parameters; with 384 in place of 256, the code's last, 70,977,154.
    """

    def __init__(
        self,
        channels: Sequence[int] = (128, 256, 512, 512),
        kernels: Sequence[int] = (65, 33, 17, 9),
        dropout: float = 0.5,
    ):
        check_kernels(channels, kernels)
        super().__init__(channels, kernels, dropout, bias=True)
        quiet(self.head)

    def forward(self, wave: Tensor) -> Tensor:
        samples = wave.shape[-1]
        return wave + super().forward(pad(wave, (0, -samples % self.grid)))[..., :samples]


# TFiLM ----------------------------------------------------------------------------------------------------


class TFiLM(nn.Module):
    """Each block of `block` samples times a factor for each channel, [B, C, T] -> [B, C, T].

    An LSTM hears the largest value of every block, from the first to the last, and gives the factors: C of
    them, from -1 to 1, and nothing is added. T is a multiple of `block`. The LSTM begins as Keras' does and
    has its one bias: the second of PyTorch's stays zero, and is no parameter.

    As its first factors follow what it hears, each level's signal is at first about the square of that of the
    level above: of noise of deviation 0.1, a billionth is left at the third. What lies deeper has no gradient
    until the levels above have learnt, from the outermost on.
    """

    def __init__(self, channels: int, block: int):
        super().__init__()
        self.block, self.lstm = block, nn.LSTM(channels, channels, batch_first=True)
        nn.init.xavier_uniform_(self.lstm.weight_ih_l0)
        nn.init.orthogonal_(self.lstm.weight_hh_l0)
        nn.init.zeros_(self.lstm.bias_ih_l0)
        nn.init.ones_(self.lstm.bias_ih_l0[channels : 2 * channels])  # of the forget gate
        del self.lstm.bias_hh_l0
        self.lstm.register_buffer("bias_hh_l0", None)
        self.lstm.bias_hh_l0 = torch.zeros(4 * channels)  # not by the line above: the LSTM must hear of it

    def forward(self, x: Tensor) -> Tensor:
        factors, _ = self.lstm(max_pool1d(x, self.block).mT)
        return (x.unflatten(-1, (-1, self.block)) * factors.mT[..., None]).flatten(2)


class TFiLMUNet(nn.Module):
    """[B, 1, T] at the full rate -> the same: the audio U-Net with dilated convolutions, each with a TFiLM.

    In place of a stride, the larger of every two samples is kept. (The code's command line has a size of that
    pool, by default 4; but the way back is by shuffles of 2, so it can only be 2, as in its README.)

    block: of the TFiLM of the first level, half of it with each further level, so that all levels have as
    many blocks. decoder_blocks: `last`, on the way back all blocks are as short as the bottleneck's, as in
    the code, where that looks like an oversight; or `mirrored`, as long as on the way down. The end is filled
    with zeros to a multiple of `grid` samples; theirs is cut. As given there are 68,221,186 parameters.
    Raises UserError on what does not fit.
    """

    def __init__(
        self,
        channels: Sequence[int] = (128, 256, 512, 512),
        kernels: Sequence[int] = (65, 33, 17, 9),
        dropout: float = 0.5,
        block: int = 128,
        decoder_blocks: str = "last",
    ):
        super().__init__()
        check_kernels(channels, kernels)
        if decoder_blocks not in ("last", "mirrored"):
            raise UserError(f"decoder_blocks={decoder_blocks}: last or mirrored.")
        *blocks, last = [block // 2**level for level in range(len(channels) + 1)]
        if last < 1 or block % 2 ** len(channels):
            raise UserError(f"block={block}: a multiple of {2 ** len(channels)} samples is needed.")

        def dilated(inputs: int, outputs: int, kernel: int) -> nn.Module:
            return conv(inputs, outputs, kernel, bias=True, dilation=2)

        def lower(inputs: int, outputs: int, kernel: int, block: int, dropout: float = 0.0) -> nn.Module:
            """[B, inputs, T] -> [B, outputs, T / 2]."""
            layers = [dilated(inputs, outputs, kernel), nn.MaxPool1d(2), nn.Dropout(dropout)]
            return nn.Sequential(*layers, nn.LeakyReLU(0.2), TFiLM(outputs, block))

        def upper(inputs: int, outputs: int, kernel: int, block: int) -> nn.Module:
            """[B, inputs, T] -> [B, outputs, 2T]."""
            layers = [dilated(inputs, 2 * outputs, kernel), nn.Dropout(dropout), nn.ReLU(), PixelShuffle()]
            return nn.Sequential(*layers, TFiLM(outputs, block))

        self.grid = 2 * block
        levels = list(zip(channels, kernels, blocks, strict=True))
        self.down = nn.ModuleList(
            lower(inputs, *level) for (inputs, _), level in zip(pairwise([1, *channels]), levels, strict=True)
        )
        self.bottleneck = lower(channels[-1], channels[-1], 9, last, dropout)
        self.up, inputs = nn.ModuleList(), channels[-1]
        for outputs, kernel, mirrored in reversed(levels):
            self.up.append(upper(inputs, outputs, kernel, last if decoder_blocks == "last" else mirrored))
            inputs = 2 * outputs  # as many again come from the way down
        self.head = nn.Sequential(quiet(conv(inputs, 2, 9, bias=True)), PixelShuffle())

    def forward(self, wave: Tensor) -> Tensor:
        samples, passed = wave.shape[-1], []
        x = pad(wave, (0, -samples % self.grid))
        for layer in self.down:
            x = layer(x)
            passed.append(x)
        x = self.bottleneck(x)
        for layer in self.up:
            x = torch.cat([layer(x), passed.pop()], dim=1)
        return wave + self.head(x)[..., :samples]


# Trainings ------------------------------------------------------------------------------------------------


class KuleshovAudioUNet(Regression):
    """`UNet` with its options, on the spline-interpolated input: any scale.

    Terms: `rmse`, the code's, the mean over items of sqrt(mean (P - Y)^2 + 1e-6), and `mse`; whichever has a
    weight. Windows of a long recording begin on the network's grid.
    """

    upsample = "spline"
    architecture: type[nn.Module] = UNet
    defaults: ClassVar = {"weights": {"rmse": 1.0}}

    def __init__(self, weights: Mapping[str, float], optimizer: Mapping, rate: int, **model):
        super().__init__(weights, optimizer, rate)
        self.net = self.architecture(**model)
        self.frame = self.net.grid

    def example(self, batch: int, samples: int) -> tuple:
        return (torch.zeros(batch, 1, samples, device=next(self.net.parameters()).device),)

    def resolve(self, low: Signal, cutoff: Tensor, seeds: Tensor, reference: Tensor | None) -> Tensor:
        return self.net(low.wave)

    def losses(self, pair: Pair) -> dict[str, Tensor]:
        """Raises UserError where neither has a weight."""
        squares = (self.estimate(pair) - pair.high.wave).square()
        terms = {"rmse": (squares.mean((1, 2)) + 1e-6).sqrt().mean(), "mse": squares.mean()}
        terms = {name: term for name, term in terms.items() if self.weights.get(name)}
        if not terms:
            raise UserError(f"{type(self).__name__} needs a weight above 0 for rmse or mse.")
        return terms


class KuleshovTFiLM(KuleshovAudioUNet):
    """`TFiLMUNet` with its options, trained and used as KuleshovAudioUNet.

    Its LSTMs hear all that came before: in pieces, a long recording is not quite what it is as a whole.
    """

    architecture = TFiLMUNet
