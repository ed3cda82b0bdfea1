"""The released AudioSR checkpoint (haoheliu/audiosr_basic, audiosr_speech on the hub), and its names as ours.

The vocoder needs no map: `HiFiGAN` has the released names, after `first_stage_model.vocoder.`.
Maps are from module to module, for four levels of two layers, the released size.

Proven without the hub, with drawn weights under every name and shape that the released code builds: all are
accounted for, and the released networks' outputs come out. Not proven: that the hub's files hold these names
(others are refused by name), and what their weights sound like.
"""

import zipfile
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from lightning_modules.audiosr.networks import HiFiGAN, autoencoder, unet
from lightning_modules.audiosr.settings import STEPS
from signals.errors import UserError

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


def _is_attention(name: str) -> bool:
    return ".mid.attn_1." in name


def vae_state(released: dict[str, Tensor]) -> dict[str, Tensor]:
    """The state of `networks.autoencoder()` from names after `first_stage_model.`, without the vocoder's.

    The released attention has 1x1 convolutions [C, C, 1, 1] where diffusers has linear layers [C, C].
    """
    squeezed = {
        name: value[..., 0, 0] if _is_attention(name) and value.ndim == 4 else value
        for name, value in released.items()
    }
    return _renamed(squeezed, VAE_MODULES)


def unet_state(released: dict[str, Tensor]) -> dict[str, Tensor]:
    """The state of `networks.unet()` from names after `model.diffusion_model.`."""
    return _renamed(released, UNET_MODULES)


# The file -------------------------------------------------------------------------------------------------

VAE, AGAIN = "first_stage_model.", "cond_stage_models.0.vae."  # the vocoder's within; and both once more
VOCODER, UNET = f"{VAE}vocoder.", "model.diffusion_model."
AVERAGE = "model_ema.diffusion_model"  # of the denoiser's weights, whose names have no dots here
# CLAP, which super-resolution never calls; the average's counters; what follows from the schedule.
DROPPED = ("clap.", "model_ema.decay", "model_ema.num_updates", "logvar", "alphas_cumprod_prev", "sqrt_")
DROPPED += ("log_one_minus_alphas_cumprod", "posterior_")

Build = Callable[[], nn.Module]
Shapes = dict[str, torch.Size]
NETWORKS: dict[str, tuple[Build, Mapping[str, str]]] = {
    VAE: (autoencoder, VAE_MODULES),
    VOCODER: (HiFiGAN, {}),
    UNET: (unet, UNET_MODULES),
}


class Released(NamedTuple):
    """What is in use of a released file, by our names; no tensor is read before it is used."""

    vae: dict[str, Tensor]
    vocoder: dict[str, Tensor]
    unet: dict[str, Tensor]
    average: dict[str, Tensor]  # moving average of `unet`; `unet` where the file has none
    scale: float  # of the latents
    schedule: dict[str, Tensor]  # `betas` and `alphas_cumprod`, as far as they are there


def read(path: Path) -> Released:
    """Every name is used, or the double of one that is, or dropped by name.

    Raises UserError where one is missing or unknown, has another shape, or differs from its double.
    """
    changed = path.stat().st_mtime_ns if path.exists() else None
    return _read(path, changed)


