"""Stage 2: diffusion of the high-resolution latent, given the low-resolution one (Liu et al. 2023, 3.2)."""

import copy
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lightning_modules.audiosr.frontend import normalise
from lightning_modules.audiosr.networks import unet
from lightning_modules.audiosr.released import read
from lightning_modules.audiosr.settings import STEPS, Settings
from lightning_modules.audiosr.vae import VAE
from lightning_modules.ranks import over_ranks
from lightning_modules.stage import Stage, endless_noise, fill, noise, uniform
from lightning_modules.super_resolver import raise_rate
from signals.errors import UserError
from signals.types import Pair, Signal, silence_padding

BLOCK = 32  # latent frames that are drawn at once


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
        # batches, values, their sum and the sum of their squares
        self.register_buffer("latent_sums", torch.zeros(4, dtype=torch.float64))
        self.register_state_dict_post_hook(_without_vae)
        self.register_load_state_dict_pre_hook(_with_vae)

    @classmethod
    def resolved(cls, options: Mapping) -> dict:
        settings = Settings.of(**options["settings"])
        seen = ("upsample", "null_condition", "sample_condition")  # by training; the rest is the sampler's
        return {**options, "settings": {key: getattr(settings, key) for key in seen}}

    @classmethod
    def converted(cls, path: Path) -> dict[str, Tensor]:
        return read(path).unet

    def convert(self, path: Path) -> None:
        """Also the latents' scale, and the moving average of the weights, which the released code never uses.

        Raises UserError where the file's noise schedule is another.
        """
        released = read(path)
        schedule = {"betas": cosine_betas(), "alphas_cumprod": np.cumprod(1 - cosine_betas())}
        for name, theirs in released.schedule.items():
            if not np.allclose(theirs.double(), schedule[name], rtol=0, atol=1e-3):  # in half precision, too
                raise UserError(f"{path}: its {name} are of another noise schedule than AudioSR's.")
        fill(self.unet, released.unet)
        fill(self.averaged, released.average)
        # Measured for good: a fine-tuning keeps it.
        self.latent_sums.copy_(torch.tensor([np.inf, 1, 0, released.scale**-2], dtype=torch.float64))

    @property
    def network(self) -> torch.nn.Module:
        return self.unet

    def example(self, batch: int, samples: int) -> tuple:
        frames, bands = samples // self.vae.log_mel.hop, len(self.vae.log_mel.filters)
        device = next(self.unet.parameters()).device
        shape = (batch, self.unet.config.in_channels, frames // 8, bands // 8)
        return torch.zeros(shape, device=device), torch.zeros(batch, device=device), None

    # Latents ----------------------------------------------------------------------------------------------

    @property
    def scale(self) -> Tensor:
        """1 / standard deviation of the first latents (1 before any was seen)."""
        batches, values, total, squares = self.latent_sums
        variance = squares / values - (total / values) ** 2
        return torch.where(batches > 0, variance.clamp(min=1e-12).rsqrt(), 1.0).float()

    def _measure_scale(self, mean: Tensor, log_variance: Tensor) -> None:
        """Counts latents as they are diffused, drawn from their posteriors: E z^2 = mean^2 + variance."""
        mean, variance = mean.double(), log_variance.double().exp()
        values = torch.full_like(mean[0, 0, 0, 0], mean.numel())
        self.latent_sums[1:] += over_ranks(
            torch.stack([values, mean.sum(), (mean.square() + variance).sum()])
        )
        self.latent_sums[0] += 1

    @torch.no_grad()
    def posteriors(self, pair: Pair) -> Tensor:
        """[B, 4, C, N/8, M/8]: mean and log-variance of the full-band latent, then of the low-resolution one.

        Both waves get the gain that normalises the low one, which is all that is known in use.
        """
        high = pair.high
        raised = raise_rate(pair.low, high.rate, self.settings.upsample).wave[..., : high.wave.shape[-1]]
        low, mean, gain = normalise(Signal(raised, high.rate, high.lengths))
        both = self.vae.image(torch.cat([silence_padding((high.wave - mean) * gain, high.lengths), low]))
        moments = torch.stack(self.vae.posterior(both), dim=1)
        return torch.cat(moments.chunk(2), dim=1)

    def cached_posteriors(self, pair: Pair) -> Tensor:
        """`posteriors`, in half precision and encoded once for each item, where latents are cached.

        For a finite pool of windows, which recur: nothing is ever dropped from the cache.
        """
        if self.cache is None or not self.training:
            return self.posteriors(pair)
        seeds = pair.seeds.tolist()
        for row, seed in enumerate(seeds):
            if seed not in self.cache:
                # Alone: rounding depends on the batch, and a resumed run fills the cache in other batches.
                self.cache[seed] = self.posteriors(_item(pair, row))[0].half().cpu()
        return torch.stack([self.cache[seed] for seed in seeds]).to(pair.high.wave.device, torch.float32)

    def condition(self, mean: Tensor, log_variance: Tensor, eps: Tensor | None) -> Tensor:
        """Scaled low-resolution latent: sampled by normal noise `eps`, or (None) the mode."""
        return self.scale * (mean if eps is None else mean + (0.5 * log_variance).exp() * eps)

    @property
    def null(self) -> Tensor:
        """What stands in for a dropped condition, a scalar."""
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
        eps = noise(mean.shape[1:], seeds, salt + 1) if self.settings.sample_condition else None
        condition = self.condition(low_mean, low_log_variance, eps)
        dropped = uniform(seeds, salt + 2) < drop
        condition = torch.where(dropped.view(-1, 1, 1, 1), self.null, condition)
        t = (uniform(seeds, salt + 3) * STEPS).long()
        z_t, v = self.noised(z0, noise(z0.shape[1:], seeds, salt + 4), t)
        return v, v - self.velocity(z_t, t, condition, averaged=not self.training)

    def losses(self, pair: Pair) -> dict[str, Tensor]:
        posteriors = self.cached_posteriors(pair)
        if self.training and self.latent_sums[0] < self.scale_batches:
            self._measure_scale(posteriors[:, 0], posteriors[:, 1])
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

    def optimizer_step(self, *args, **kwargs) -> None:
        """Then the moving average, with the released warm-up of its decay.

        Not at the end of the batch: Lightning's callbacks come first there, and would save it a step behind.
        """
        super().optimizer_step(*args, **kwargs)
        n = int(self.batches_seen)
        decay = min(self.ema_decay, (1 + n) / (10 + n))
        with torch.no_grad():
            for mean, new in zip(self.averaged.parameters(), self.unet.parameters(), strict=True):
                mean.lerp_(new, 1 - decay)

    # Sampling ---------------------------------------------------------------------------------------------

    @torch.no_grad()
    def sample(
        self,
        low_mean: Tensor,
        low_log_variance: Tensor,
        seeds: Tensor,
        settings: Settings | None = None,
        firsts: Tensor | None = None,
    ) -> Tensor:
        """The full-band latent [B, C, N/8, M/8], unscaled, for the posterior of a low-resolution one.

        DDIM (Song et al. 2021, eq. 12) or DPM-Solver++ (Lu et al. 2022, Algorithm 2) with classifier-free
        guidance on v, both branches in one batch. settings: of the sampling (None: the stage's own); the null
        condition is always that of the training. firsts: latent frames [B] of their recordings (by seed) at
        which the items begin (None: 0); where items overlap, all that is random is the same in both.
        """
        s = settings or self.settings
        firsts = torch.zeros_like(seeds) if firsts is None else firsts
        drawn = partial(endless_noise, low_mean.shape[1:], seeds, firsts, BLOCK)
        condition = self.condition(low_mean, low_log_variance, drawn(1) if s.sample_condition else None)
        null = torch.zeros_like(condition) + self.null
        scheduler = dpm_solver() if s.sampler == "dpm" else ddim(s)
        scheduler.set_timesteps(s.steps, device=condition.device)
        z = drawn(2)
        for number, t in enumerate(scheduler.timesteps):
            steps = t.expand(2 * len(z))
            both = self.velocity(torch.cat([z, z]), steps, torch.cat([condition, null]), averaged=s.average)
            v = guided(*both.chunk(2), s.guidance, s.rescale)
            stochastic = {"eta": s.eta, "variance_noise": drawn(3 + number)} if s.eta > 0 else {}
            z = scheduler.step(v, t, z, **stochastic).prev_sample
        return z / self.scale


# The frozen autoencoder belongs to its own run, not to this one's checkpoints.
def _without_vae(module: LatentDiffusion, state: dict, prefix: str, _: dict) -> None:
    for name in [name for name in state if name.startswith(f"{prefix}vae.")]:
        del state[name]


def _with_vae(module: LatentDiffusion, state: dict, prefix: str, *_) -> None:
    state |= module.vae.state_dict(prefix=f"{prefix}vae.")


def _item(pair: Pair, row: int) -> Pair:
    """A batch of one."""
    one = slice(row, row + 1)
    low, high = (Signal(s.wave[one], s.rate, s.lengths[one]) for s in (pair.low, pair.high))
    return Pair(low, high, pair.cutoff[one], pair.ids[one], pair.seeds[one])


def guided(conditional: Tensor, unconditional: Tensor, guidance: float, rescale: float) -> Tensor:
    """Classifier-free guidance (Ho and Salimans 2022), deviation pulled back (Lin et al. 2023, eq. 15-16)."""
    v = unconditional + guidance * (conditional - unconditional)
    axes = (1, 2, 3)
    matched = v * conditional.std(dim=axes, keepdim=True) / v.std(dim=axes, keepdim=True).clamp(min=1e-8)
    return rescale * matched + (1 - rescale) * v


def ddim(settings: Settings):
    """diffusers' DDIM scheduler on our schedule, spaced as the settings say.

    Trailing ends at abar = 1, so the result is the last estimate of z_0; leading at abar_1, as released.
    """
    from diffusers import DDIMScheduler

    return DDIMScheduler(
        num_train_timesteps=STEPS,
        trained_betas=cosine_betas(),
        prediction_type="v_prediction",
        clip_sample=False,
        set_alpha_to_one=settings.spacing == "trailing",
        steps_offset=1 if settings.spacing == "leading" else 0,
        timestep_spacing=settings.spacing,
    )


def dpm_solver():
    """diffusers' DPM-Solver++ (2M) on our schedule, trailing: from the zero-SNR step to abar = 1.

    Its time is lambda = log(sqrt(abar / (1 - abar))), which is -inf where abar_T = 0. Told that the schedule
    ends there, diffusers takes abar_T = 2^-24 (lambda = -8.3) in the solver only; the network still sees step
    999. It matters little: the first step is of first order, whose limit at -inf exists (z_0 = -v); after so
    long a one the second is nearly of first order, too.
    """
    from diffusers import DPMSolverMultistepScheduler

    return DPMSolverMultistepScheduler(
        num_train_timesteps=STEPS,
        trained_betas=cosine_betas(),
        prediction_type="v_prediction",
        algorithm_type="dpmsolver++",
        solver_order=2,
        timestep_spacing="trailing",
        rescale_betas_zero_snr=True,
    )
