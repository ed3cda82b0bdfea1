"""AudioEDSR, AudioUNet and AudioUNetGAN (King, Viñas Torné, Campbell and Liò 2021, arXiv:2109.14994).

Networks as in the paper and, where it is silent, as in the authors' code, whose parameter counts are those of
Table 4. Their weights are initialised as there: Xavier normal, PyTorch's own biases.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu, pad

from lightning_modules.ranks import over_ranks
from lightning_modules.single_stage import SingleStage
from lightning_modules.stage import AdversarialStage, uniform
from lightning_modules.super_resolver import raise_rate
from signals.errors import UserError
from signals.types import Pair, Signal

# What the layers are made of ------------------------------------------------------------------------------


def conv(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Conv1d:
    """A convolution with zeros around, [B, inputs, T] -> [B, outputs, ceil(T / stride)]. `kernel` is odd."""
    layer = nn.Conv1d(inputs, outputs, kernel, stride, padding=kernel // 2)
    nn.init.xavier_normal_(layer.weight)
    return layer


class PixelShuffle(nn.Module):
    """[B, factor * C, T] -> [B, C, factor * T]: out[b, c, factor * t + j] = in[b, factor * c + j, t]."""

    def __init__(self, factor: int = 2):
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return x.unflatten(1, (-1, self.factor)).mT.flatten(2)


@torch.no_grad()
def before_shuffle(inputs: int, outputs: int, kernel: int, icnr: bool) -> nn.Conv1d:
    """The convolution before a shuffle by 2.

    icnr: weights and biases begin equal in both sub-phases, so that an untrained network has no tone at the
    shuffle's frequencies (Aitken et al. 2017; Figure 5).
    """
    layer = conv(inputs, outputs, kernel)
    if icnr:
        layer.weight[1::2], layer.bias[1::2] = layer.weight[::2], layer.bias[::2]
    return layer


def phase_shuffle(x: Tensor, shifts: Tensor) -> Tensor:
    """[B, C, T] moved by `shifts` [B] samples, later where positive, reflected at its ends.

    WaveGAN (Donahue et al. 2019, Section 3.3).
    """
    last = max(1, x.shape[-1] - 1)
    t = (torch.arange(x.shape[-1], device=x.device) - shifts[:, None]) % (2 * last)
    source = torch.minimum(t, 2 * last - t).clamp(max=x.shape[-1] - 1)
    return x.gather(-1, source[:, None].expand_as(x))


def draw_shifts(reach: int, layers: int, seeds: Tensor, salt: int) -> Tensor | None:
    """For every layer and item a whole number from -reach to reach, [layers, B]; None where reach is 0."""
    if reach == 0:
        return None
    return (uniform(seeds, salt, (layers,)).T * (2 * reach + 1)).long() - reach


# Networks -------------------------------------------------------------------------------------------------


class Offset(nn.Module):
    """A network whose signals lie around `offset`, which is added before it and subtracted after.

    clamp: nothing comes out below -offset (a final ReLU). The authors add 1 and clamp; as convolutions pad
    with zeros, their signals step by 1 at both ends. Raises UserError on a clamp without an offset, which
    would leave the positive half-waves alone.
    """

    def __init__(self, offset: float = 0.0, clamp: bool = False):
        super().__init__()
        if clamp and offset <= 0:
            raise UserError("clamp cuts all that is below -offset: set an offset above 0, such as 1.")
        self.offset, self.clamp = offset, clamp

    def core(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def forward(self, wave: Tensor, *shifts: Tensor | None) -> Tensor:
        out = self.core(wave + self.offset, *shifts)
        return (out.relu() if self.clamp else out) - self.offset


class ResidualBlock(nn.Module):
    """x + scale * f(x), without normalisation (EDSR, Lim et al. 2017); LeakyReLU, where EDSR has ReLU."""

    def __init__(self, channels: int, kernel: int, scale: float):
        super().__init__()
        self.scale = scale
        self.body = nn.Sequential(
            conv(channels, channels, kernel), nn.LeakyReLU(0.2), conv(channels, channels, kernel)
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.scale * self.body(x)


class EDSR(Offset):
    """[B, 1, T] -> [B, 1, scale * T]: all depth is at the low rate, then shuffles by 2 (Section 3).

    block_kernel: of the residual blocks. Theirs is 9 by an oversight in the code (the kernel is not passed
    on), with 3 elsewhere; the published count fits no other reading. Raises UserError on a `scale` that is
    not a power of two.
    """

    def __init__(
        self,
        scale: int,
        channels: int = 128,
        blocks: int = 32,
        kernel: int = 3,
        block_kernel: int = 9,
        residual_scale: float = 0.1,
        icnr: bool = False,
        offset: float = 0.0,
        clamp: bool = False,
    ):
        super().__init__(offset, clamp)
        shuffles = scale.bit_length() - 1
        if scale < 2 or scale != 2**shuffles:
            raise UserError(
                f"AudioEDSR raises the rate by powers of two (Table 1), not by {scale}: "
                "set a scale of 2 or 4, or take AudioUNet."
            )
        self.head = conv(1, channels, kernel)
        body = [ResidualBlock(channels, block_kernel, residual_scale) for _ in range(blocks)]
        self.body = nn.Sequential(*body, conv(channels, channels, kernel))
        self.up = nn.Sequential()
        for _ in range(shuffles):
            layer = before_shuffle(channels, 2 * channels, kernel, icnr)
            self.up.extend([layer, PixelShuffle(), nn.LeakyReLU(0.2)])
        self.tail = conv(channels, 1, kernel)

    def core(self, x: Tensor) -> Tensor:
        x = self.head(x)
        return self.tail(self.up(x + self.body(x)))


class UNet(Offset):
    """[B, 1, T] at the full rate -> the same: the audio U-Net of Kuleshov et al. 2017, without normalisation.

    A convolution of stride 2 for each of `channels` with its kernel, one more as bottleneck, and back by
    shuffles of 2, each joined by what came from the way down, which is continued with zeros where it is
    shorter; what comes out is cropped to T (the paper's footnote crops throughout).

    dropout: before every activation. skip: the input is added to the output. phase_shuffle: reach in samples
    of the shifts before each pixel shuffle, in use as in training: the authors' way (Figure 5). It moves the
    output against the input; WaveGAN's own is the critic's. `shifts` [layers, B] are drawn by the stage.
    """

    def __init__(
        self,
        channels: Sequence[int] = (128, 256, 512, 512),
        kernels: Sequence[int] = (65, 33, 17, 9),
        dropout: float = 0.5,
        skip: bool = True,
        icnr: bool = False,
        phase_shuffle: int = 0,
        offset: float = 0.0,
        clamp: bool = False,
    ):
        super().__init__(offset, clamp)
        self.skip, self.phase_shuffle, self.layers = skip, phase_shuffle, len(channels) + 1
        self.dropout, self.shuffle = nn.Dropout(dropout), PixelShuffle()
        self.down = nn.ModuleList(
            conv(inputs, outputs, kernel, 2)
            for (inputs, outputs), kernel in zip(pairwise([1, *channels]), kernels, strict=True)
        )
        self.bottleneck = conv(channels[-1], channels[-1], kernels[-1], 2)
        self.up, inputs = nn.ModuleList(), channels[-1]
        for outputs, kernel in zip(reversed(channels), reversed(kernels), strict=True):
            self.up.append(before_shuffle(inputs, 2 * outputs, kernel, icnr))
            inputs = 2 * outputs  # shuffled to half of these, and as many from the way down
        self.final = before_shuffle(inputs, 2, 9, icnr)

    def core(self, x: Tensor, shifts: Tensor | None = None) -> Tensor:
        wave, passed = x, []
        for layer in self.down:
            x = leaky_relu(self.dropout(layer(x)), 0.2)
            passed.append(x)
        x = leaky_relu(self.dropout(self.bottleneck(x)), 0.2)
        for place, layer in enumerate(self.up):
            x = self.raised(self.dropout(layer(x)).relu(), shifts, place)
            across = passed.pop()
            x = torch.cat([x, pad(across, (0, x.shape[-1] - across.shape[-1]))], dim=1)
        x = self.raised(self.final(x), shifts, len(self.up))[..., : wave.shape[-1]]
        return x + wave if self.skip else x

    def raised(self, x: Tensor, shifts: Tensor | None, place: int) -> Tensor:
        """[B, 2C, T] -> [B, C, 2T]."""
        return self.shuffle(x if shifts is None else phase_shuffle(x, shifts[place]))


class Critic(nn.Module):
    """[B, 1, T] -> scores [B], without normalisation, which would couple the items of a batch.

    Pairs of convolutions, the second of stride 2, `depth` pairs from `channels` on, twice as many with each;
    the mean over time; two dense layers. The authors' is 8 channels, depth 8 (8,396,617 parameters); SRGAN's
    (Ledig et al. 2017) in one dimension, without batch normalisation and sigmoid, is 64 channels, depth 4.

    phase_shuffle: reach in samples of the shifts after every activation of a convolution but the last
    (WaveGAN; its own reach is 2). `shifts` [layers, B] are drawn by the stage.
    """

    def __init__(self, channels: int = 8, depth: int = 8, phase_shuffle: int = 0):
        super().__init__()
        self.phase_shuffle, self.layers = phase_shuffle, 2 * depth - 1
        widths = [channels * 2 ** (layer // 2) for layer in range(2 * depth)]
        self.convs = nn.ModuleList(
            conv(inputs, outputs, 3, stride=1 + layer % 2)
            for layer, (inputs, outputs) in enumerate(pairwise([1, *widths]))
        )
        self.hidden, self.score = nn.Linear(widths[-1], 2 * widths[-1]), nn.Linear(2 * widths[-1], 1)
        for layer in (self.hidden, self.score):
            nn.init.xavier_normal_(layer.weight)

    def forward(self, wave: Tensor, shifts: Tensor | None = None) -> Tensor:
        x = wave
        for place, layer in enumerate(self.convs):
            x = leaky_relu(layer(x), 0.2)
            if shifts is not None and place < self.layers:
                x = phase_shuffle(x, shifts[place])
        return self.score(leaky_relu(self.hidden(x.mean(-1)), 0.2))[:, 0].float()


# Losses ---------------------------------------------------------------------------------------------------


def content(estimate: Tensor, reference: Tensor, weights: Mapping[str, float]) -> dict[str, Tensor]:
    """Mean absolute (`l1`) and mean squared error (`l2`) of [B, 1, T], whichever has a weight (Table 2)."""
    error = estimate - reference
    terms = {"l1": error.abs().mean(), "l2": error.square().mean()}
    return {name: term for name, term in terms.items() if weights.get(name)}


def gradient_penalty(
    critic: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor, epsilon: Tensor
) -> Tensor:
    """E[(||grad D(x^)||_2 - 1)^2] at x^ = epsilon x + (1 - epsilon) x~ (Gulrajani et al. 2017, eq. 3).

    real, fake: [B, 1, T]. epsilon: [B]. The norm is over all samples of an item. In float32 whatever the
    precision: what is differentiated twice has none to spare.
    """
    with torch.autocast(real.device.type, enabled=False):
        between = real.float().lerp(fake.detach().float(), 1 - epsilon[:, None, None]).requires_grad_()
        (gradient,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
        return (gradient.flatten(1).norm(dim=1) - 1).square().mean()


# Trainings ------------------------------------------------------------------------------------------------

GENERATOR, CRITIC, EPSILON, ADVERSARIAL = range(4)  # what is drawn from an item's seed for a batch


class Regression(SingleStage):
    """A network that is trained by `l1` or `l2`, by their weights (Algorithms 1 and 2; Table 2)."""

    net: nn.Module

    @property
    def network(self) -> nn.Module:
        return self.net

    def estimate(self, pair: Pair) -> Tensor:
        """[B, 1, T], as long as the reference."""
        estimate = self.resolve(self.heard(pair), pair.cutoff, pair.seeds, None)
        return estimate[..., : pair.high.wave.shape[-1]]

    def losses(self, pair: Pair) -> dict[str, Tensor]:
        """Raises UserError where neither has a weight."""
        terms = content(self.estimate(pair), pair.high.wave, self.weights)
        if not terms:
            raise UserError(f"{type(self).__name__} needs a weight above 0 for l1 or l2.")
        return terms


class PostUpsampling(Regression):
    """A network that raises the rate itself, by `scale` (the paper's "post-upsampling")."""

    upsample = "none"

    def __init__(self, scale: int, net: nn.Module, **base):
        super().__init__(**base)
        if self.rate % scale:
            raise UserError(f"{self.rate} Hz is no multiple of the scale {scale}: set another data.rate.")
        self.scale, self.net = scale, net

    def example(self, batch: int, samples: int) -> tuple:
        device = next(self.net.parameters()).device
        return (torch.zeros(batch, 1, samples // self.scale, device=device),)

    def resolve(self, low: Signal, cutoff: Tensor, seeds: Tensor, reference: Tensor | None) -> Tensor:
        """What comes at another rate than `rate` / `scale` is first brought there."""
        wave = raise_rate(low, self.rate // self.scale, "polyphase").wave
        return self.net(wave)[..., : -(-low.wave.shape[-1] * self.rate // low.rate)]

    def estimate(self, pair: Pair) -> Tensor:
        if pair.low.rate * self.scale != self.rate:
            raise UserError(
                f"{type(self).__name__} of scale {self.scale} learns from {self.rate // self.scale} Hz, not "
                f"from {pair.low.rate} Hz: set its scale to {self.rate / pair.low.rate:g}."
            )
        return super().estimate(pair)


class AudioEDSR(PostUpsampling):
    """`EDSR` with its options, on the low-resolution samples. Raises UserError on a scale it cannot have."""

    def __init__(self, weights: Mapping[str, float], optimizer: Mapping, rate: int, scale: int, **model):
        super().__init__(scale, EDSR(scale, **model), weights=weights, optimizer=optimizer, rate=rate)


class AudioUNet(Regression):
    """`UNet` with its options, on the spline-interpolated input ("pre-upsampling"): any scale."""

    upsample = "spline"

    def __init__(self, weights: Mapping[str, float], optimizer: Mapping, rate: int, **model):
        super().__init__(weights, optimizer, rate)
        self.net = UNet(**model)

    def example(self, batch: int, samples: int) -> tuple:
        return (torch.zeros(batch, 1, samples, device=next(self.net.parameters()).device),)

    def salt(self, draw: int) -> int:
        """In training another for every draw of every batch; in use, what is drawn follows from the seeds."""
        return 4 * int(self.batches_seen) + draw if self.training else draw

    def resolve(self, low: Signal, cutoff: Tensor, seeds: Tensor, reference: Tensor | None) -> Tensor:
        shifts = draw_shifts(self.net.phase_shuffle, self.net.layers, seeds, self.salt(GENERATOR))
        return self.net(low.wave, shifts)


class AudioUNetGAN(AdversarialStage, AudioUNet):
    """AudioUNet against a critic: WGAN-GP (Algorithm 3), as Gulrajani et al. 2017 define it.

    Terms: `critic`, E[D(x~)] - E[D(x)]; `penalty`, see `gradient_penalty` (weight 10); `adversarial`,
    -E[D(x~)]; and `l1` or `l2`, if they have a weight. The printed objective of the generator is
    {adversarial: 1}, the code's is {l1: 1, adversarial: 0.001}.

    What Algorithm 3 prints otherwise: the penalty lacks its square, with which the best critic is a constant;
    the real term is D without an argument; alpha is listed twice; epsilon is never drawn. (Algorithms 1 and 2
    take the gradient by phi, the critic's weights, where theirs is by theta.) critic: options of `Critic`.

    `train/gradient_<term>`: how strongly each weighted term of the generator pulls at its estimate, the norm
    of the gradient by the samples of one item, mean over items. (That of l1 is 1 / sqrt(T).)
    """

    def __init__(
        self,
        weights: Mapping[str, float],
        optimizer: Mapping,
        rate: int,
        critic: Mapping,
        n_critic: int = 5,
        **model,
    ):
        super().__init__(weights, optimizer, n_critic, rate=rate, **model)
        self.critic = Critic(**critic)

    @property
    def generator(self) -> nn.Module:
        return self.net

    def generate(self, pair: Pair) -> Tensor:
        """x~ [B, 1, T]."""
        return self.estimate(pair)

    def critic_shifts(self, pair: Pair, draw: int, calls: int) -> Sequence[Tensor | None]:
        """[layers, B] for each of so many calls of the critic."""
        layers = self.critic.layers
        shifts = draw_shifts(self.critic.phase_shuffle, calls * layers, pair.seeds, self.salt(draw))
        return [None] * calls if shifts is None else shifts.split(layers)

    def critic_losses(self, pair: Pair, made: Tensor) -> dict[str, Tensor]:
        real, fake = pair.high.wave, made.detach()
        of_real, of_fake, between = self.critic_shifts(pair, CRITIC, 3)
        epsilon = uniform(pair.seeds, self.salt(EPSILON))
        return {
            "critic": self.critic(fake, of_fake).mean() - self.critic(real, of_real).mean(),
            "penalty": gradient_penalty(lambda wave: self.critic(wave, between), real, fake, epsilon),
        }

    def generator_losses(self, pair: Pair, made: Tensor, adversarial: bool) -> dict[str, Tensor]:
        terms = content(made, pair.high.wave, self.weights)
        if adversarial:
            (shifts,) = self.critic_shifts(pair, ADVERSARIAL, 1)
            terms["adversarial"] = -self.critic(made, shifts).mean()
        if made.requires_grad:
            self.log_dict({f"train/gradient_{name}": self.pull(name, terms[name], made) for name in terms})
        return terms

    def pull(self, name: str, term: Tensor, estimate: Tensor) -> Tensor:
        (gradient,) = torch.autograd.grad(self.weights[name] * term, estimate, retain_graph=True)
        return len(gradient) * gradient.flatten(1).norm(dim=1).mean()  # the term is a mean over items


class LinearEqualiser(PostUpsampling):
    """For scale, not the paper's: one linear filter per output phase, on the low-resolution samples.

    Its `taps` lie around the sample (odd), so it can undo a causal filter's delay, which is most of what the
    published systems gain over splines. They are the least-squares solution over all windows seen, by the
    normal equations in double precision, without a gradient: `weights` is {l2: 1}, of `optimizer` nothing is
    used. ridge: added to the diagonal, in units of the input's power. Samples whose taps reach beyond their
    window are not learnt from. Raises UserError on even taps, and on windows that are shorter than these.
    """

    def __init__(
        self,
        weights: Mapping[str, float],
        optimizer: Mapping,
        rate: int,
        scale: int,
        taps: int = 97,
        ridge: float = 1e-6,
    ):
        if taps % 2 == 0:
            raise UserError(f"taps lie around a sample: an odd number of them, not {taps}.")
        filters = nn.Conv1d(1, scale, taps, padding=taps // 2, bias=False)
        nn.init.zeros_(filters.weight)
        net = nn.Sequential(filters, PixelShuffle(scale))
        super().__init__(scale, net, weights=weights, optimizer=optimizer, rate=rate)
        self.automatic_optimization = False
        self.taps, self.ridge = taps, ridge
        self.register_buffer("auto", torch.zeros(taps, taps, dtype=torch.double))  # correlations
        self.register_buffer("cross", torch.zeros(taps, scale, dtype=torch.double))

    @torch.no_grad()
    def training_step(self, pair: Pair, _: int) -> None:
        self.weigh(self.losses(pair))  # logged: the error on windows not seen yet
        for total, batch in zip((self.auto, self.cross), self.correlations(pair), strict=True):
            total += over_ranks(batch)
        self.net[0].weight.copy_(self.solution().T[:, None])
        self.batches_seen += 1

    def correlations(self, pair: Pair) -> tuple[Tensor, Tensor]:
        """Of the inputs around each sample among themselves [K, K], and with its output phases [K, scale]."""
        low, reach = pair.low.wave[:, 0].double(), self.taps // 2
        samples = pair.high.wave.shape[-1] // self.scale
        if samples < self.taps:
            raise UserError(
                f"windows of {samples} low-rate samples for {self.taps} taps: set data.window higher."
            )
        high = pair.high.wave[:, 0, : samples * self.scale].double().unflatten(-1, (samples, self.scale))
        around = low[:, :samples].unfold(-1, self.taps, 1).flatten(0, 1)  # [B * (T - K + 1), K]
        phases = high[:, reach : samples - reach].flatten(0, 1)  # [B * (T - K + 1), scale]
        return around.mT @ around, around.mT @ phases

    def solution(self) -> Tensor:
        """[K, scale]; zero as long as all was silence."""
        power = self.auto.diagonal().mean().clamp(min=1e-30)
        ridge = self.ridge * power * torch.eye(self.taps, dtype=torch.double, device=self.auto.device)
        return torch.linalg.solve(self.auto + ridge, self.cross)

    def configure_optimizers(self) -> list:
        return []
