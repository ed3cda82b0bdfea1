"""AudioSR's networks against the released modules' goldens, closed forms and librosa."""

import ast
import math
import zlib
from pathlib import Path

import librosa
import numpy as np
import pytest
import torch
from torch import nn

from lightning_modules.audiosr import discriminators as disc
from lightning_modules.audiosr.frontend import LogMel, magnitude
from lightning_modules.audiosr.networks import HiFiGAN, autoencoder, unet
from lightning_modules.audiosr.released import unet_state, vae_state

GOLDENS = Path(__file__).parents[1] / "goldens"

VAE, VOCODER, UNET = "first_stage_model.", "first_stage_model.vocoder.", "model.diffusion_model."


def on_meta(build) -> nn.Module:
    with torch.device("meta"):
        return build().eval()


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


# ---------------------------------------------------------------- full size, against the release


@pytest.mark.parametrize(
    ("build", "count"), [(autoencoder, 223_535_569), (unet, 258_195_088), (HiFiGAN, 190_281_889)]
)
def test_parameter_counts_are_the_released(build, count):
    assert parameters(on_meta(build)) == count


def released_shapes(prefix: str, without: str = "\0") -> dict[str, tuple[int, ...]]:
    """Full name -> shape of every released parameter whose name starts with `prefix`."""
    lines = (GOLDENS / "audiosr_names.txt").read_text().splitlines()
    rows = (line.split(" ", 1) for line in lines if line.startswith(prefix) and not line.startswith(without))
    return {name: ast.literal_eval(rest[: rest.index(")") + 1]) for name, rest in rows}


def seeded(name: str, shape: tuple[int, ...]) -> torch.Tensor:
    """The weight that the specs (section 7) give to a released name."""
    w = (
        np.random.RandomState(zlib.crc32(f"wideband-{name}".encode()))
        .standard_normal(shape)
        .astype(np.float32)
    )
    if w.ndim > 1:
        w /= np.float32(math.sqrt(math.prod(shape[1:])))
    else:
        w = np.float32(0.05) * w + np.float32(name.endswith("weight"))
    return torch.from_numpy(w)


def with_seeded_weights(build, mapping, prefix: str, without: str = "\0") -> nn.Module:
    """Built on meta and loaded by assignment, so that the weights are in memory once."""
    shapes = released_shapes(prefix, without)
    state = {name.removeprefix(prefix): seeded(name, shape) for name, shape in shapes.items()}
    net = on_meta(build)
    net.load_state_dict(mapping(state), strict=True, assign=True)
    return net


def golden(*names: str) -> list[torch.Tensor]:
    with np.load(GOLDENS / "audiosr.npz") as arrays:
        return [torch.from_numpy(arrays[name]) for name in names]


