"""Stage 2: diffusion of the high-resolution latent, given the low-resolution one (Liu et al. 2023, 3.2)."""

import copy
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from lightning_modules.audiosr.frontend import normalise
from lightning_modules.audiosr.networks import unet
from lightning_modules.audiosr.settings import Settings
from lightning_modules.audiosr.vae import VAE
from lightning_modules.stage import Stage, noise, uniform
from signals.types import Pair

STEPS = 1000  # T, diffusion steps in training


def cosine_betas(steps: int = STEPS, s: float = 0.008) -> np.ndarray:
    """beta_1 ... beta_T [T] in float64 of the cosine schedule (Nichol and Dhariwal 2021, eq. 17).

    Without their cap at 0.999, so beta_T = 1: the terminal signal-to-noise ratio is zero (Lin et al. 2023).
    """
    abar = np.cos((np.arange(steps + 1) / steps + s) / (1 + s) * np.pi / 2) ** 2
    betas = 1 - abar[1:] / abar[:-1]
    betas[-1] = 1.0
    return betas


class LatentDiffusion(Stage):
    """v-prediction on the scaled latent, the low-resolution latent concatenated.

    With abar from the schedule, z_t = sqrt(abar) z_0 + sqrt(1 - abar) eps and v = sqrt(abar) eps -
    sqrt(1 - abar) z_0 (Salimans and Ho 2022); loss: mean squared error of v, t uniform.
    The condition is dropped for one item in ten (the released code: for one batch in ten). Latents are scaled
    to unit variance by one number, from the first `scale_batches` batches over all processes.
    """

    def __init__(
        self,
        weights: Mapping[str, float],
        optimizer: Mapping,
        model: Mapping,
        settings: Mapping,
        vae: VAE,
        drop: float,
        ema_decay: float,
        scale_batches: int,
        cache_latents: bool,
    ):
        super().__init__(weights, optimizer)
        self.settings = Settings.of(**settings)
        self.vae = vae.eval().requires_grad_(False)
        self.unet = unet(**model)
        self.averaged = copy.deepcopy(self.unet).requires_grad_(False)  # exponential moving average
        self.drop, self.ema_decay, self.scale_batches = drop, ema_decay, scale_batches
        self.cache: dict[int, Tensor] | None = {} if cache_latents else None
        abar = np.cumprod(1 - cosine_betas())
        self.register_buffer("abar", torch.tensor(abar, dtype=torch.float32), persistent=False)
        self.register_buffer("latent_squares", torch.zeros((), dtype=torch.float64))
        self.register_buffer("latent_sum", torch.zeros((), dtype=torch.float64))
        self.register_buffer("latent_count", torch.zeros((), dtype=torch.float64))

    # Latents ----------------------------------------------------------------------------------------------

    @property
    def scale(self) -> Tensor:
        """1 / standard deviation of the first latents (1 before any was seen)."""
        count = self.latent_count.clamp(min=2)
        variance = (self.latent_squares - self.latent_sum**2 / count) / (count - 1)
        return torch.where(self.latent_count > 0, variance.clamp(min=1e-12).rsqrt(), 1.0).float()

    def _measure_scale(self, latent: Tensor) -> None:
        sums = torch.stack([latent.square().sum(), latent.sum(), torch.tensor(latent.numel(), device=latent.device)])
        sums = self.all_gather(sums.double()).reshape(-1, 3).sum(dim=0)
        self.latent_squares += sums[0]
        self.latent_sum += sums[1]
        self.latent_count += sums[2]

    @torch.no_grad()
    def posteriors(self, pair: Pair) -> Tensor:
        """[B, 4, C, N/8, M/8]: mean and log-variance of the full-band latent, then of the low-resolution one.

        Both waves get the gain that normalises the low one, which is all that is known in use.
        """
        low, mean, gain = normalise(pair.low.wave)
        both = self.vae.image(torch.cat([(pair.high.wave - mean) * gain, low]))
        moments = torch.stack(self.vae.posterior(both), dim=1)
        return torch.cat(moments.chunk(2), dim=1)

    def cached_posteriors(self, pair: Pair) -> Tensor:
        """`posteriors`, encoded once for each item where latents are cached (their windows must recur)."""
        if self.cache is None or not self.training:
            return self.posteriors(pair)
        seeds = pair.seeds.tolist()
        if any(seed not in self.cache for seed in seeds):
            self.cache.update(zip(seeds, self.posteriors(pair).half().cpu(), strict=True))
        return torch.stack([self.cache[seed] for seed in seeds]).to(self.device, torch.float32)

    def condition(self, mean: Tensor, log_variance: Tensor, seeds: Tensor, salt: int = 0) -> Tensor:
        """Scaled low-resolution latent: sampled, or the mode, as the settings say."""
        if self.settings.sample_condition:
            mean = mean + (0.5 * log_variance).exp() * noise(mean.shape[1:], seeds, salt)
        return self.scale * mean

    @property
    def null(self) -> Tensor:
        """What stands in for a dropped condition."""
        return self.scale * self.settings.null_condition

    # Training ---------------------------------------------------------------------------------------------

    def velocity(self, z: Tensor, t: Tensor, condition: Tensor, averaged: bool = False) -> Tensor:
        """v [B, C, N/8, M/8] at steps t [B]."""
        net = self.averaged if averaged else self.unet
        return net(torch.cat([z, condition], dim=1), t, encoder_hidden_states=None).sample

    def noised(self, z0: Tensor, eps: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """z_t and v at steps t [B]."""
        abar = self.abar[t].view(-1, 1, 1, 1)
        return abar.sqrt() * z0 + (1 - abar).sqrt() * eps, abar.sqrt() * eps - (1 - abar).sqrt() * z0

    def errors(self, posteriors: Tensor, seeds: Tensor, salt: int, drop: float) -> tuple[Tensor, Tensor]:
        """v and its error, each [B, C, N/8, M/8], with step, noise and dropped condition from the seeds."""
        mean, log_variance, low_mean, low_log_variance = posteriors.unbind(dim=1)
        z0 = self.scale * (mean + (0.5 * log_variance).exp() * noise(mean.shape[1:], seeds, salt))
        condition = self.condition(low_mean, low_log_variance, seeds, salt + 1)
        dropped = uniform(seeds, salt + 2) < drop
        condition = torch.where(dropped.view(-1, 1, 1, 1), self.null, condition)
        t = (uniform(seeds, salt + 3) * STEPS).long()
        z_t, v = self.noised(z0, noise(z0.shape[1:], seeds, salt + 4), t)
        return v, v - self.velocity(z_t, t, condition, averaged=not self.training)

    def losses(self, pair: Pair) -> dict[str, Tensor]:
        posteriors = self.cached_posteriors(pair)
        if self.training and self.batches_seen < self.scale_batches:
            self._measure_scale(posteriors[:, 0])
        # Items may recur (a finite pool of windows), their noise must not: it is salted by the step.
        _, error = self.errors(posteriors, pair.seeds, 8 * int(self.batches_seen), self.drop)
        return {"v": error.square().mean()}

    def held_out(self, pair: Pair) -> dict[str, Tensor]:
        """Mean squared error of v by the averaged network; the constant is v = 0."""
        v, error = self.errors(self.posteriors(pair), pair.seeds, 0, drop=0)
        return {"model": error.square().mean(dim=(1, 2, 3)), "constant": v.square().mean(dim=(1, 2, 3))}

    def train(self, mode: bool = True) -> "LatentDiffusion":
        super().train(mode)
        self.vae.eval()  # frozen
        return self

    def on_train_batch_end(self, outputs, batch, batch_idx) -> None:
        """The moving average, with the released warm-up of its decay."""
        n = int(self.batches_seen)
        decay = min(self.ema_decay, (1 + n) / (10 + n))
        with torch.no_grad():
            for mean, new in zip(self.averaged.parameters(), self.unet.parameters(), strict=True):
                mean.lerp_(new, 1 - decay)

    # The frozen autoencoder belongs to its own run, not to this one's checkpoints.
    def on_save_checkpoint(self, checkpoint: dict) -> None:
        state = checkpoint["state_dict"]
        checkpoint["state_dict"] = {name: t for name, t in state.items() if not name.startswith("vae.")}

    def on_load_checkpoint(self, checkpoint: dict) -> None:
        checkpoint["state_dict"] |= {f"vae.{name}": t for name, t in self.vae.state_dict().items()}

    # Sampling ---------------------------------------------------------------------------------------------

    @torch.no_grad()
    def sample(self, low_mean: Tensor, low_log_variance: Tensor, seeds: Tensor) -> Tensor:
        """The full-band latent [B, C, N/8, M/8], unscaled, for the posterior of a low-resolution one.

        DDIM (Song et al. 2021, eq. 12) with classifier-free guidance on v, both branches in one batch.
        """
        s = self.settings
        condition = self.condition(low_mean, low_log_variance, seeds, salt=1)
        null = torch.zeros_like(condition) + self.null
        scheduler = ddim(s)
        scheduler.set_timesteps(s.steps, device=condition.device)
        z = noise(condition.shape[1:], seeds, salt=2)
        for number, t in enumerate(scheduler.timesteps):
            steps = t.expand(2 * len(z))
            both = self.velocity(torch.cat([z, z]), steps, torch.cat([condition, null]), averaged=s.average)
            v = guided(*both.chunk(2), s.guidance, s.rescale)
            drawn = noise(z.shape[1:], seeds, salt=3 + number) if s.eta > 0 else None
            z = scheduler.step(v, t, z, eta=s.eta, variance_noise=drawn).prev_sample
        return z / self.scale


def guided(conditional: Tensor, unconditional: Tensor, guidance: float, rescale: float) -> Tensor:
    """Classifier-free guidance (Ho and Salimans 2022), its deviation pulled back (Lin et al. 2023, eq. 15-16)."""
    v = unconditional + guidance * (conditional - unconditional)
    axes = (1, 2, 3)
    matched = v * conditional.std(dim=axes, keepdim=True) / v.std(dim=axes, keepdim=True).clamp(min=1e-8)
    return rescale * matched + (1 - rescale) * v


def ddim(settings: Settings):
    """diffusers' DDIM scheduler on our schedule, spaced as the settings say."""
    from diffusers import DDIMScheduler

    return DDIMScheduler(
        num_train_timesteps=STEPS,
        trained_betas=cosine_betas(),
        prediction_type="v_prediction",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1 if settings.spacing == "leading" else 0,
        timestep_spacing=settings.spacing,
    )
