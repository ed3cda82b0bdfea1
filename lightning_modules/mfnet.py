"""MfNet-like: a network in the spirit of MfNet, which is not public (Hao et al., ICASSP 2020).

X. Hao, C. Xu, N. Hou, L. Xie, E. S. Chng and H. Li, "Time-domain neural network approach for speech bandwidth
extension", ICASSP 2020, pp. 866-870, DOI 10.1109/ICASSP40776.2020.9054551. No layer table, width, kernel,
loss weight, discriminator or code of it could be found, so no number of what is here is MfNet's.

Certain, from its abstract: it works in the time domain; a "multi-scale fusion neural network" exchanges
information across representations of different scales; a perceptual loss and a time-domain adversarial loss
are combined in training; it has about a tenth of the parameters of its time-domain baseline.
Inferred: the suffixes in QISTA-Net-Audio's Table 2, +P for the perceptual loss, +A for the adversarial one
and +C for both; that the baseline is the audio U-Net of Kuleshov et al. 2017.
Ours, all else: parallel scales after HRNet (Sun et al. 2019), AudioEDSR's residual blocks, the input by
spline, L1, features of a network that predicts the log-mel spectrogram, WGAN-GP as in AudioUNetGAN.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from math import log

import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu, pad

from lightning_modules.audioedsr import Critic, Regression, ResidualBlock, content, conv, gradient_penalty
from lightning_modules.ranks import over_ranks
from lightning_modules.stage import AdversarialStage, Stage, uniform
from signals.errors import UserError
from signals.spectra import mel_filters, stft
from signals.types import Pair, Signal

# The network ----------------------------------------------------------------------------------------------


def without_biases(network: nn.Module) -> None:
    """Sets all biases to zero: beside PyTorch's own, speech is so quiet that no activation would bend it."""
    for name, parameter in network.named_parameters():
        if name.endswith("bias"):
            nn.init.zeros_(parameter)


class Raise(nn.Module):
    """[B, C, T] -> [B, C, factor * T], linear between the samples, each of which stays where it is in time.

    Not by `interpolate`, which moves them by half a sample; the last is held.
    """

    def __init__(self, factor: int):
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        after = torch.cat([x[..., 1:], x[..., -1:]], dim=-1)
        place = torch.arange(self.factor, dtype=x.dtype, device=x.device) / self.factor
        return torch.lerp(x[..., None], after[..., None], place).flatten(-2)


