"""NU-Wave (J. Lee and S. Han, "NU-Wave: a diffusion probabilistic model for neural audio upsampling",
Interspeech 2021), as its code has it (maum-ai/nuwave), and what NU-Wave 2 shares with it.

A network that is told how noisy a waveform is estimates the noise in it, from the linearly interpolated input
beside it; noise becomes speech in eight steps. There is one network for each scale.

What is not repeated: their validation set is their test set; a moving average that weighs the newest weights
by 0.999, and so is these weights, which we take; Adam's eps of 1e-9 (ours: 1e-8), both next to nothing beside
the gradients. What is repeated: the schedule is rounded to float32, by which the last step ends 1.3 % too
quiet.
"""

from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from functools import partial
from math import sqrt
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from lightning_modules.single_stage import SingleStage
from lightning_modules.stage import endless_noise, noise, uniform
from signals.errors import UserError
from signals.resampling import ratio, resampled_length
from signals.types import Pair, Rate, Recording, Signal

STRETCH = 2**19  # samples of a long recording that are looked at at once
BLOCK = 2**14  # samples of noise that are drawn at once

# What both networks are made of ---------------------------------------------------------------------------


def conv(
    inputs: int, outputs: int, kernel: int = 1, dilation: int = 1, bias: bool = True, kind: type = nn.Conv1d
) -> nn.Module:
    """[B, inputs, T] -> [B, outputs, T], Kaiming-normal at first. `kernel` is odd."""
    reach = kernel // 2 * dilation
    layer = kind(inputs, outputs, kernel, padding=reach, dilation=dilation, bias=bias)
    nn.init.kaiming_normal_(layer.weight)
    return layer


class NoiseEmbedding(nn.Module):
    """Noise levels [B] -> [B, width], from sines and cosines of 50000 `level` at `frequencies`.

    In float32 and in their order, since at 50000 the rounding counts.
    """

    def __init__(self, frequencies: Tensor, width: int):
        super().__init__()
        self.register_buffer("frequencies", frequencies, persistent=False)
        self.inner, self.outer = nn.Linear(2 * len(frequencies), width), nn.Linear(width, width)

    def forward(self, level: Tensor) -> Tensor:
        angles = (50000 * level)[:, None] * self.frequencies
        waves = torch.cat([angles.sin(), angles.cos()], dim=-1)
        return silu(self.outer(silu(self.inner(waves))))


class Layer(nn.Module):
    """A residual layer around `mixing`, of x and of what else it is given, to twice the channels."""

    def __init__(self, channels: int, width: int, mixing: nn.Module):
        super().__init__()
        self.level, self.mixing, self.out = nn.Linear(width, channels), mixing, conv(channels, 2 * channels)

    def forward(self, x: Tensor, given: Tensor, level: Tensor) -> tuple[Tensor, Tensor]:
        """x: [B, C, T]. level: [B, width]. Gives what goes on and what is skipped to the end, both as x."""
        gate, filtered = self.mixing(x + self.level(level)[..., None], given).chunk(2, dim=1)
        residual, skip = self.out(gate.sigmoid() * filtered.tanh()).chunk(2, dim=1)
        return (x + residual) / sqrt(2), skip


class Denoiser(nn.Module):
    """Layers around each `mixing`; what they skip is summed, and the noise is read from the sum."""

    def __init__(self, channels: int, width: int, frequencies: Tensor, mixings: Sequence[nn.Module]):
        super().__init__()
        self.embedding = NoiseEmbedding(frequencies, width)
        self.layers = nn.ModuleList(Layer(channels, width, mixing) for mixing in mixings)
        self.skip, self.head = conv(channels, channels), conv(channels, 1)

    def read(self, x: Tensor, given: Tensor, level: Tensor) -> Tensor:
        """x: [B, C, T]; level: [B] -> [B, 1, T]."""
        embedded, skipped = self.embedding(level), 0
        for layer in self.layers:
            x, skip = layer(x, given, embedded)
            skipped = skipped + skip
        return self.head(silu(self.skip(skipped / sqrt(len(self.layers)))))


# Training and use of both ---------------------------------------------------------------------------------


