"""Stage 1: the autoencoder whose latents are diffused (Liu et al. 2023, Section 3.2)."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from lightning_modules.audiosr.discriminators import PatchDiscriminator, hinge_critic, hinge_generator
from lightning_modules.audiosr.frontend import LogMel, RunningMean, normalise
from lightning_modules.audiosr.networks import autoencoder
from lightning_modules.audiosr.released import read
from lightning_modules.stage import AdversarialStage, noise
from signals.types import Pair


class Reconstruction(NamedTuple):
    image: Tensor  # [B, 1, N, M] log-mel
    decoded: Tensor  # [B, 1, N, M]
    mean: Tensor  # [B, C, N/8, M/8] of the posterior
    log_variance: Tensor


class VAE(AdversarialStage):
    """log-mel image -> Gaussian latent -> log-mel image.

    The paper trains with "reconstruction loss, KL and adversarial loss, as AudioLDM" and releases neither
    weights of the terms nor the discriminator. Ours: mean absolute error of the log-mel; KL divergence in
    nats for each mel value; hinge loss of a patch discriminator, from batch `critic_from` on.
    """

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
        self.generator = autoencoder(**model)
        self.critic = PatchDiscriminator(**critic)
        self.mean_mel = RunningMean(frontend["n_mels"])

    @classmethod
    def converted(cls, path: Path) -> dict[str, Tensor]:
        """The file has no critic. See `Stage.converted`."""
        return read(path).vae

    def example(self, batch: int, samples: int) -> tuple:
        device = next(self.generator.parameters()).device
        return (torch.zeros(batch, 1, samples // self.log_mel.hop, len(self.log_mel.filters), device=device),)

    def image(self, wave: Tensor) -> Tensor:
        """wave [B, 1, T] -> log-mel [B, 1, N, M]: time is the height."""
        return self.log_mel(wave).mT[:, None]

    def posterior(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """image [B, 1, N, M] -> mean and log-variance, each [B, C, N/8, M/8]."""
        distribution = self.generator.encode(image).latent_dist
        return distribution.mean, distribution.logvar

    def decode(self, latent: Tensor) -> Tensor:
        """latent [B, C, N/8, M/8] -> image [B, 1, N, M]."""
        return self.generator.decode(latent).sample

    def generate(self, pair: Pair) -> Reconstruction:
        wave, _, _ = normalise(pair.high)
        image = self.image(wave)
        mean, log_variance = self.posterior(image)
        # Items may recur (a finite pool of windows), their noise must not: it is salted by the step.
        latent = mean + (0.5 * log_variance).exp() * noise(mean.shape[1:], pair.seeds, int(self.batches_seen))
        return Reconstruction(image, self.decode(latent), mean, log_variance)

    def critic_losses(self, pair: Pair, made: Reconstruction) -> dict[str, Tensor]:
        real, fake = [self.critic(made.image)], [self.critic(made.decoded.detach())]
        return {"critic": hinge_critic(real, fake)}

    def generator_losses(self, pair: Pair, made: Reconstruction, adversarial: bool) -> dict[str, Tensor]:
        kl = 0.5 * (made.mean**2 + made.log_variance.exp() - 1 - made.log_variance)
        terms = {
            "reconstruction": (made.image - made.decoded).abs().mean(),
            "kl": kl.sum() / made.image.numel(),
        }
        if adversarial:
            terms["adversarial"] = hinge_generator([self.critic(made.decoded)])
        return terms

    def training_step(self, pair: Pair, batch: int) -> None:
        self.mean_mel.update(self.log_mel(normalise(pair.high)[0]))
        super().training_step(pair, batch)

    def held_out(self, pair: Pair) -> dict[str, Tensor]:
        """Mean absolute error of the log-mel, from the posterior's mean."""
        image = self.image(normalise(pair.high)[0])
        with torch.no_grad():
            decoded = self.decode(self.posterior(image)[0])
        return {
            "model": (image - decoded).abs().mean(dim=(1, 2, 3)),
            "constant": self.mean_mel.error(image[:, 0].mT),
        }
