"""AudioSR: Versatile audio super-resolution at scale (Liu et al. 2023, arXiv:2309.07314).

Three stages, `VAE`, `LatentDiffusion` and `Vocoder`, make one method, `AudioSR`; `GTMel` is its upper bound.
"""

from lightning_modules.audiosr.latent_diffusion import LatentDiffusion
from lightning_modules.audiosr.method import AudioSR, GTMel
from lightning_modules.audiosr.vae import VAE
from lightning_modules.audiosr.vocoder import Vocoder

__all__ = ["VAE", "AudioSR", "GTMel", "LatentDiffusion", "Vocoder"]