class WaveDiffusion(SingleStage):
    """Diffusion of a waveform at the full rate, given the input there: y = alpha y_0 + sigma eps.

    A subclass gives `net`, `noising`, `predict` and `sample`, and `condition`, where the input is not raised
    by the polyphase filter. Terms: `l1`, the mean absolute error of the noise, and `log_l1`, the mean over
    items of its logarithm; whichever has a weight.

    Level: their recordings have a peak of 1. Here a recording is divided by the peak of its input, and the
    estimate multiplied by it again: what the lacking band would add to the peak nobody knows. A window that
    is learnt from is a recording of its own, times a gain of 0.5 to 1, as theirs; where its band is all but
    silent, a tenth of the reference's peak counts.

    Of use: window, overlap: samples at `rate` (window None: all at once). All that is random follows from the
    recording's seed and from the place in it, so that windows share it where they overlap.
    """

    use: ClassVar = {"window": 2**17, "overlap": 8192}
    windows_at_once = 2
    net: nn.Module

    def used(self, **settings) -> None:
        super().used(**settings)
        if self.window is not None and not 0 <= self.overlap < self.window:
            raise UserError(f"overlap={self.overlap}: from 0 to less than the window of {self.window}.")

    @property
    def network(self) -> nn.Module:
        return self.net

    def condition(self, low: Recording, cutoff: Tensor) -> Recording:
        """`low` at `rate`, as the network hears it; cutoff: [B] Hz."""
        return self.raised(low)

    def noising(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Times [B], 0 (clean) to 1 -> alpha, sigma and the level that the network is told, [B] each."""
        raise NotImplementedError

    def predict(self, y: Tensor, low: Tensor, cutoff: Tensor, level: Tensor) -> Tensor:
        """The noise in y, [B, 1, T] as y and low; cutoff and level: [B]."""
        raise NotImplementedError

    def sample(self, low: Tensor, cutoff: Tensor, drawn: Callable[[int], Tensor]) -> Tensor:
        """y_0 for low, [B, 1, T]; drawn: number -> another noise of this shape, whose 0th y_T is."""
        raise NotImplementedError

    # Use --------------------------------------------------------------------------------------------------

    def survey(
        self, low: Recording, cutoff: Tensor, seeds: Tensor, reference: Recording | None
    ) -> dict[str, Tensor]:
        """One `peak` [B, 1, 1] and one seed for the whole recording."""
        peaks = [peak(wave) for wave in self.condition(low, cutoff).stretches(STRETCH)]
        return {"cutoff": cutoff, "seeds": seeds, "peak": torch.stack(peaks).amax(0)}

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
        batch = len(seeds) // len(firsts)
        condition = self.condition(low, whole["cutoff"][:batch])
        heard = torch.cat([condition.read(first, count) for first in firsts])
        given = Signal.of(heard / whole["peak"].clamp(min=1e-12), self.rate)
        places = torch.tensor(firsts, device=seeds.device).repeat_interleave(batch)
        # With the recordings' seeds, not the windows': what overlaps shares its noise.
        return whole["peak"] * self.resolve(given, whole["cutoff"], whole["seeds"], None, places)

    @torch.no_grad()
    def resolve(
        self,
        low: Signal,
        cutoff: Tensor,
        seeds: Tensor,
        reference: Tensor | None,
        firsts: Tensor | None = None,
    ) -> Tensor:
        """low: of peak 1. firsts: [B], where windows begin in their recordings (by seed), None: at 0."""
        firsts = torch.zeros_like(seeds) if firsts is None else firsts
        drawn = partial(endless_noise, low.wave.shape[1:], seeds, firsts, BLOCK)
        return self.sample(low.wave, cutoff, drawn)

    # Training ---------------------------------------------------------------------------------------------

    def times(self, seeds: Tensor, salt: int) -> Tensor:
        """Uniform, [B]."""
        return uniform(seeds, salt)

    def errors(self, pair: Pair, salt: int) -> tuple[Tensor, Tensor]:
        """eps and its error, each [B, 1, T], with gain, noise and time from the seeds."""
        high = pair.high.wave
        low = self.condition(Recording.of(pair.low.wave, pair.low.rate), pair.cutoff).read(0, high.shape[-1])
        loudest = torch.maximum(peak(low), peak(high) / 10).clamp(min=1e-12)
        gain = (1 + uniform(pair.seeds, salt))[:, None, None] / 2 / loudest
        alpha, sigma, level = self.noising(self.times(pair.seeds, salt + 1))
        eps = noise(high.shape[1:], pair.seeds, salt + 2)
        y = alpha[:, None, None] * gain * high + sigma[:, None, None] * eps
        return eps, eps - self.predict(y, gain * low, pair.cutoff, level)

    def losses(self, pair: Pair) -> dict[str, Tensor]:
        """Raises UserError where neither has a weight."""
        # Items may recur (a finite pool of windows), their noise must not: it is salted by the step.
        _, error = self.errors(pair, 3 * int(self.batches_seen))
        l1 = error.abs().mean(dim=(1, 2))
        terms = {"l1": l1.mean(), "log_l1": l1.clamp(min=1e-20).log().mean()}
        terms = {name: term for name, term in terms.items() if self.weights.get(name)}
        if not terms:
            raise UserError(f"{type(self).__name__} needs a weight above 0 for l1 or log_l1.")
        return terms

    def held_out(self, pair: Pair) -> dict[str, Tensor]:
        """Mean absolute error of the noise; the constant is no noise."""
        eps, error = self.errors(pair, 0)
        return {"model": error.abs().mean(dim=(1, 2)), "constant": eps.abs().mean(dim=(1, 2))}


def peak(wave: Tensor) -> Tensor:
    """[B, 1, T] -> [B, 1, 1]."""
    return wave.abs().amax(dim=-1, keepdim=True)


# NU-Wave's input ------------------------------------------------------------------------------------------


def samples_apart(rate: Rate, cutoff: Tensor) -> Tensor:
    """`rate` Hz over the rate that `cutoff` [B] Hz needs, twice that, [B]; 1 where it is not whole."""
    apart = float(rate) / (2 * cutoff.double())
    whole = apart.round().clamp(min=1)
    return torch.where((apart - whole).abs() < 1e-5, whole, 1).long()  # a cut-off is in float32


def every(recording: Recording, step: int) -> Recording:
    """Every `step`-th sample."""

    def read(first: int, count: int) -> Tensor:
        return recording.read(first * step, (count - 1) * step + 1)[..., ::step]

    return Recording(read, -(-recording.samples // step), Fraction(recording.rate) / step)


def interpolated(recording: Recording, rate: Rate) -> Recording:
    """By straight lines as nn.Upsample(mode="linear", align_corners=False) draws them, at any higher rate.

    Sample n lies at (n + 1/2) / r - 1/2 of the input, so that half a sample lies between this and
    signals.interpolation.linear. A stretch is that of the whole.
    """
    up, down = ratio(recording.rate, rate)
    samples = resampled_length(recording.samples, recording.rate, rate)

    def read(first: int, count: int) -> Tensor:
        n = torch.arange(first, first + count)
        place = (2 * n + 1) * down - up  # in 1 / (2 up) samples of the input
        before = place.div(2 * up, rounding_mode="floor")
        left, right = ((before + k).clamp(0, recording.samples - 1) for k in (0, 1))  # the ends are held
        begin = int(left[0])
        known = recording.read(begin, int(right[-1]) + 1 - begin)
        share = (place.remainder(2 * up) / (2 * up)).to(known)
        inside = ((n >= 0) & (n < samples)).to(known)
        left, right = ((index - begin).to(known.device) for index in (left, right))
        return inside * torch.lerp(known[..., left], known[..., right], share)

    return Recording(read, samples, rate)


# NU-Wave --------------------------------------------------------------------------------------------------

BETAS = (1e-6, 2e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 9e-1)  # of the sampling


class Mixing(nn.Module):
    """Dilated convolutions of x and of the input, added: [B, C, T] each -> [B, 2C, T]."""

    def __init__(self, channels: int, dilation: int):
        super().__init__()
        self.of_x, self.of_low = (conv(channels, 2 * channels, 3, dilation) for _ in range(2))

    def forward(self, x: Tensor, low: Tensor) -> Tensor:
        return self.of_x(x) + self.of_low(low)


class NuWaveNet(Denoiser):
    """Dilations 1, 2, 4, ... over a `cycle` of layers, and again. As given: 3,049,985 parameters."""

    def __init__(self, channels: int = 64, layers: int = 30, cycle: int = 10, width: int = 512):
        frequencies = 1e-4 ** (torch.arange(64) / 64)
        mixings = [Mixing(channels, 2 ** (layer % cycle)) for layer in range(layers)]
        super().__init__(channels, width, frequencies, mixings)
        self.of_y, self.of_low = conv(1, channels), conv(1, channels)

    def forward(self, y: Tensor, low: Tensor, level: Tensor) -> Tensor:
        """y, low: [B, 1, T]; level: [B], sqrt(abar)."""
        return self.read(silu(self.of_y(y)), silu(self.of_low(low)), level)


class Step(NamedTuple):
    """Of ancestral sampling, from step t of the schedule to the one before (Ho et al. 2020, eq. 6, 7)."""

    level: float  # sqrt(abar_t)
    of_y: float  # y_0 = of_y * y - of_eps * eps
    of_eps: float
    mean_of_start: float  # the mean is mean_of_start * y_0 + mean_of_y * y
    mean_of_y: float
    deviation: float


def ancestral(betas: Sequence[float]) -> list[Step]:
    """Steps t = 0, 1, ... of a schedule, its products in float32; 1e-20 is the least variance."""
    beta = torch.tensor(betas, dtype=torch.float32)
    abar = (1 - beta).cumprod(0)
    before = torch.cat([torch.ones(1), abar[:-1]])
    variance = beta * (1 - before) / (1 - abar)
    columns = (
        abar.sqrt(),
        (1 / abar).sqrt(),
        (1 - abar).sqrt() * (1 / abar).sqrt(),
        beta * before.sqrt() / (1 - abar),
        (1 - before) * (1 - beta).sqrt() / (1 - abar),
        (0.5 * variance.clamp(min=1e-20).log()).exp(),
    )
    return [Step(*row) for row in torch.stack(columns, dim=1).tolist()]


class NuWave(WaveDiffusion):
    """`NuWaveNet` with its options, for one scale.

    Its input is degradation `stft_hard` (n_fft 1024, hop 256, decimate), interpolated. What comes at r times
    the rate that its cut-off needs is decimated first; where r is not whole, it is not.
    """

    defaults: ClassVar = {
        "weights": {"log_l1": 1.0},
        "options": {"channels": 64, "layers": 30, "cycle": 10, "width": 512},
    }

    def __init__(self, weights: Mapping[str, float], optimizer: Mapping, rate: int, **model):
        super().__init__(weights, optimizer, rate)
        self.net = NuWaveNet(**model)
        abar = (1 - torch.linspace(1e-6, 0.006, 1000)).cumprod(0)
        self.register_buffer("levels", torch.cat([torch.ones(1), abar.sqrt()]), persistent=False)

    def example(self, batch: int, samples: int) -> tuple:
        zeros = torch.zeros(batch, 1, samples, device=self.levels.device)
        return zeros, zeros, zeros[:, 0, 0]

    def condition(self, low: Recording, cutoff: Tensor) -> Recording:
        low = low if low.rate <= self.rate else self.raised(low)
        apart, group = samples_apart(low.rate, cutoff).unique(return_inverse=True)
        raised = [interpolated(every(low, step), self.rate) for step in apart.tolist()]
        rows = torch.arange(len(cutoff), device=cutoff.device)

        def read(first: int, count: int) -> Tensor:
            return torch.stack([each.read(first, count) for each in raised])[group, rows]

        return Recording(read, resampled_length(low.samples, low.rate, self.rate), self.rate)

    def noising(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """WaveGrad's: a step by chance, and a level by chance between its and the one before."""
        place = t * (len(self.levels) - 1)
        before = place.long()
        alpha = torch.lerp(self.levels[before], self.levels[before + 1], place - before)
        return alpha, (1 - alpha.square()).sqrt(), alpha

    def predict(self, y: Tensor, low: Tensor, cutoff: Tensor, level: Tensor) -> Tensor:
        return self.net(y, low, level)

    def mean(self, y: Tensor, low: Tensor, step: Step) -> Tensor:
        """Of y a step earlier."""
        eps = self.net(y, low, torch.full_like(y[:, 0, 0], step.level))
        return step.mean_of_start * (step.of_y * y - step.of_eps * eps) + step.mean_of_y * y

    def sample(self, low: Tensor, cutoff: Tensor, drawn: Callable[[int], Tensor]) -> Tensor:
        """Eight steps, without noise in the last."""
        last, *others = ancestral(BETAS)
        y = drawn(0)
        for number, step in enumerate(reversed(others), start=1):
            y = self.mean(y, low, step) + step.deviation * drawn(number)
        return self.mean(y, low, last)
