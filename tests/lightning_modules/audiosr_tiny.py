"""AudioSR's stages with networks of a few channels, and pairs of noise for them."""

import pytest
import torch

from lightning_modules.audiosr import VAE, LatentDiffusion, Vocoder
from signals.filters import boxcar
from signals.types import Pair, Signal

RATE = 48000
SAMPLES = 64 * 480  # the shortest the denoiser takes
FRONTEND = {"rate": RATE, "n_fft": 2048, "hop": 480, "n_mels": 64, "fmin": 20, "fmax": 24000}
OPTIMIZER = {
    "lr": 1e-3,
    "betas": (0.8, 0.99),
    "weight_decay": 0.01,
    "warmup": 3,
    "decay": 0.9,
    "decay_every": 3,
    "clip": 1.0,
}


def random_wave(batch: int, samples: int, seed: int = 0) -> torch.Tensor:
    """Noise [B, 1, T] of deviation 0.1."""
    return 0.1 * torch.randn(batch, 1, samples, generator=torch.Generator().manual_seed(seed))


def pair_of(*seeds: int, samples: int = SAMPLES) -> Pair:
    """Full-band noise of each seed, and the same below 8 kHz at the full rate."""
    high = torch.cat([random_wave(1, samples, seed) for seed in seeds])
    cutoff = torch.full((len(seeds),), 8000.0)
    low = boxcar(high, cutoff, RATE)
    names = [str(seed) for seed in seeds]
    return Pair(Signal.of(low, RATE), Signal.of(high, RATE), cutoff, names, torch.tensor(seeds))


def tiny_vae(seed: int = 0, critic_from: int = 0, optimizer=OPTIMIZER, **weights: float) -> VAE:
    torch.manual_seed(seed)
    return VAE(
        weights={"reconstruction": 1.0, "kl": 0.01, "adversarial": 0.5, "critic": 1.0} | weights,
        optimizer=optimizer,
        model={"channels": (8, 8, 8, 8), "layers_per_block": 1, "latent_channels": 4, "norm_num_groups": 4},
        critic={"channels": 8, "layers": 1},
        frontend=FRONTEND,
        critic_from=critic_from,
    )


def tiny_vocoder(seed: int = 0, critic_from: int = 0, **weights: float) -> Vocoder:
    torch.manual_seed(seed)
    return Vocoder(
        weights={"mel": 45.0, "adversarial": 1.0, "feature_matching": 2.0, "critic": 1.0} | weights,
        optimizer=OPTIMIZER,
        model={"channels": 32, "resblock_kernels": (3,), "dilations": (1,)},
        critic={"period": {"channels": 1}, "resolution": {"channels": 2}},
        frontend=FRONTEND,
        critic_from=critic_from,
    )


def tiny_ldm(
    seed: int = 0,
    vae: VAE | None = None,
    v: float = 1.0,
    drop: float = 0.1,
    scale_batches: int = 2,
    cache_latents: bool = False,
    optimizer=OPTIMIZER,
    **settings,
) -> LatentDiffusion:
    """Its last convolution is not zero, as that of an untrained denoiser is: every weight has a gradient."""
    vae = vae or tiny_vae()
    torch.manual_seed(seed)
    ldm = LatentDiffusion(
        weights={"v": v},
        optimizer=optimizer,
        model={
            "channels": (8, 8, 16, 16),
            "heads": (1, 1, 2, 2),
            "layers_per_block": 1,
            "latent_channels": 4,
            "norm_num_groups": 4,
        },
        settings=settings,
        vae=vae,
        drop=drop,
        ema_decay=0.99,
        scale_batches=scale_batches,
        cache_latents=cache_latents,
    )
    torch.nn.init.normal_(ldm.unet.conv_out.weight, std=0.1)
    ldm.averaged.load_state_dict(ldm.unet.state_dict())
    return ldm


@pytest.fixture(autouse=True)
def one_thread():
    """Threads cost more than networks as small as these gain by them; after conftest's own number."""
    torch.set_num_threads(1)
