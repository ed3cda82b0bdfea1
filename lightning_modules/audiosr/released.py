"""From the names of the released AudioSR checkpoint to ours.

The vocoder needs no map: `HiFiGAN` has the released names, after `first_stage_model.vocoder.`.
Maps are from module to module, for four levels of two layers, the released size. A name that is not in the
map raises; a name that is missing is for `load_state_dict(strict=True)` to find.
"""

from collections.abc import Iterable

from torch import Tensor

LEVELS, LAYERS = 4, 2


def _same(*names: str) -> dict[str, str]:
    return dict(zip(names, names, strict=True))


VAE_RESNET = _same("norm1", "conv1", "norm2", "conv2") | {"nin_shortcut": "conv_shortcut"}
VAE_ENDS = {"conv_in": "conv_in", "norm_out": "conv_norm_out", "conv_out": "conv_out"}
VAE_ATTENTION = {"norm": "group_norm", "q": "to_q", "k": "to_k", "v": "to_v", "proj_out": "to_out.0"}

UNET_RESNET = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
}
ATTENTIONS = [f"attn{i}.to_{x}" for i in (1, 2) for x in ("q", "k", "v", "out.0")]
INNER = [*ATTENTIONS, "norm1", "norm2", "norm3", "ff.net.0.proj", "ff.net.2"]
TRANSFORMER = _same("norm", "proj_in", "proj_out", *(f"transformer_blocks.0.{name}" for name in INNER))

Names = Iterable[tuple[str, str]]


def _inside(released: str, ours: str, parts: dict[str, str]) -> Names:
    return ((f"{released}.{theirs}", f"{ours}.{own}") for theirs, own in parts.items())


def _vae_modules() -> Names:
    """(released, ours) of every module of the autoencoder."""
    yield from ((name, name) for name in ("quant_conv", "post_quant_conv"))
    for half in ("encoder", "decoder"):
        mid, mid_block = f"{half}.mid", f"{half}.mid_block"
        yield from _inside(half, half, VAE_ENDS)
        yield from _inside(f"{mid}.block_1", f"{mid_block}.resnets.0", VAE_RESNET)
        yield from _inside(f"{mid}.attn_1", f"{mid_block}.attentions.0", VAE_ATTENTION)
        yield from _inside(f"{mid}.block_2", f"{mid_block}.resnets.1", VAE_RESNET)
    for level in range(LEVELS):
        down, down_block = f"encoder.down.{level}", f"encoder.down_blocks.{level}"
        # the released decoder counts its levels from the highest resolution, diffusers in order of use
        up, up_block = f"decoder.up.{level}", f"decoder.up_blocks.{LEVELS - 1 - level}"
        if level < LEVELS - 1:
            yield f"{down}.downsample.conv", f"{down_block}.downsamplers.0.conv"
        if level > 0:
            yield f"{up}.upsample.conv", f"{up_block}.upsamplers.0.conv"
        for block in range(LAYERS):
            yield from _inside(f"{down}.block.{block}", f"{down_block}.resnets.{block}", VAE_RESNET)
        for block in range(LAYERS + 1):
            yield from _inside(f"{up}.block.{block}", f"{up_block}.resnets.{block}", VAE_RESNET)


def _unet_modules() -> Names:
    """(released, ours) of every module of the denoiser.

    The released blocks are counted through: a level has its layers and, going down, its downsampling last.
    Item 0 of a block is a resnet, items 1 and 2 are the two transformers of each place. The first level, the
    last of the way up, has none.
    """
    yield "time_embed.0", "time_embedding.linear_1"
    yield "time_embed.2", "time_embedding.linear_2"
    yield "input_blocks.0.0", "conv_in"
    yield "out.0", "conv_norm_out"
    yield "out.2", "conv_out"

    def place(released: str, ours: str, block: int, attends: bool) -> Names:
        yield from _inside(f"{released}.0", f"{ours}.resnets.{block}", UNET_RESNET)
        for j in (1, 2) if attends else ():
            yield from _inside(f"{released}.{j}", f"{ours}.attentions.{2 * block + j - 1}", TRANSFORMER)

    stride = LAYERS + 1
    for level in range(LEVELS):
        for block in range(LAYERS):
            down = f"input_blocks.{1 + stride * level + block}"
            yield from place(down, f"down_blocks.{level}", block, level > 0)
        for block in range(LAYERS + 1):
            up = f"output_blocks.{stride * level + block}"
            yield from place(up, f"up_blocks.{level}", block, level < LEVELS - 1)
        if level < LEVELS - 1:
            yield f"input_blocks.{stride * (level + 1)}.0.op", f"down_blocks.{level}.downsamplers.0.conv"
            yield f"{up}.3.conv", f"up_blocks.{level}.upsamplers.0.conv"

    yield from place("middle_block", "mid_block", 0, True)
    yield from _inside("middle_block.3", "mid_block.resnets.1", UNET_RESNET)


VAE_MODULES: dict[str, str] = dict(_vae_modules())
UNET_MODULES: dict[str, str] = dict(_unet_modules())


def _renamed(released: dict[str, Tensor], modules: dict[str, str]) -> dict[str, Tensor]:
    ours = {}
    for name, value in released.items():
        module, _, kind = name.rpartition(".")
        if module not in modules or kind not in ("weight", "bias"):
            raise ValueError(f"no such parameter in the released network: {name}")
        ours[f"{modules[module]}.{kind}"] = value
    return ours


def vae_state(released: dict[str, Tensor]) -> dict[str, Tensor]:
    """The state of `networks.autoencoder()` from names after `first_stage_model.`, without the vocoder's.

    The released attention has 1x1 convolutions [C, C, 1, 1] where diffusers has linear layers [C, C].
    """
    squeezed = {
        name: value[..., 0, 0] if ".mid.attn_1." in name and value.ndim == 4 else value
        for name, value in released.items()
    }
    return _renamed(squeezed, VAE_MODULES)


def unet_state(released: dict[str, Tensor]) -> dict[str, Tensor]:
    """The state of `networks.unet()` from names after `model.diffusion_model.`."""
    return _renamed(released, UNET_MODULES)
