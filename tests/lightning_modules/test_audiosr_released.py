"""The released AudioSR file: every name used, checked against its double, dropped by name, or refused."""

import ast
import math
import os
import re
from pathlib import Path

import pytest
import torch
from audiosr_file import CRITICS, MODELS, SCALE, drawn, make_small, schedule
from audiosr_tiny import FRONTEND, OPTIMIZER, pair_of
from safetensors.torch import save_file

from lightning_modules.audiosr import VAE, LatentDiffusion, Vocoder
from lightning_modules.audiosr.released import (
    AGAIN,
    AVERAGE,
    DROPPED,
    NETWORKS,
    read,
    released_shapes,
    unet_state,
    vae_state,
)
from lightning_modules.audiosr.released import UNET as DENOISER
from lightning_modules.audiosr.released import VAE as FIRST
from lightning_modules.audiosr.released import VOCODER as GENERATOR
from signals.errors import UserError

NAMES = Path(__file__).parents[1] / "goldens" / "audiosr_names.txt"
DTYPES = {"float32": torch.float32, "int64": torch.int64, "int32": torch.int32}


# ---------------------------------------------------------------- full size, names and shapes


def listed() -> dict[str, torch.Tensor]:
    """A tensor of one stored value under every released name: any shape takes four bytes."""
    state = {}
    for place, line in enumerate(NAMES.read_text().splitlines()[1:]):
        name, shape, dtype = re.match(r"(\S+) (\(.*\)) (\w+)", line).groups()
        state[name] = torch.tensor(place, dtype=DTYPES[dtype]).expand(ast.literal_eval(shape))
    for name in [name for name in state if name.startswith(AGAIN)]:
        state[name] = state[name.replace(AGAIN, FIRST, 1)]
    return state | schedule()


def test_every_name_of_the_list_is_accounted_for_and_every_network_filled(tmp_path):
    state = listed()
    assert len(state) == 3742
    torch.save({"state_dict": state}, tmp_path / "pytorch_model.bin")
    assert (tmp_path / "pytorch_model.bin").stat().st_size < 4e6
    found = read(tmp_path / "pytorch_model.bin")
    for prefix, ours in ((FIRST, found.vae), (GENERATOR, found.vocoder), (DENOISER, found.unet)):
        with torch.device("meta"):
            net = NETWORKS[prefix][0]()
        net.load_state_dict(ours, strict=True, assign=True)
        names = {f"{prefix}{name}" for name in released_shapes(prefix)}
        assert {state[name].flatten()[0].item() for name in names} == {
            v.flatten()[0].item() for v in ours.values()
        }
    places = {name: place for place, name in enumerate(state)}
    assert found.scale == places["scale_factor"]
    norm = found.average["down_blocks.1.attentions.2.norm.weight"]
    assert norm[0] == places[f"{AVERAGE}input_blocks51normweight"]
    accounted = [len(part) for part in (found.vae, found.vocoder, found.unet, found.average, found.schedule)]
    doubles = sum(name.startswith(AGAIN) for name in state)
    dropped = sum(name.startswith(DROPPED) for name in state)
    assert [*accounted, doubles, dropped] == [252, 254, 1104, 1104, 2, 506, 2 + 506 + 11]


def test_names_without_dots_stay_apart():
    names = list(released_shapes(DENOISER))
    assert len({name.replace(".", "") for name in names}) == len(names) == 1104


# ---------------------------------------------------------------- small, by value


@pytest.fixture
def small(monkeypatch, workplace):
    make_small(monkeypatch)


def saved(state: dict, name: str = "pytorch_model.bin") -> Path:
    torch.save({"state_dict": state}, name)
    return Path(name)


def stages() -> tuple[VAE, LatentDiffusion, Vocoder]:
    frontend = FRONTEND | {"n_mels": 256}
    adversarial = {"weights": {}, "optimizer": OPTIMIZER, "frontend": frontend, "critic_from": 0}
    vae = VAE(model=MODELS["vae"], critic=CRITICS["vae"], **adversarial)
    vocoder = Vocoder(model=MODELS["vocoder"], critic=CRITICS["vocoder"], **adversarial)
    options = {"drop": 0.1, "ema_decay": 0.99, "scale_batches": 4, "cache_latents": False}
    settings = {"variant": "code"}
    ldm = LatentDiffusion({"v": 1.0}, OPTIMIZER, MODELS["ldm"], settings, vae, **options)
    return vae, ldm, vocoder


def after(prefix: str, state: dict) -> dict:
    """Of a file, what is in `released_shapes(prefix)`, by these names."""
    return {name: state[f"{prefix}{name}"] for name in released_shapes(prefix)}


def assert_same(ours: dict, wanted: dict) -> None:
    assert ours.keys() == wanted.keys()
    assert all(torch.equal(value, wanted[name]) for name, value in ours.items())


def test_every_tensor_lands_in_its_stage(small):
    state = drawn()
    file, (vae, ldm, vocoder) = saved(state), stages()
    critic = {name: value.clone() for name, value in vae.critic.state_dict().items()}
    for stage in (vae, ldm, vocoder):
        stage.convert(file)
    assert_same(vae.generator.state_dict(), vae_state(after(FIRST, state)))
    assert_same(vocoder.generator.state_dict(), after(GENERATOR, state))
    assert_same(ldm.unet.state_dict(), unet_state(after(DENOISER, state)))
    resnet, theirs = ldm.averaged.up_blocks[0].resnets[2].conv1.weight, "output_blocks20in_layers2weight"
    assert torch.equal(resnet, state[f"{AVERAGE}{theirs}"])
    differing = zip(ldm.averaged.parameters(), ldm.unet.parameters(), strict=True)
    assert not any(torch.equal(mean, raw) for mean, raw in differing)
    assert ldm.scale == torch.tensor(SCALE)
    assert ldm.null == torch.tensor(SCALE) * -11.4981
    assert_same(vae.critic.state_dict(), critic)


