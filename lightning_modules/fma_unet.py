"""The waveform U-Net of Cukaj and Corsi (music of FMA, 16 to 44.1 kHz), as their code has it
(KevinCukaj/deep-learning-project).

A U-Net with batch normalisation, at the full rate and without a skip from input to output, learns magnitudes
of spectra only. No such term hears the sign of the waveform, so that half of the trainings may end upside
down, as they began: their printed L1 and MSE are about those of -y. The term `l1`, which is not theirs, turns
them with a weight of 10, not with 1: at first, the gradient of `stft` is some 20 times as large as its own.

Where paper and code differ: (2) prints an L1 of spectra (`stft_l1`), the code adds the spectral convergence
(`stft`); "basic interpolation" and "a low-pass at 4.8 kHz" are a windowed sinc and one biquad (degradation
`fma_biquad`); a batch of 64 is 32, four times; the scores are of other resolutions than the loss (metric
`mr_stft`). Their use does not filter what it hears, though the training did, and its windows do not overlap.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.linalg import vector_norm
from torch.nn.functional import pad

from lightning_modules.audioedsr import Regression
from lightning_modules.ranks import norm_over_ranks
from signals.errors import UserError
from signals.filters import Lowpass, lowpass
from signals.spectra import stft
from signals.types import Pair, Recording, Signal

RESOLUTIONS = ((512, 128), (1024, 256), (2048, 512), (4096, 1024))  # samples of a frame, and to the next
STRETCH = 2**19  # samples of a long recording that are looked at at once

# The network ----------------------------------------------------------------------------------------------


def down(inputs: int, outputs: int, stride: int) -> nn.Module:
    """[B, inputs, T] -> [B, outputs, T / stride]."""
    layer = nn.Conv1d(inputs, outputs, 15, stride, padding=7)
    return nn.Sequential(layer, nn.BatchNorm1d(outputs), nn.LeakyReLU(0.2))


def up(inputs: int, outputs: int) -> nn.Module:
    """[B, inputs, T] -> [B, outputs, 2T]."""
    layer = nn.ConvTranspose1d(inputs, outputs, 16, 2, padding=7)
    return nn.Sequential(layer, nn.BatchNorm1d(outputs), nn.ReLU())


class UNet(nn.Module):
    """[B, 1, T] at the full rate -> the same, from -1 to 1; T a multiple of `grid`.

    A convolution for each of `channels`, the first at the full rate, the others of stride 2; back by
    transposed ones, each joined by what came from the way down. As given: 5,995,457 parameters.
    """

    def __init__(self, channels: Sequence[int] = (64, 128, 256, 512)):
        super().__init__()
        self.grid = 2 ** (len(channels) - 1)
        self.down = nn.ModuleList(
            down(inputs, outputs, 1 if inputs == 1 else 2) for inputs, outputs in pairwise([1, *channels])
        )
        self.up, inputs = nn.ModuleList(), channels[-1]
        for outputs in reversed(channels[:-1]):
            self.up.append(up(inputs, outputs))
            inputs = 2 * outputs  # with as many from the way down
        self.head = nn.Conv1d(inputs, 1, 15, padding=7)

    def forward(self, x: Tensor) -> Tensor:
        passed = []
        for layer in self.down:
            x = layer(x)
            passed.append(x)
        passed.pop()
        for layer in self.up:
            x = torch.cat([layer(x), passed.pop()], dim=1)
        return self.head(x).tanh()


# Losses ---------------------------------------------------------------------------------------------------


def magnitude(wave: Tensor, n_fft: int, hop: int) -> Tensor:
    """[B, 1, T] -> |X| [B, F, N], in float32 under any autocast."""
    with torch.autocast(wave.device.type, enabled=False):
        return stft(wave.float(), n_fft, hop, pad_mode="reflect").abs()


def stft_distances(
    estimate: Tensor,
    reference: Tensor,
    dim: tuple[int, ...] | None = None,
    resolutions: Sequence[tuple[int, int]] = RESOLUTIONS,
) -> tuple[Tensor, Tensor]:
    """Means over the resolutions of the spectral convergence || |X| - |Y| || / ||Y|| and of the mean of
    | |X| - |Y| |, magnitudes linear, X of the estimate and Y of the reference, both [B, 1, T].

    dim: None, norms over all items of the batch, as theirs (in a training, of all processes); (1, 2), for
    each item, [B]. Convergence to silence is 0, as it has no measure. Raises UserError where T is too short
    for the longest frame.
    """
    samples, least = reference.shape[-1], max(resolutions)[0] // 2 + 1
    if samples < least:
        raise UserError(f"windows of {samples} samples: the loss needs {least}, set data.window higher.")
    convergence = difference = 0
    for sizes in resolutions:
        X, Y = magnitude(estimate, *sizes), magnitude(reference, *sizes)
        error, norm = vector_norm(X - Y, dim=dim), vector_norm(Y, dim=dim)
        if dim is None:
            error, norm = norm_over_ranks(error), norm_over_ranks(norm)
        convergence = convergence + torch.where(norm > 0, error / norm.clamp(min=1e-12), 0)
        difference = difference + (X - Y).abs().mean(dim)
    return convergence / len(resolutions), difference / len(resolutions)


def distances(
    estimate: Tensor,
    reference: Tensor,
    weights: Mapping[str, float],
    dim: tuple[int, ...] | None = None,
    resolutions: Sequence[tuple[int, int]] = RESOLUTIONS,
) -> dict[str, Tensor]:
    """`stft`, the code's, convergence plus difference; `stft_l1`, as (2) prints it, the difference alone;
    and `l1` of the samples; whichever has a weight. dim, resolutions: as in `stft_distances`.
    """
    terms = {}
    if weights.get("stft") or weights.get("stft_l1"):
        convergence, difference = stft_distances(estimate, reference, dim, resolutions)
        terms = {"stft": convergence + difference, "stft_l1": difference}
    terms["l1"] = (estimate - reference).abs().mean(dim)
    return {name: term for name, term in terms.items() if weights.get(name)}


# Training and use -----------------------------------------------------------------------------------------


class FmaUNet(Regression):
    """`UNet` with its options, for any scale; terms are those of `distances`, by `resolutions`.

    Their network hears windows of peak 1, and answers at peak 1. Here a recording is divided by its peak, and
    the estimate multiplied by it again; pairs of peak 1 are left as they are. What the band that is lacking
    would add to the peak nobody knows: the estimate has the level of the input.

    Of use: window, overlap: samples at `rate` (window None: all at once); their windows do not overlap (0),
    and have seams. prefilter: what comes at a lower rate is filtered once it is raised, by the biquad at 0.6
    of its band edge that made the published input: the network was trained on nothing else. False: theirs.
    What comes at the full rate is taken to be filtered.
    """

    defaults: ClassVar = {"weights": {"stft": 1.0}}
    use: ClassVar = {"window": 65536, "overlap": 8192, "prefilter": True}

    def __init__(
        self,
        weights: Mapping[str, float],
        optimizer: Mapping,
        rate: int,
        resolutions: Sequence[tuple[int, int]] = RESOLUTIONS,
        **model,
    ):
        super().__init__(weights, optimizer, rate)
        self.net, self.resolutions = UNet(**model), resolutions
        self.frame = self.net.grid  # a window begins where the strides of the whole would

    def used(self, **settings) -> None:
        super().used(**settings)
        if self.window is not None and not 0 <= self.overlap < self.window:
            raise UserError(f"overlap={self.overlap}: from 0 to less than the window of {self.window}.")

    def example(self, batch: int, samples: int) -> tuple:
        grid = self.net.grid
        return (torch.zeros(batch, 1, -(-samples // grid) * grid, device=self.net.head.weight.device),)

    # What is heard ----------------------------------------------------------------------------------------

    def filtered(self, low: Recording, cutoff: Tensor) -> Recording:
        """`low` at `rate`, as training heard it; cutoff: [B] Hz."""
        raised = self.raised(low)
        if low.rate >= self.rate or not self.prefilter:
            return raised
        filters = [Lowpass("butterworth", 2, 0.6 * hertz) for hertz in cutoff.tolist()]  # Q = 0.707
        margin = max(each.settling(self.rate) for each in filters)

        def read(first: int, count: int) -> Tensor:
            wave = raised.read(first - margin, margin + count)
            return lowpass(wave, filters, self.rate, zero_phase=False)[..., margin:]

        return raised._replace(read=read)

    def survey(
        self, low: Recording, cutoff: Tensor, seeds: Tensor, reference: Recording | None
    ) -> dict[str, Tensor]:
        """One `peak` [B, 1, 1] for the whole recording."""
        stretches = self.filtered(low, cutoff).stretches(STRETCH)
        peaks = [wave.abs().amax(dim=-1, keepdim=True) for wave in stretches]
        return {"cutoff": cutoff, "peak": torch.stack(peaks).amax(0)}

    def windows(
        self,
        low: Recording,
        firsts: Sequence[int],
        count: int,
        whole: Mapping[str, Tensor],
        seeds: Tensor,
        reference: Recording | None,
    ) -> Tensor:
        """Silence stays silent."""
        cutoff, peak = whole["cutoff"], whole["peak"]
        filtered = self.filtered(low, cutoff[: len(seeds) // len(firsts)])
        heard = torch.cat([filtered.read(first, count) for first in firsts]) / peak.clamp(min=1e-12)
        return peak * self.resolve(Signal.of(heard, self.rate), cutoff, seeds, reference)

    def resolve(self, low: Signal, cutoff: Tensor, seeds: Tensor, reference: Tensor | None) -> Tensor:
        """low: within -1 and 1."""
        samples = low.wave.shape[-1]
        return self.net(pad(low.wave, (0, -samples % self.net.grid)))[..., :samples]

    # What is learnt ---------------------------------------------------------------------------------------

    def estimate(self, pair: Pair) -> Tensor:
        """[B, 1, T], as long as the reference; each window at once, by its own peak."""
        low = Recording.of(pair.low.wave, pair.low.rate)
        whole = self.survey(low, pair.cutoff, pair.seeds, None)
        return self.windows(low, [0], pair.high.wave.shape[-1], whole, pair.seeds, None)

    def losses(self, pair: Pair) -> dict[str, Tensor]:
        """Raises UserError where none has a weight."""
        terms = distances(self.estimate(pair), pair.high.wave, self.weights, None, self.resolutions)
        if not terms:
            raise UserError("FmaUNet needs a weight above 0 for stft, stft_l1 or l1.")
        return terms

    def held_out(self, pair: Pair) -> dict[str, Tensor]:
        """The weighted sum of the terms by item; the constant is silence."""
        reference = pair.high.wave

        def loss(estimate: Tensor) -> Tensor:
            terms = distances(estimate, reference, self.weights, (1, 2), self.resolutions)
            return sum(self.weights[name] * term for name, term in terms.items())

        return {"model": loss(self.estimate(pair)), "constant": loss(torch.zeros_like(reference))}