def assert_close(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    difference = (ours - theirs).abs().max().item()
    print(f"max abs difference {difference:.1e}, rms {theirs.square().mean().sqrt():.2f}")
    assert ours.shape == theirs.shape
    assert difference < 1e-4


def test_frontend_is_the_released():
    wave, log_mel = golden("frontend.waveform", "frontend.log_mel")
    assert_close(LogMel()(wave[None])[0], log_mel)


@torch.no_grad()
def test_autoencoder_is_the_released():
    net = with_seeded_weights(autoencoder, vae_state, VAE, without=VOCODER)
    mel, moments, latent, decoded = golden("vae.mel", "vae.moments", "vae.latent", "vae.decoded")
    assert_close(net.encode(mel).latent_dist.parameters, moments)
    assert_close(net.decode(latent).sample, decoded)


@torch.no_grad()
def test_unet_is_the_released():
    net = with_seeded_weights(unet, unet_state, UNET)
    x, t, output = golden("unet.input", "unet.timesteps", "unet.output")
    assert_close(net(x, t, encoder_hidden_states=None).sample, output)


@torch.no_grad()
def test_vocoder_is_the_released():
    net = with_seeded_weights(HiFiGAN, dict, VOCODER)
    mel, wave = golden("vocoder.mel", "vocoder.waveform")
    untrimmed = net.untrimmed(mel)
    assert_close(untrimmed, wave)
    assert untrimmed.shape[-1] == 480 * mel.shape[-1] + 16


@pytest.mark.parametrize("mapping", [vae_state, unet_state])
def test_an_unknown_released_name_is_named(mapping):
    for name in ("encoder.mid.attn_9.q.weight", "input_blocks.1.1.norm.weight", "conv_in.scale", "weight"):
        with pytest.raises(ValueError, match=name):
            mapping({name: torch.zeros(1)})


def test_released_names_map_to_ours():
    vae = vae_state(
        {"decoder.up.3.block.0.conv1.bias": 0, "encoder.mid.attn_1.q.weight": torch.ones(4, 4, 1, 1)}
    )
    assert vae["decoder.up_blocks.0.resnets.0.conv1.bias"] == 0
    assert vae["encoder.mid_block.attentions.0.to_q.weight"].shape == (4, 4)
    names = {
        "input_blocks.3.0.op.weight": "down_blocks.0.downsamplers.0.conv.weight",
        "input_blocks.11.2.norm.bias": "down_blocks.3.attentions.3.norm.bias",
        "middle_block.3.out_layers.3.bias": "mid_block.resnets.1.conv2.bias",
        "output_blocks.5.3.conv.weight": "up_blocks.1.upsamplers.0.conv.weight",
        "output_blocks.11.0.skip_connection.bias": "up_blocks.3.resnets.2.conv_shortcut.bias",
    }
    assert list(unet_state(dict.fromkeys(names))) == list(names.values())


# ---------------------------------------------------------------- any width


@pytest.mark.parametrize(
    ("channels", "groups", "latent"), [((16, 32, 64, 64), 8, 4), ((32, 64, 96, 128), 16, 16)]
)
@torch.no_grad()
def test_autoencoder_keeps_shapes_at_any_width(channels, groups, latent):
    net = autoencoder(channels, layers_per_block=1, latent_channels=latent, norm_num_groups=groups)
    mel = torch.randn(2, 1, 64, 256)
    z = net.encode(mel).latent_dist.sample()
    assert z.shape == (2, latent, 8, 32)
    assert net.decode(z).sample.shape == mel.shape


@pytest.mark.parametrize(
    ("channels", "heads", "groups"),
    [((32, 64, 96, 128), (2, 4, 6, 8), 16), ((16, 24, 32, 48), (1, 2, 2, 3), 8)],
)
@torch.no_grad()
def test_an_untrained_unet_predicts_zero(channels, heads, groups):
    net = unet(channels, heads, layers_per_block=1, latent_channels=4, norm_num_groups=groups)
    v = net(torch.randn(2, 8, 8, 32), torch.tensor([1, 999]), encoder_hidden_states=None).sample
    assert v.shape == (2, 4, 8, 32)
    assert not v.any()
    attention = net.mid_block.attentions[0].transformer_blocks[0].attn1
    assert attention.heads == heads[-1]


@pytest.mark.parametrize("channels", [96, 128])
@torch.no_grad()
def test_vocoder_gives_480_samples_a_frame(channels):
    net = HiFiGAN(n_mels=32, channels=channels)
    mel = torch.randn(2, 32, 7)
    wave, untrimmed = net(mel), net.untrimmed(mel)
    assert wave.shape == (2, 1, 480 * 7)
    assert untrimmed.shape == (2, 1, 480 * 7 + 16)
    assert wave.abs().max() <= 1
    torch.testing.assert_close(wave, untrimmed[..., :-16])


def test_vocoder_refuses_channels_that_do_not_halve():
    with pytest.raises(ValueError, match="100 cannot be halved 5 times"):
        HiFiGAN(channels=100)


# ---------------------------------------------------------------- discriminators and losses

RESOLUTIONS = [(256, 30, 150), (128, 16, 64)]


def listed(judgement) -> list[disc.Judgement]:
    return judgement if isinstance(judgement, list) else [judgement]


@pytest.mark.parametrize(
    ("build", "shape", "count", "layers"),
    [
        (lambda: disc.MultiPeriodDiscriminator(channels=2), (2, 1, 3001), 5, 6),
        (lambda: disc.MultiResolutionDiscriminator(RESOLUTIONS, channels=4), (2, 1, 3000), 2, 6),
        (lambda: disc.PatchDiscriminator(channels=8), (2, 1, 64, 256), 1, 5),
    ],
)
def test_discriminators_pass_gradients_everywhere(build, shape, count, layers):
    torch.manual_seed(0)
    net, real, fake = build(), torch.randn(shape), torch.randn(shape, requires_grad=True)
    real, judged = listed(net(real)), listed(net(fake))
    assert len(judged) == count
    for scores, features in judged:
        assert len(features) == layers
        assert features[-1] is scores
        assert len(scores) == 2
    (disc.least_squares_generator(judged) + disc.feature_matching(real, judged)).backward()
    assert fake.grad.abs().sum() > 0
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


@torch.no_grad()
def test_full_size_discriminators_are_as_wide_as_their_papers():
    wave, image = torch.zeros(1, 1, 8192, device="meta"), torch.zeros(1, 1, 64, 256, device="meta")
    for _, features in on_meta(disc.MultiPeriodDiscriminator)(wave):
        assert [f.shape[1] for f in features] == [32, 128, 512, 1024, 1024, 1]
    scores, features = on_meta(disc.PatchDiscriminator)(image)
    assert [f.shape[1] for f in features] == [64, 128, 256, 512, 1]
    assert scores.shape == (1, 1, 6, 30)  # patches of 70 x 70, 8 apart


def test_period_discriminator_sees_only_its_own_phase():
    net = disc.PeriodDiscriminator(3, channels=2)
    wave = torch.randn(1, 1, 3 * 300)
    changed = wave.clone()
    changed[..., 1::3] += 1
    (before, _), (after, _) = net(wave), net(changed)
    assert before.shape[-1] == 3
    torch.testing.assert_close(before[..., [0, 2]], after[..., [0, 2]])
    assert not torch.allclose(before[..., 1], after[..., 1])


def judged(*scores: float) -> list[disc.Judgement]:
    """One discriminator for each score, which is also its only feature."""
    return [(torch.full((2, 1, 3), float(s)), [torch.full((2, 1, 3), float(s))]) for s in scores]


def test_least_squares_closed_forms():
    assert disc.least_squares_critic(judged(1, 1), judged(0, 0)) == 0
    assert disc.least_squares_critic(judged(0.5), judged(0.5)) == 0.5
    assert disc.least_squares_generator(judged(1)) == 0
    assert disc.least_squares_generator(judged(0, 3)) == 1 + 4


def test_hinge_closed_forms():
    assert disc.hinge_critic(judged(1, 7), judged(-1, -7)) == 0
    assert disc.hinge_critic(judged(0, 0), judged(0, 0)) == 4
    assert disc.hinge_generator(judged(2, -0.5)) == -1.5


def test_feature_matching_closed_form_and_target():
    assert disc.feature_matching(judged(1, 2), judged(1, 2)) == 0
    assert disc.feature_matching(judged(1, 2), judged(0, 4)) == 1 + 2
    real, fake = torch.ones(3, requires_grad=True), torch.zeros(3, requires_grad=True)
    disc.feature_matching([(real, [real])], [(fake, [fake])]).backward()
    assert real.grad is None
    torch.testing.assert_close(fake.grad, torch.full((3,), -1 / 3))


# ---------------------------------------------------------------- front-end


def test_magnitude_of_a_sine():
    """A sine on a bin has there half the sum of the window, which is shorter than the transform."""
    sine = torch.sin(2 * math.pi * 32 / 256 * torch.arange(2048))[None, None]
    spectrum = magnitude(sine, 256, 64, 128)[0]
    assert spectrum.shape == (129, 2048 // 64)
    assert (spectrum.argmax(0)[2:-2] == 32).all()
    torch.testing.assert_close(spectrum[32, 2:-2], torch.full((28,), 32.0), rtol=1e-3, atol=0)


def test_log_mel_is_librosas():
    wave = 0.1 * torch.randn(2, 1, 48000, generator=torch.Generator().manual_seed(0))
    frontend = LogMel()
    padded = np.pad(wave[:, 0].numpy(), ((0, 0), (784, 784)), mode="reflect")
    linear = np.abs(librosa.stft(padded, n_fft=2048, hop_length=480, center=False))
    filters = librosa.filters.mel(sr=48000, n_fft=2048, n_mels=256, fmin=20, fmax=24000)
    log_mel = np.log(np.maximum(filters @ linear, 1e-5))
    np.testing.assert_allclose(frontend.magnitude(wave), linear, atol=1e-4)
    np.testing.assert_allclose(frontend(wave), log_mel, atol=1e-4)


def test_log_mel_has_a_frame_for_480_samples_and_a_floor():
    frontend = LogMel()
    for frames in (4, 100):
        silence = frontend(torch.zeros(1, 1, 480 * frames))
        assert silence.shape == (1, 256, frames)
        torch.testing.assert_close(silence, torch.full_like(silence, math.log(1e-5)))
    assert not frontend.state_dict()


def test_log_mel_stays_in_float32_under_autocast():
    wave = torch.randn(1, 1, 4800)
    with torch.autocast("cpu", torch.bfloat16):
        under = LogMel()(wave)
    assert under.dtype == torch.float32
    torch.testing.assert_close(under, LogMel()(wave))
