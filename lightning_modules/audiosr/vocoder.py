"""Stage 3: HiFi-GAN from log-mel to wave, with multi-period and multi-resolution discriminators."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from lightning_modules.audiosr import discriminators as adversary
from lightning_modules.audiosr.frontend import LogMel, RunningMean, normalise
from lightning_modules.audiosr.networks import HiFiGAN
from lightning_modules.audiosr.released import read
from lightning_modules.stage import AdversarialStage
from signals.types import Pair


class Wave(NamedTuple):
    real: Tensor  # [B, 1, T]
    fake: Tensor  # [B, 1, T]
    log_mel: Tensor  # [B, M, N] of the real one


class Critic(nn.Module):
    """Multi-period (HiFi-GAN) and multi-resolution discriminators, as the paper adds them (Section 3.3)."""

    def __init__(self, period: Mapping, resolution: Mapping):
        super().__init__()
        self.period = adversary.MultiPeriodDiscriminator(**period)
        self.resolution = adversary.MultiResolutionDiscriminator(**resolution)

    def forward(self, wave: Tensor) -> list[adversary.Judgement]:
        return self.period(wave) + self.resolution(wave)


class Vocoder(AdversarialStage):
    """HiFi-GAN's losses (Kong et al. 2020, eq. 1 to 6): least squares, feature matching, mel."""

    def __init__(
        self,
        weights: Mapping[str, float],
        optimizer: Mapping,
        model: Mapping,
        critic: Mapping,
        frontend: Mapping,
        critic_from: int,
    ):
        super().__init__(weights, optimizer, critic_from=critic_from)
        self.log_mel = LogMel(**frontend)
        self.generator = HiFiGAN(n_mels=frontend["n_mels"], **model)
        self.critic = Critic(**critic)
        self.mean_mel = RunningMean(frontend["n_mels"])

    @classmethod
    def converted(cls, path: Path) -> dict[str, Tensor]:
        """The file has no critic. See `Stage.converted`."""
        return read(path).vocoder

    def example(self, batch: int, samples: int) -> tuple:
        device = next(self.generator.parameters()).device
        return (torch.zeros(batch, len(self.log_mel.filters), samples // self.log_mel.hop, device=device),)

    def forward(self, log_mel: Tensor) -> Tensor:
        """log-mel [B, M, N] -> wave [B, 1, 480 N]."""
        return self.generator(log_mel)

    def generate(self, pair: Pair) -> Wave:
        real, _, _ = normalise(pair.high)
        log_mel = self.log_mel(real)
        return Wave(real, self.generator(log_mel), log_mel)

    def critic_losses(self, pair: Pair, made: Wave) -> dict[str, Tensor]:
        real, fake = self.critic(made.real), self.critic(made.fake.detach())
        return {"critic": adversary.least_squares_critic(real, fake)}

    def generator_losses(self, pair: Pair, made: Wave, adversarial: bool) -> dict[str, Tensor]:
        terms = {"mel": (self.log_mel(made.fake) - made.log_mel).abs().mean()}
        if adversarial:
            with torch.no_grad():
                real = self.critic(made.real)
            fake = self.critic(made.fake)
            terms["adversarial"] = adversary.least_squares_generator(fake)
            terms["feature_matching"] = adversary.feature_matching(real, fake)
        return terms

    def training_step(self, pair: Pair, batch: int) -> None:
        self.mean_mel.update(self.log_mel(normalise(pair.high)[0]))
        super().training_step(pair, batch)

    def held_out(self, pair: Pair) -> dict[str, Tensor]:
        """Mean absolute error of the log-mel of what comes out."""
        log_mel = self.log_mel(normalise(pair.high)[0])
        with torch.no_grad():
            again = self.log_mel(self.generator(log_mel))
        return {"model": (again - log_mel).abs().mean(dim=(1, 2)), "constant": self.mean_mel.error(log_mel)}