def test_converted_is_the_state_of_the_network(small):
    file = saved(drawn())
    for stage in stages():
        stage.network.load_state_dict(stage.converted(file), strict=True)


def test_a_fine_tuning_keeps_the_scale(small):
    _, ldm, _ = stages()
    ldm.convert(saved(drawn()))
    ldm.train().losses(pair_of(0, 1))
    assert ldm.scale == torch.tensor(SCALE)


@pytest.mark.parametrize("kind", ["bare", "safetensors", "legacy", "half"])
def test_whatever_it_was_saved_as(small, kind):
    state, file = drawn(), Path("model.safetensors" if kind == "safetensors" else "model.ckpt")
    if kind == "safetensors":
        save_file(state, file)
    elif kind == "half":
        torch.save({name: v.half() if v.is_floating_point() else v for name, v in state.items()}, file)
    else:
        torch.save(state, file, _use_new_zipfile_serialization=kind == "bare")
    vae, ldm, _ = stages()
    vae.convert(file)
    ldm.convert(file)
    wanted = vae_state(after(FIRST, state))
    assert all(torch.allclose(v, wanted[name], atol=2e-4) for name, v in vae.generator.state_dict().items())
    assert float(ldm.scale) == pytest.approx(SCALE, abs=2e-4)
    assert all(value.dtype == torch.float32 for value in ldm.unet.state_dict().values())


def test_a_pruned_file_is_whole_without_what_is_not_used(small):
    """Without CLAP, the doubles, the schedule and the average: then the weights are their own average."""
    kept = {k: v for k, v in drawn().items() if k.startswith((FIRST, DENOISER)) or k == "scale_factor"}
    _, ldm, _ = stages()
    ldm.convert(saved(kept))
    assert_same(ldm.averaged.state_dict(), ldm.unet.state_dict())
    save_file({name: value.contiguous() for name, value in ldm.state_dict().items()}, "run.safetensors")


CONV, QUERY = f"{DENOISER}out.2.weight", f"{FIRST}encoder.mid.attn_1.q.weight"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({CONV: None}, f"it lacks {CONV} of the denoiser (1 of 1104)"),
        ({QUERY: None}, f"it lacks {QUERY} of the autoencoder (1 of 252)"),
        ({f"{GENERATOR}conv_pre.bias": None}, f"it lacks {GENERATOR}conv_pre.bias of the vocoder"),
        ({f"{AVERAGE}out0bias": None}, f"it lacks {AVERAGE}out0bias of the denoiser's moving average"),
        ({"scale_factor": None}, "it lacks scale_factor of the latents"),
        ({CONV: torch.zeros(3, 8, 3, 3)}, f"{CONV} is [3, 8, 3, 3] where the denoiser has [2, 8, 3, 3]"),
        ({QUERY: torch.zeros(8, 8)}, f"{QUERY} is [8, 8] where the autoencoder has [10, 10, 1, 1]"),
        ({f"{DENOISER}out.3.weight": torch.zeros(1)}, f"it also has {DENOISER}out.3.weight (1)"),
        ({"discriminator.weight": torch.zeros(1)}, "it also has discriminator.weight (1)"),
        ({f"{AGAIN}new.weight": torch.zeros(1)}, f"it also has {AGAIN}new.weight (1)"),
        (
            {f"{AGAIN}quant_conv.bias": torch.zeros(4)},
            f"{AGAIN}quant_conv.bias is not {FIRST}quant_conv.bias",
        ),
        ({"scale_factor": torch.tensor(-1.0)}, "scale_factor is -1.0: a number above 0"),
        ({"scale_factor": torch.tensor(math.nan)}, "scale_factor is nan: a number above 0"),
        ({"betas": torch.linspace(1e-4, 0.02, 1000)}, "its betas are of another noise schedule"),
        ({"alphas_cumprod": torch.ones(4)}, "alphas_cumprod is [4] where the noise schedule has [1000]"),
    ],
)
def test_what_is_not_audiosr_is_refused_by_name(small, change, message):
    state = {name: value for name, value in (drawn() | change).items() if value is not None}
    _, ldm, _ = stages()
    with pytest.raises(UserError) as refused:
        ldm.convert(saved(state))
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


class Opened:
    """What runs when it is unpickled."""

    def __reduce__(self):
        return os.mkdir, ("opened",)


def test_nothing_but_tensors_is_loaded(small):
    state = drawn()
    for number, content in enumerate(
        ({"state_dict": state | {"more": Opened()}}, {"state_dict": {"a": 1}}, [1])
    ):
        torch.save(content, f"{number}.bin")
    torch.save(Opened(), "3.bin", _use_new_zipfile_serialization=False)
    Path("4.bin").write_bytes(saved(state).read_bytes()[:-100])
    Path("5.safetensors").write_bytes(b"not")
    for name in ("0.bin", "1.bin", "2.bin", "3.bin", "4.bin", "5.safetensors"):
        with pytest.raises(
            UserError, match=rf"{name} holds no tensors by name, or more than tensors"
        ) as refused:
            read(Path(name))
        assert "\n" not in str(refused.value)
    assert not Path("opened").exists()
