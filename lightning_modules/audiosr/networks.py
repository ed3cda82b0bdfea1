"""The three networks of AudioSR (Liu et al. 2023): autoencoder, denoiser, vocoder.

Sizes are those of the released model; `released.py` maps its weights.
The autoencoder and the denoiser are diffusers', which is imported late because that takes seconds.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

if TYPE_CHECKING:
    from diffusers import AudioLDM2UNet2DConditionModel, AutoencoderKL

LAYOUT = torch.channels_last  # of images in memory: what convolutions work in, on CPUs and GPUs


def autoencoder(
    channels: Sequence[int] = (128, 256, 512, 1024),
    layers_per_block: int = 2,
    latent_channels: int = 16,
    norm_num_groups: int = 32,
) -> "AutoencoderKL":
    """The KL autoencoder: log-mel image [B, 1, N, M] <-> latent [B, latent_channels, N/8, M/8].

    Every level but the last halves both axes: four levels give 8. One single-head attention, in the middle.
    Every width in `channels` is a multiple of `norm_num_groups`. The released network has dropout 0.1 in
    training, which diffusers' has not.
    """
    from diffusers import AutoencoderKL

    net = AutoencoderKL(
        in_channels=1,
        out_channels=1,
        down_block_types=("DownEncoderBlock2D",) * len(channels),
        up_block_types=("UpDecoderBlock2D",) * len(channels),
        block_out_channels=tuple(channels),
        layers_per_block=layers_per_block,
        latent_channels=latent_channels,
        norm_num_groups=norm_num_groups,
    )
    return net.to(memory_format=LAYOUT)


def unet(
    channels: Sequence[int] = (128, 256, 384, 640),
    heads: Sequence[int] = (4, 8, 12, 20),
    layers_per_block: int = 2,
    latent_channels: int = 16,
    norm_num_groups: int = 32,
) -> "AudioLDM2UNet2DConditionModel":
    """The denoiser: v [B, C, N/8, M/8] from the noisy and the low-resolution latent, one after the other.

    Called as `net(x, t, encoder_hidden_states=None).sample`; x: [B, 2C, N/8, M/8], both axes multiples of 8,
    t: [B] diffusion steps, C: `latent_channels`.
    `heads` are the attention heads of each level (the first level attends to nothing and ignores its entry);
    they divide `channels`, 32 channels a head in the released network. Each place has two transformers, both
    without text, so both attentions of each are self-attentions. The last convolution starts at zero, as
    released: an untrained network predicts v = 0.
    """
    from diffusers import AudioLDM2UNet2DConditionModel

    attending = len(channels) - 1
    net = AudioLDM2UNet2DConditionModel(
        in_channels=2 * latent_channels,
        out_channels=latent_channels,
        down_block_types=("DownBlock2D", *("CrossAttnDownBlock2D",) * attending),
        up_block_types=(*("CrossAttnUpBlock2D",) * attending, "UpBlock2D"),
        block_out_channels=tuple(channels),
        layers_per_block=layers_per_block,
        norm_num_groups=norm_num_groups,
        cross_attention_dim=[[None, None]] * len(channels),
        # diffusers' old misnomer (its issue 2011): this is the number of heads, not their width
        attention_head_dim=tuple(heads),
    )
    nn.init.zeros_(net.conv_out.weight)
    nn.init.zeros_(net.conv_out.bias)
    return net.to(memory_format=LAYOUT)


class ResBlock(nn.Module):
    """Dilated then plain convolution around a skip, once for each dilation; [B, C, T] -> [B, C, T]."""

    def __init__(self, channels: int, kernel: int, dilations: Sequence[int]):
        super().__init__()
        self.convs1 = nn.ModuleList(
            nn.Conv1d(channels, channels, kernel, dilation=d, padding="same") for d in dilations
        )
        self.convs2 = nn.ModuleList(nn.Conv1d(channels, channels, kernel, padding="same") for _ in dilations)

    def forward(self, x: Tensor) -> Tensor:
        for dilated, plain in zip(self.convs1, self.convs2, strict=True):
            x = x + plain(F.leaky_relu(dilated(F.leaky_relu(x, 0.1)), 0.1))
        return x


class HiFiGAN(nn.Module):
    """The vocoder: log-mel [B, M, N] -> wave [B, 1, 480 N] in [-1, 1]. HiFi-GAN V1 (Kong et al. 2020), wider.

    Each of the `rates` upsamples by a transposed convolution that halves the channels, and is followed by the
    mean over residual blocks of different reach (section 2.2, multi-receptive field fusion). Parameters are
    named as in the released checkpoint, and as there are plain: HiFi-GAN's weight norm is folded in, and we
    train without it, so that a trained and a released vocoder are the same module.
    """

    def __init__(
        self,
        n_mels: int = 256,
        channels: int = 1536,
        rates: Sequence[int] = (6, 5, 4, 2, 2),
        kernels: Sequence[int] = (12, 10, 8, 4, 4),
        resblock_kernels: Sequence[int] = (3, 7, 11, 15),
        dilations: Sequence[int] = (1, 3, 5),
    ):
        super().__init__()
        if channels % 2 ** len(rates):
            raise ValueError(f"channels={channels} cannot be halved {len(rates)} times")
        self.hop = math.prod(rates)
        self.conv_pre = nn.Conv1d(n_mels, channels, 7, padding="same")
        self.ups = nn.ModuleList()
        self.resblocks = nn.ModuleList()
        for rate, kernel in zip(rates, kernels, strict=True):
            padding = (kernel - rate) // 2
            self.ups.append(nn.ConvTranspose1d(channels, channels // 2, kernel, rate, padding))
            channels //= 2
            self.resblocks.extend(ResBlock(channels, k, dilations) for k in resblock_kernels)
        self.conv_post = nn.Conv1d(channels, 1, 7, padding="same")

    def forward(self, log_mel: Tensor) -> Tensor:
        """[B, M, N] -> [B, 1, hop N]."""
        return self.untrimmed(log_mel)[..., : self.hop * log_mel.shape[-1]]

    def untrimmed(self, log_mel: Tensor) -> Tensor:
        """[B, M, N] -> [B, 1, hop N + 16], the released output.

        A stage whose kernel minus rate is odd (10 - 5) gives one sample too many, which later stages repeat.
        """
        x = self.conv_pre(log_mel)
        width = len(self.resblocks) // len(self.ups)
        for i, up in enumerate(self.ups):
            x = up(F.leaky_relu(x, 0.1))
            x = sum(block(x) for block in self.resblocks[width * i : width * (i + 1)]) / width
        # 0.01, not 0.1: PyTorch's default slope, in HiFi-GAN's code and in the released model's
        return torch.tanh(self.conv_post(F.leaky_relu(x, 0.01)))