def path(source: int, target: int, inputs: int, outputs: int) -> nn.Module:
    """From [B, inputs, T / source] to [B, outputs, T / target], sample 0 upon sample 0."""
    if source < target:
        factor = target // source
        return conv(inputs, outputs, 2 * factor + 1, stride=factor)
    return nn.Sequential(conv(inputs, outputs, 1), Raise(source // target))


class FusionBlock(nn.Module):
    """A residual block at every scale, then each of the first `targets` scales gets the sum of all.

    The others come by strided convolutions to a lower rate and by `Raise` to a higher one (HRNet), times
    `residual_scale`, in place of HRNet's normalisation, which would couple the items of a batch.
    """

    def __init__(
        self,
        scales: Sequence[int],
        channels: Sequence[int],
        kernel: int,
        residual_scale: float,
        targets: int,
    ):
        super().__init__()
        self.residual_scale = residual_scale
        self.branches = nn.ModuleList(ResidualBlock(width, kernel, residual_scale) for width in channels)
        sides = list(zip(scales, channels, strict=True))
        self.paths = nn.ModuleList(
            nn.ModuleDict(
                {
                    str(place): path(source, target, inputs, outputs)
                    for place, (source, inputs) in enumerate(sides)
                    if source != target
                }
            )
            for target, outputs in sides[:targets]
        )

    def forward(self, scales: list[Tensor]) -> list[Tensor]:
        """[B, C, T / scale] of each scale -> the same of the targets."""
        scales = [branch(x) for branch, x in zip(self.branches, scales, strict=True)]
        return [
            x + self.residual_scale * sum(layer(scales[int(place)]) for place, layer in paths.items())
            for x, paths in zip(scales, self.paths, strict=False)  # of fewer targets in the last block
        ]


class MfNet(nn.Module):
    """[B, 1, T] at the full rate -> the same: what parallel scales add to their input.

    Scale s has 1 / s of the rate and its number of `channels`. The scales exchange all they have in every one
    of `blocks` and meet at the full rate in the last. All that is added to something is first multiplied by
    `residual_scale`. Biases begin as zero, and so does the last convolution: an untrained network is the
    identity. As given it has 5,308,241 parameters, about a tenth of an audio U-Net's 56.4 million. Raises
    UserError on scales that do not divide each other.
    """

    def __init__(
        self,
        scales: Sequence[int] = (1, 2, 4, 8),
        channels: Sequence[int] = (16, 32, 64, 128),
        blocks: int = 10,
        kernel: int = 9,
        residual_scale: float = 0.2,
    ):
        super().__init__()
        rising = all(low < high and high % low == 0 for low, high in pairwise(scales))
        if len(scales) != len(channels) or scales[0] != 1 or not rising:
            raise UserError(
                f"scales {list(scales)} with channels {list(channels)}: from 1 on, each scale a multiple of "
                "the one before, and as many channels."
            )
        if kernel % 2 == 0:
            raise UserError(f"kernel={kernel}: an odd number, around a sample, is needed.")
        self.grid = scales[-1]
        self.heads = nn.ModuleList(
            conv(1, width, 2 * scale + 1, stride=scale) for scale, width in zip(scales, channels, strict=True)
        )
        self.blocks = nn.Sequential(
            *(
                FusionBlock(scales, channels, kernel, residual_scale, 1 if last else len(scales))
                for last in [False] * (blocks - 1) + [True]
            )
        )
        self.tail = conv(channels[0], 1, kernel)
        self.residual_scale = residual_scale
        without_biases(self)
        nn.init.zeros_(self.tail.weight)

    def forward(self, wave: Tensor) -> Tensor:
        x = pad(wave, (0, -wave.shape[-1] % self.grid))
        (x,) = self.blocks([head(x) for head in self.heads])
        return wave + self.residual_scale * self.tail(x)[..., : wave.shape[-1]]


# What the perceptual loss hears by ------------------------------------------------------------------------


class MelPredictor(Stage):
    """Predicts the log-mel spectrogram of full-band speech from its samples; its hidden layers are features.

    Strided convolutions, one for each of `channels`, then one to `n_mels` bands from 0 Hz to half of `rate`
    (Hz): a frame every stride ** layers samples. Log-mel: natural logarithm of the mel magnitude (Slaney), of
    `n_fft` samples centred on the frame's first sample, floored at 1e-5. Term `l1`, on `pair.high`.
    """

    floor = 1e-5

    def __init__(
        self,
        weights: Mapping[str, float],
        optimizer: Mapping,
        rate: int,
        channels: Sequence[int] = (32, 64, 128, 256),
        stride: int = 4,
        n_fft: int = 1024,
        n_mels: int = 80,
    ):
        super().__init__(weights, optimizer)
        self.n_fft, self.hop = n_fft, stride ** len(channels)
        self.layers = nn.ModuleList(
            conv(inputs, outputs, 2 * stride + 1, stride) for inputs, outputs in pairwise([1, *channels])
        )
        without_biases(self.layers)
        self.head = conv(channels[-1], n_mels, 3)
        nn.init.constant_(self.head.bias, log(self.floor) / 2)  # between full scale and silence
        filters = mel_filters(rate, n_fft, n_mels, 0, rate / 2)
        self.register_buffer("filters", filters.clone(), persistent=False)
        self.register_buffer("total", torch.zeros(n_mels, dtype=torch.double))  # of all frames trained on
        self.register_buffer("frames", torch.zeros((), dtype=torch.double))

    def example(self, batch: int, samples: int) -> tuple:
        return (torch.zeros(batch, 1, samples, device=self.head.weight.device),)

    def features(self, wave: Tensor) -> list[Tensor]:
        """wave [B, 1, T] -> the hidden layers, [B, C, ceil(T / stride ** layer)]."""
        found = []
        for layer in self.layers:
            wave = leaky_relu(layer(wave), 0.2)
            found.append(wave)
        return found

    def forward(self, wave: Tensor) -> Tensor:
        """wave [B, 1, T] -> its predicted log-mel [B, M, N], N = ceil(T / hop)."""
        return self.head(self.features(wave)[-1])

    def log_mel(self, wave: Tensor) -> Tensor:
        """wave [B, 1, T] -> its log-mel [B, M, N], in float32 under any autocast."""
        with torch.autocast(wave.device.type, enabled=False):
            mel = self.filters @ stft(wave.float(), self.n_fft, self.hop).abs()
        return mel[..., : -(-wave.shape[-1] // self.hop)].clamp(min=self.floor).log()

    def losses(self, pair: Pair) -> dict[str, Tensor]:
        wave = pair.high.wave
        return {"l1": (self(wave) - self.log_mel(wave)).abs().mean()}

    def training_step(self, pair: Pair, batch: int) -> Tensor:
        log_mel = self.log_mel(pair.high.wave)
        self.total += over_ranks(log_mel.double().sum((0, 2)))
        self.frames += over_ranks(torch.full_like(self.frames, log_mel.shape[0] * log_mel.shape[2]))
        return super().training_step(pair, batch)

    def held_out(self, pair: Pair) -> dict[str, Tensor]:
        """Mean absolute error of the log-mel; the constant is its mean over all frames trained on."""
        wave = pair.high.wave
        log_mel, mean = self.log_mel(wave), (self.total / self.frames.clamp(min=1)).float()
        return {
            "model": (self(wave) - log_mel).abs().mean((1, 2)),
            "constant": (mean[:, None] - log_mel).abs().mean((1, 2)),
        }


# Trainings ------------------------------------------------------------------------------------------------


class MfNetLike(Regression):
    """`MfNet` with its options, on the spline-interpolated input: any scale.

    Terms: `l1` or `l2`, whichever has a weight; and `perceptual`, where it is given a trained stage with
    `features` (+P): the mean absolute difference between its layers for the estimate and for the reference,
    mean over layers. That stage is frozen, and saved by its own run only. Raises UserError where `perceptual`
    has a weight and nothing to hear by, and without any weight.
    """

    upsample = "spline"

    def __init__(
        self,
        weights: Mapping[str, float],
        optimizer: Mapping,
        rate: int,
        features: MelPredictor | None = None,
        **model,
    ):
        super().__init__(weights, optimizer, rate)
        if features is None and weights.get("perceptual"):
            raise UserError("perceptual has a weight: give the run `uses: {features: ...}` to hear by.")
        self.net = MfNet(**model)
        self.predictor = features
        if features is not None:
            features.requires_grad_(False)
            self.register_state_dict_post_hook(_without_predictor)
            self.register_load_state_dict_pre_hook(_with_predictor)

    def example(self, batch: int, samples: int) -> tuple:
        return (torch.zeros(batch, 1, samples, device=self.net.tail.weight.device),)

    def resolve(self, low: Signal, cutoff: Tensor, seeds: Tensor, reference: Tensor | None) -> Tensor:
        return self.net(low.wave)

    def perceptual(self, estimate: Tensor, reference: Tensor) -> Tensor:
        ours, theirs = self.predictor.features(estimate), self.predictor.features(reference)
        return torch.stack([(a - b).abs().mean() for a, b in zip(ours, theirs, strict=True)]).mean()

    def terms(self, estimate: Tensor, reference: Tensor) -> dict[str, Tensor]:
        """Of estimate and reference [B, 1, T], all but the critic's opinion."""
        terms = content(estimate, reference, self.weights)
        if self.predictor is not None:
            terms["perceptual"] = self.perceptual(estimate, reference)
        return terms

    def losses(self, pair: Pair) -> dict[str, Tensor]:
        terms = self.terms(self.estimate(pair), pair.high.wave)
        if not any(self.weights.get(name) for name in terms):
            raise UserError(f"{type(self).__name__} needs a weight above 0 for l1, l2 or perceptual.")
        return terms


class MfNetLikeGAN(AdversarialStage, MfNetLike):
    """MfNetLike against the critic of AudioUNetGAN: +A, and with `features` +C.

    Terms besides MfNetLike's, see AudioUNetGAN: `critic`, `penalty` (weight 10) and `adversarial`. critic:
    `channels` and `depth` of `Critic`.
    """

    def __init__(
        self,
        weights: Mapping[str, float],
        optimizer: Mapping,
        rate: int,
        critic: Mapping,
        n_critic: int = 5,
        **rest,
    ):
        super().__init__(weights, optimizer, n_critic, rate=rate, **rest)
        self.critic = Critic(**critic, phase_shuffle=0)

    @property
    def generator(self) -> nn.Module:
        return self.net

    def generate(self, pair: Pair) -> Tensor:
        """x~ [B, 1, T]."""
        return self.estimate(pair)

    def critic_losses(self, pair: Pair, made: Tensor) -> dict[str, Tensor]:
        real, fake = pair.high.wave, made.detach()
        epsilon = uniform(pair.seeds, int(self.batches_seen))  # items may recur, what is drawn must not
        return {
            "critic": self.critic(fake).mean() - self.critic(real).mean(),
            "penalty": gradient_penalty(self.critic, real, fake, epsilon),
        }

    def generator_losses(self, pair: Pair, made: Tensor, adversarial: bool) -> dict[str, Tensor]:
        terms = self.terms(made, pair.high.wave)
        if adversarial:
            terms["adversarial"] = -self.critic(made).mean()
        return terms


# The predictor belongs to its own run, not to this one's checkpoints.
def _without_predictor(module: MfNetLike, state: dict, prefix: str, _: dict) -> None:
    for name in [name for name in state if name.startswith(f"{prefix}predictor.")]:
        del state[name]


def _with_predictor(module: MfNetLike, state: dict, prefix: str, *_) -> None:
    state |= module.predictor.state_dict(prefix=f"{prefix}predictor.")