@lru_cache(maxsize=1)  # three stages are in one file
def _read(path: Path, changed: int | None) -> Released:
    rest = tensors(path)  # what is not accounted for yet
    shapes = {prefix: released_shapes(prefix) for prefix in NETWORKS}
    vae = _taken(rest, VAE, shapes[VAE], "the autoencoder", path)
    vocoder = _taken(rest, VOCODER, shapes[VOCODER], "the vocoder", path)
    denoiser = _taken(rest, UNET, shapes[UNET], "the denoiser", path)
    if any(name.startswith(AVERAGE) for name in rest):
        dotless = {name.replace(".", ""): shape for name, shape in shapes[UNET].items()}
        stripped = _taken(rest, AVERAGE, dotless, "the denoiser's moving average", path)
        average = dict(zip(shapes[UNET], stripped.values(), strict=True))
    else:  # of its own, since two networks that share tensors cannot be saved
        average = {name: value.clone() for name, value in denoiser.items()}
    scale = float(_taken(rest, "", {"scale_factor": torch.Size()}, "the latents", path)["scale_factor"])
    if not 0 < scale < float("inf"):
        raise UserError(f"{path}: scale_factor is {scale}: a number above 0 is needed.")
    steps = {name: torch.Size([STEPS]) for name in ("betas", "alphas_cumprod") if name in rest}
    schedule = _taken(rest, "", steps, "the noise schedule", path)
    for name in doubles(path):
        del rest[name]
    if unknown := [name for name in rest if not name.startswith(DROPPED)]:
        raise UserError(f"{path} is not AudioSR: it also has {', '.join(unknown[:3])} ({len(unknown)}).")
    return Released(vae_state(vae), vocoder, unet_state(denoiser), unet_state(average), scale, schedule)


def let_go() -> None:
    """Of the file that was read last, which stays mapped otherwise."""
    _read.cache_clear()


def doubles(path: Path) -> list[str]:
    """Names of what is in the file once more. Raises UserError where they differ."""
    found = tensors(path)  # mapped anew, and let go: to compare is to read it all
    firsts = {name: name.replace(AGAIN, VAE, 1) for name in found if name.startswith(AGAIN)}
    firsts = {name: first for name, first in firsts.items() if first in found}
    for name, first in firsts.items():
        if not torch.equal(found[name], found[first]):
            raise UserError(f"{path}: {name} is not {first}, whose double it is in AudioSR: which is meant?")
    return list(firsts)


def tensors(path: Path, within: str = "state_dict") -> dict[str, Tensor]:
    """By name, mapped from a file of `torch.save` (bare, or `within` this key) or safetensors.

    Raises UserError on another file; nothing but tensors is ever loaded from one.
    """
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        whole = zipfile.is_zipfile(path)  # as PyTorch saves since 1.6; older files cannot be mapped
        found = torch.load(path, map_location="cpu", weights_only=True, mmap=whole)
        found = found.get(within, found)
        if not all(isinstance(value, Tensor) for value in found.values()):
            raise TypeError("not tensors by name")
    except Exception as error:  # whatever a file that is none, or is damaged, makes of its reader
        raise UserError(
            f"{path} holds no tensors by name, or more than tensors, or is damaged ({type(error).__name__})."
        ) from None
    return found


def released_shapes(prefix: str) -> Shapes:
    """By name after `prefix`, of all that the released file has of a network."""
    build, modules = NETWORKS[prefix]
    with torch.device("meta"):
        ours = build().state_dict()
    theirs, shapes = {own: name for name, own in modules.items()}, {}
    for name, value in ours.items():
        module, _, kind = name.rpartition(".")
        released = f"{theirs.get(module, module)}.{kind}"
        convolution = _is_attention(released) and value.ndim == 2
        shapes[released] = torch.Size((*value.shape, 1, 1) if convolution else value.shape)
    return shapes


def _taken(rest: dict[str, Tensor], prefix: str, shapes: Shapes, of: str, path: Path) -> dict[str, Tensor]:
    """Moves out of `rest` what has these names after `prefix`."""
    if lacking := [name for name in shapes if f"{prefix}{name}" not in rest]:
        told = f"{prefix}{lacking[0]} of {of} ({len(lacking)} of {len(shapes)})"
        raise UserError(f"{path} is not AudioSR, or not whole: it lacks {told}.")
    taken = {name: rest.pop(f"{prefix}{name}") for name in shapes}
    for name, value in taken.items():
        if value.shape != shapes[name]:
            told = f"{list(value.shape)} where {of} has {list(shapes[name])}"
            raise UserError(f"{path} is not AudioSR: {prefix}{name} is {told}.")
    return taken
