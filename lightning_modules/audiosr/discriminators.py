"""What AudioSR's autoencoder and vocoder are trained against, and the adversarial losses.

AudioSR releases no discriminator: these are ours, after the papers it cites.
A discriminator gives a `Judgement`; the losses take lists of them, one for each discriminator, so that
`period(x) + resolution(x)` or `[patch(x)]` is an argument. As in HiFi-GAN (Kong et al. 2020, section 2.4)
losses are means over scores and sums over discriminators.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from lightning_modules.audiosr.frontend import magnitude

Judgement = tuple[Tensor, list[Tensor]]
"""Scores, high for real, and the output of every layer, the scores themselves last."""


class Discriminator(nn.Module):
    """Layers one after the other: the last gives the scores, all of them the features."""

    def __init__(self, *layers: nn.Module):
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def judge(self, x: Tensor) -> Judgement:
        features = []
        for layer in self.layers:
            x = layer(x)
            features.append(x)
        return x, features


def _conv(*args, slope: float, **kwargs) -> nn.Module:
    return nn.Sequential(weight_norm(nn.Conv2d(*args, **kwargs)), nn.LeakyReLU(slope))


class PeriodDiscriminator(Discriminator):
    """Looks at every `period`-th sample (HiFi-GAN, section 2.3); `channels` x (1, 4, 16, 32, 32) wide."""

    def __init__(self, period: int, channels: int = 32):
        widths = [1, channels, 4 * channels, 16 * channels, 32 * channels]
        strided = [_conv(i, o, (5, 1), (3, 1), padding=(2, 0), slope=0.1) for i, o in pairwise(widths)]
        super().__init__(
            *strided,
            _conv(widths[-1], widths[-1], (5, 1), padding=(2, 0), slope=0.1),
            weight_norm(nn.Conv2d(widths[-1], 1, (3, 1), padding=(1, 0))),
        )
        self.period = period

    def forward(self, wave: Tensor) -> Judgement:
        """wave [B, 1, T] -> scores [B, 1, ~T / (81 period), period] and features."""
        wave = F.pad(wave, (0, -wave.shape[-1] % self.period), mode="reflect")
        return self.judge(wave.unflatten(-1, (-1, self.period)))


class MultiPeriodDiscriminator(nn.Module):
    """One `PeriodDiscriminator` for each of `periods`, primes so that they overlap least (HiFi-GAN, 2.3)."""

    def __init__(self, periods: Sequence[int] = (2, 3, 5, 7, 11), channels: int = 32):
        super().__init__()
        self.discriminators = nn.ModuleList(PeriodDiscriminator(p, channels) for p in periods)

    def forward(self, wave: Tensor) -> list[Judgement]:
        """wave [B, 1, T] -> one judgement for each period."""
        return [discriminator(wave) for discriminator in self.discriminators]


class ResolutionDiscriminator(Discriminator):
    """Looks at the linear magnitude spectrogram of one resolution (UnivNet: Jang et al. 2021).

    Strides halve the frames three times and keep the frequency bins.
    """

    def __init__(self, n_fft: int, hop: int, window: int, channels: int = 32):
        strided = [
            _conv(channels, channels, (3, 9), (1, 2), padding=(1, 4), slope=0.2)  # (frequency, time)
            for _ in range(3)
        ]
        super().__init__(
            _conv(1, channels, (3, 9), padding=(1, 4), slope=0.2),
            *strided,
            _conv(channels, channels, 3, padding=1, slope=0.2),
            weight_norm(nn.Conv2d(channels, 1, 3, padding=1)),
        )
        self.resolution = n_fft, hop, window

    def forward(self, wave: Tensor) -> Judgement:
        """wave [B, 1, T] -> scores [B, 1, F, ~N / 8] and features."""
        return self.judge(magnitude(wave, *self.resolution)[:, None])


class MultiResolutionDiscriminator(nn.Module):
    """One `ResolutionDiscriminator` for each (n_fft, hop, window) in samples.

    Resolutions are UnivNet's. AudioSR cites You et al. 2021 ("GAN vocoder: multi-resolution discriminator is
    all you need"), who find that several resolutions are what matters in a vocoder's discriminator.
    """

    def __init__(
        self,
        resolutions: Sequence[tuple[int, int, int]] = ((1024, 120, 600), (2048, 240, 1200), (512, 50, 240)),
        channels: int = 32,
    ):
        super().__init__()
        self.discriminators = nn.ModuleList(ResolutionDiscriminator(*r, channels) for r in resolutions)

    def forward(self, wave: Tensor) -> list[Judgement]:
        """wave [B, 1, T] -> one judgement for each resolution."""
        return [discriminator(wave) for discriminator in self.discriminators]


class PatchDiscriminator(Discriminator):
    """Scores overlapping patches of a log-mel image: PatchGAN (Isola et al. 2017), as in latent diffusion.

    `layers` halvings, the width doubling up to 8 `channels`. GroupNorm where PatchGAN has BatchNorm: batch
    statistics would make several processes differ from one with the same batch.
    """

    def __init__(self, channels: int = 64, layers: int = 3, norm_num_groups: int = 8):
        def block(i: int, o: int, stride: int) -> nn.Module:
            conv = nn.Conv2d(i, o, 4, stride, padding=1, bias=False)
            return nn.Sequential(conv, nn.GroupNorm(norm_num_groups, o), nn.LeakyReLU(0.2))

        widths = [channels * min(2**k, 8) for k in range(layers + 1)]
        strides = [2] * (layers - 1) + [1]
        super().__init__(
            nn.Sequential(nn.Conv2d(1, channels, 4, 2, padding=1), nn.LeakyReLU(0.2)),
            *(block(i, o, s) for i, o, s in zip(widths, widths[1:], strides, strict=False)),
            nn.Conv2d(widths[-1], 1, 4, padding=1),
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.02)  # Isola et al. 2017, section 6.2

    def forward(self, image: Tensor) -> Judgement:
        """log-mel image [B, 1, N, M] -> scores [B, 1, ~N / 2^layers, ~M / 2^layers] and features."""
        return self.judge(image)


def least_squares_critic(real: list[Judgement], fake: list[Judgement]) -> Tensor:
    """Real scores to 1, fake scores to 0 (HiFi-GAN, eq. 1)."""
    return sum((1 - r).square().mean() + f.square().mean() for (r, _), (f, _) in zip(real, fake, strict=True))


def least_squares_generator(fake: list[Judgement]) -> Tensor:
    """Fake scores to 1 (HiFi-GAN, eq. 2)."""
    return sum((1 - f).square().mean() for f, _ in fake)


def hinge_critic(real: list[Judgement], fake: list[Judgement]) -> Tensor:
    """Real scores above 1, fake scores below -1 (Lim and Ye 2017, "Geometric GAN")."""
    return sum(F.relu(1 - r).mean() + F.relu(1 + f).mean() for (r, _), (f, _) in zip(real, fake, strict=True))


def hinge_generator(fake: list[Judgement]) -> Tensor:
    """Fake scores up, without bound."""
    return sum(-f.mean() for f, _ in fake)


def feature_matching(real: list[Judgement], fake: list[Judgement]) -> Tensor:
    """Mean absolute difference of features, summed over layers and discriminators (HiFi-GAN, eq. 4).

    Weightless: HiFi-GAN's factor 2 is the configuration's. The features of the real wave are a target and
    pass no gradient.
    """
    return sum(
        F.l1_loss(f, r.detach())
        for (_, reals), (_, fakes) in zip(real, fake, strict=True)
        for r, f in zip(reals, fakes, strict=True)
    )
