"""A file as AudioSR's authors release it: every name, networks of a few channels, drawn values."""

from functools import cache, partial

import numpy as np
import torch

from lightning_modules.audiosr import released
from lightning_modules.audiosr.latent_diffusion import cosine_betas
from lightning_modules.audiosr.networks import HiFiGAN, autoencoder, unet
from lightning_modules.audiosr.released import AGAIN, AVERAGE, UNET, VAE, VOCODER, released_shapes

MODELS = {
    "vae": {"channels": [4, 6, 8, 10], "layers_per_block": 2, "latent_channels": 2, "norm_num_groups": 2},
    "ldm": {
        "channels": [8, 12, 16, 20],
        "heads": [1, 1, 2, 2],
        "layers_per_block": 2,
        "latent_channels": 2,
        "norm_num_groups": 4,
    },
    "vocoder": {"channels": 32, "resblock_kernels": [3], "dilations": [1]},
}
CRITICS = {
    "vae": {"channels": 8, "layers": 1},
    "vocoder": {"period": {"channels": 1}, "resolution": {"channels": 2}},
}
SCALE = 0.36


def make_small(monkeypatch) -> None:
    """The released networks are those of MODELS from here on."""
    small = {VAE: partial(autoencoder, **MODELS["vae"]), VOCODER: partial(HiFiGAN, **MODELS["vocoder"])}
    small[UNET] = partial(unet, **MODELS["ldm"])
    networks = {name: (small[name], modules) for name, (_, modules) in released.NETWORKS.items()}
    monkeypatch.setattr(released, "NETWORKS", networks)


def schedule() -> dict[str, torch.Tensor]:
    betas = cosine_betas()
    return {
        "betas": torch.tensor(betas).float(),
        "alphas_cumprod": torch.tensor(np.cumprod(1 - betas)).float(),
    }


@cache
def drawn() -> dict[str, torch.Tensor]:
    """What such a file holds, with a few of the names that are dropped; after `make_small`."""
    generator = torch.Generator().manual_seed(0)

    def draw(shape) -> torch.Tensor:
        return 0.1 * torch.randn(shape, generator=generator)

    shapes = {
        f"{prefix}{name}": s for prefix in (VAE, VOCODER, UNET) for name, s in released_shapes(prefix).items()
    }
    state = {name: draw(shape) for name, shape in shapes.items()}
    state |= {
        name.replace(VAE, AGAIN, 1): value.clone() for name, value in state.items() if name.startswith(VAE)
    }
    state |= {f"{AVERAGE}{name.replace('.', '')}": draw(s) for name, s in released_shapes(UNET).items()}
    state |= {
        "scale_factor": torch.tensor(SCALE),
        **schedule(),
        "logvar": draw(1000),
        "sqrt_alphas_cumprod": draw(1000),
    }
    state |= {
        "model_ema.decay": torch.tensor(0.9999),
        "model_ema.num_updates": torch.tensor(7, dtype=torch.int32),
    }
    return state | {
        "clap.model.logit_scale_a": torch.tensor(1.0),
        "clap.model.audio_branch.bn0.weight": draw(64),
    }
