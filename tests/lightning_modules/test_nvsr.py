"""NVSR: counts and goldens, front-end, released files, what is learnt, the method around its vocoders."""

import math
import os
import re
import zlib
from functools import partial
from pathlib import Path

import librosa
import numpy as np
import pytest
import torch
from audiosr_tiny import FRONTEND as AUDIOSR
from audiosr_tiny import OPTIMIZER, one_thread, pair_of, random_wave, tiny_vocoder  # noqa: F401
from torch import nn

from lightning_modules import audiosr, build_method, find_stage, nvsr
from lightning_modules.audiosr.frontend import LogMel
from lightning_modules.nvsr import (
    DNN,
    NVSR,
    PREDICTOR,
    TFGAN,
    TYPICAL,
    VOCODER,
    MelPredictor,
    ResUNet,
    Vocoder,
)
from signals.errors import UserError
from signals.filters import boxcar
from signals.resampling import resample
from signals.types import Pair, Recording, Signal

GOLDEN = Path(__file__).parents[1] / "goldens" / "released.npz"

RATE = 48000
FRONTEND = {
    "rate": 44100,
    "n_fft": 2048,
    "hop": 441,
    "n_mels": 128,
    "fmin": 0,
    "fmax": 22050,
    "floor": 1e-8,
    "htk": True,
    "norm": None,
    "center": True,
    "log10": True,
}
FEW = FRONTEND | {"n_mels": 32}
MODELS = {"dnn": {"hidden": (16, 24, 24, 16)}, "resunet": {"channels": (4, 6), "depth": 2}}
VOICE = {"condition": 8, "channels": 32, "depth": 2}
CRITIC = {"period": {"channels": 1}, "resolution": {"channels": 2}}
LOSSES = {"mel": 45.0, "adversarial": 1.0, "feature_matching": 2.0, "critic": 1.0}


def predictor(
    network: str = "dnn", frontend=FEW, level: bool = False, seed: int = 0, **model
) -> MelPredictor:
    torch.manual_seed(seed)
    return MelPredictor({"l1": 1.0}, OPTIMIZER, network, model or MODELS[network], frontend, level)


def vocoder(seed: int = 0, **model) -> Vocoder:
    torch.manual_seed(seed)
    return Vocoder(LOSSES, OPTIMIZER, model or VOICE, CRITIC, FEW, critic_from=0)


def method(network: str = "dnn", **settings) -> NVSR:
    """With weights that are drawn, and loud: on its own, an untrained vocoder is nearly silent."""
    voice = vocoder().eval()
    with torch.no_grad():
        voice.generator.last.weight *= 20
    return NVSR(RATE, predictor(network).eval(), voice, **settings).eval()


def of_48k(**settings) -> NVSR:
    """The one with AudioSR's front-end and vocoder."""
    return NVSR(
        RATE, predictor("resunet", AUDIOSR, level=True).eval(), tiny_vocoder().eval(), **settings
    ).eval()


def rms(wave: torch.Tensor) -> float:
    return float(wave.square().mean().sqrt())


def parameters(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


# ---------------------------------------------------------------- against the authors' code


def test_the_parameter_counts_are_the_published():
    with torch.device("meta"):
        dnn, unet, voice = DNN(), ResUNet(), TFGAN()
    assert (parameters(dnn), parameters(unet)) == (591_494, 65_152_867)
    skips = sum(i * o + o for i, o in ((1024, 512), (512, 256), (256, 128), (128, 64)))  # which theirs has
    assert parameters(voice) + skips == 33_862_465
    assert round((parameters(unet) + parameters(voice) + skips) / 1e6) == 99


def drawn(name: str, shape: torch.Size) -> torch.Tensor:
    """The weight that the goldens give to a name of theirs."""
    random = np.random.RandomState(zlib.crc32(f"wideband-{name}".encode()))
    w = random.standard_normal(tuple(shape)).astype(np.float32)
    if w.ndim > 1:
        w = w / np.float32(math.sqrt(math.prod(shape[1:])))
    else:
        w = np.float32(0.05) * w + np.float32(name.endswith("weight"))
    return torch.from_numpy(w)


def golden(*keys: str) -> list[torch.Tensor]:
    with np.load(GOLDEN) as arrays:
        return [torch.from_numpy(np.asarray(arrays[key])) for key in keys]


def assert_close(ours: torch.Tensor, theirs: torch.Tensor, atol: float = 1e-4) -> None:
    print(f"max abs difference {(ours - theirs).abs().max():.1e}, rms {theirs.square().mean().sqrt():.2g}")
    torch.testing.assert_close(ours, theirs, atol=atol, rtol=0)


def their_names(network: str, net: nn.Module) -> dict[str, str]:
    """Ours -> theirs, of modules."""
    modules = nvsr.resunet_names(net) if network == "resunet" else ((str(n), str(n)) for n in range(len(net)))
    return {ours: f"{PREDICTOR}{theirs}" for ours, theirs in modules}


@torch.no_grad()
@pytest.mark.parametrize("network", ["dnn", "resunet"])
def test_the_networks_are_the_authors(network):
    net = {"dnn": DNN, "resunet": ResUNet}[network]().eval()
    names = their_names(network, net)
    for name, p in net.named_parameters():
        ours = max((module for module in names if name.startswith(f"{module}.")), key=len)
        p.copy_(drawn(f"nvsr_{network}.{names[ours]}{name.removeprefix(ours)}", p.shape))
    mel, out, residual = golden(*(f"nvsr_{network}.{key}" for key in ("input.mel", "out_logmel", "residual")))
    log_mel = mel.clamp(min=1e-8).log10()
    made = net(log_mel)
    assert_close(made, residual)
    assert_close(made + log_mel, out)
    if network == "resunet":
        assert not made[..., -1].any()
        assert_close(net(log_mel[:, :, :64]), *golden("nvsr_resunet.residual_t64"))
        stage = predictor("resunet", FRONTEND, channels=(2,), depth=1)
        stage.net = net
        assert_close(stage(log_mel[:, 0].mT).mT, out[:, 0])


def test_the_frontend_is_the_authors():
    wave, log_mel = golden("signals.44100.ref", "nvsr_frontend.logmel")
    assert_close(LogMel(**FRONTEND)(wave.view(1, 1, -1)).mT[:, None], log_mel)


@torch.no_grad()
def test_the_known_band_is_put_back_as_by_the_authors():
    known, made, head, bins = golden(
        "signals.44100.est",
        "signals.44100.ref",
        "nvsr_postproc.pad_constant.head",
        "nvsr_postproc.pad_constant.cutoff_bin",
    )
    known, made = known.view(1, 1, -1), made.view(1, 1, -1)
    edge = method().band_edge(Recording.of(known, 44100))
    assert edge.tolist() == [int(bins) * 44100 / 2048]
    assert_close(method().replace_low_band(made, known, edge)[0, 0, :4096], head, atol=1e-5)


# ---------------------------------------------------------------- front-end


def test_the_frontend_is_librosas():
    wave = random_wave(2, 9000)
    linear = np.abs(librosa.stft(wave[:, 0].numpy(), n_fft=2048, hop_length=441, pad_mode="reflect"))
    filters = librosa.filters.mel(sr=44100, n_fft=2048, n_mels=128, fmin=0, fmax=22050, htk=True, norm=None)
    frontend = LogMel(**FRONTEND)
    np.testing.assert_allclose(frontend.magnitude(wave), linear, atol=1e-4)
    np.testing.assert_allclose(frontend(wave), np.log10(np.maximum(filters @ linear, 1e-8)), atol=1e-4)


def test_the_frontend_has_a_frame_around_both_ends_and_a_floor():
    frontend = LogMel(**FRONTEND)
    silence = frontend(torch.zeros(1, 1, 441 * 10))
    assert silence.shape == (1, 128, 11)
    assert (silence == -8).all()
    assert predictor().image(torch.zeros(1, 1, 441 * 10)).shape == (1, 32, 10)


# ---------------------------------------------------------------- networks


@torch.no_grad()
def test_frames_are_filled_with_a_mel_of_one():
    net, log_mel = predictor("resunet").net.eval(), torch.randn(2, 1, 30, 32) - 2
    filled = nn.functional.pad(log_mel, (0, 0, 0, 2))
    torch.testing.assert_close(net(log_mel), net(filled)[:, :, :30])
    silent = nn.functional.pad(log_mel, (0, 0, 0, 2), value=-8)
    assert (net(log_mel) - net(silent)[:, :, :30]).abs().max() > 1e-3


@torch.no_grad()
def test_the_last_band_is_not_heard():
    net, log_mel = ResUNet((2, 3, 4), depth=1).eval(), torch.randn(1, 1, 16, 256)
    changed = log_mel.clone()
    changed[..., -1] += 1
    assert torch.equal(net(log_mel), net(changed))
    assert net(log_mel).shape == log_mel.shape
    changed[..., -2] += 1
    assert not torch.equal(net(log_mel), net(changed))


def test_wrong_sizes_are_errors_that_help():
    with pytest.raises(UserError, match=r"frontend\.n_mels=33: a multiple of 4 is needed"):
        predictor("resunet", FRONTEND | {"n_mels": 33})
    with pytest.raises(UserError, match="network=gru: dnn or resunet"):
        MelPredictor({"l1": 1.0}, OPTIMIZER, "gru", {}, FEW)
    with pytest.raises(UserError, match="a log10 mel with a hop of 21 samples is needed"):
        vocoder(**VOICE, rates=(7, 3))
    with pytest.raises(UserError, match="channels=40 cannot be halved 4 times"):
        vocoder(channels=40)


@torch.no_grad()
@pytest.mark.parametrize("frames", [1, 7, 8])
def test_a_frame_is_a_hop_of_samples(frames):
    log_mel = torch.randn(2, 32, frames)
    assert vocoder()(log_mel).shape == (2, 1, 441 * frames)
    even = vocoder(condition=8, channels=16, rates=(9, 7, 7), depth=1)
    assert even(log_mel).shape == (2, 1, 441 * frames)
    assert even(log_mel).abs().max() < 1


@torch.no_grad()
def test_what_the_vocoder_hears():
    """-115 dB below the typical and 20 less is -4, 20 dB above it is 4, and in between is a line."""
    voice, heard = vocoder(), []
    voice.generator.register_forward_pre_hook(lambda module, given: heard.append(given[0]))
    band = torch.arange(1, 33) * 4
    typical = (TYPICAL[0] * (TYPICAL[1] * band).exp()).log10()
    for decibels, level in ((20, 4), (60, 4), (-37.5, 0), (-95, -4), (-150, -4)):
        voice((typical + decibels / 20).view(1, 32, 1).expand(1, 32, 6))
        levels = heard.pop()
        assert levels.shape[-1] == 10
        torch.testing.assert_close(levels[..., :6], torch.full((1, 32, 6), float(level)), atol=1e-4, rtol=0)
        assert (levels[..., 6:] == -4).all()
    voice(torch.zeros(1, 32, 7))
    assert heard.pop().shape[-1] == 12  # an even number


# ---------------------------------------------------------------- what is learnt


@pytest.mark.parametrize("network", ["dnn", "resunet"])
def test_gradients_reach_every_parameter(network):
    stage = predictor(network).train()
    sum(stage.losses(pair_of(1, 2)).values()).backward()
    for name, p in stage.named_parameters():
        assert p.grad.isfinite().all()
        assert p.grad.abs().max() > 1e-9, name


def test_gradients_reach_every_parameter_of_the_vocoder():
    stage = vocoder()
    terms = stage.losses(pair_of(1, 2, samples=15360))
    assert set(terms) == set(LOSSES)
    sum(stage.weights[name] * term for name, term in terms.items()).backward()
    for name, p in stage.named_parameters():
        assert p.grad.isfinite().all()
        assert p.grad.abs().max() > 1e-9, name


@pytest.mark.parametrize("network", ["dnn", "resunet"])
def test_one_window_is_learnt_by_heart(network):
    model = {"hidden": (64, 64)} if network == "dnn" else {"channels": (16, 16), "depth": 1}
    stage, pair = predictor(network, **model).train(), pair_of(1)
    adam = torch.optim.Adam(stage.parameters(), 3e-3)
    first = stage.losses(pair)["l1"].item()
    for _ in range(120):
        adam.zero_grad()
        loss = stage.losses(pair)["l1"]
        loss.backward()
        adam.step()
    assert loss < 0.2 * first


def test_the_vocoder_learns_one_window():
    stage, pair = vocoder(condition=32, channels=64, depth=2), pair_of(1, samples=7680)
    adam = torch.optim.Adam(stage.generator.parameters(), 2e-3)
    first = stage.generator_losses(pair, stage.generate(pair), adversarial=False)["mel"].item()
    for _ in range(40):
        adam.zero_grad()
        loss = stage.generator_losses(pair, stage.generate(pair), adversarial=False)["mel"]
        loss.backward()
        adam.step()
    assert loss < 0.3 * first


@torch.no_grad()
@pytest.mark.parametrize("rate", [44100, 48000, 16000])
def test_signals_come_to_the_rate_of_the_frontend(rate):
    """A sine has the same mel whatever rate it comes at."""

    def sine(rate: int) -> Signal:
        seconds = torch.arange(rate, dtype=torch.double) / rate
        return Signal.of(0.5 * (2 * torch.pi * 1000 * seconds).sin().float().view(1, 1, -1), rate)

    pair = Pair(sine(rate), sine(rate), torch.tensor([8000.0]), ["a"], torch.tensor([0]))
    heard, wanted = predictor(frontend=FRONTEND).images(pair)
    assert heard.shape == wanted.shape == (1, 128, 100)
    torch.testing.assert_close(heard, wanted)
    expected = LogMel(**FRONTEND)(sine(44100).wave)[:, 20:40, 5:95]
    assert expected.amax() > 2
    torch.testing.assert_close(heard[:, 20:40, 5:95], expected, atol=0.01, rtol=0)


@torch.no_grad()
def test_a_lower_rate_is_as_long_as_the_reference():
    high = random_wave(1, 30001)
    low = resample(high, RATE, 8000)
    pair = Pair(Signal.of(low, 8000), Signal.of(high, RATE), torch.tensor([4000.0]), ["a"], torch.tensor([0]))
    heard, wanted = predictor().images(pair)
    assert heard.shape == wanted.shape == (1, 32, 30001 * 441 // 480 // 441)


@torch.no_grad()
def test_what_it_is_judged_by():
    stage, pair = predictor().train(), pair_of(1, 2)
    stage.losses(pair)
    stage.eval()
    heard, wanted = stage.images(pair)
    measures = stage.held_out(pair)
    torch.testing.assert_close(measures["model"], (stage(heard) - wanted).abs().mean((1, 2)))
    lacking = wanted - heard
    mean = lacking.mean((0, 2), keepdim=True)
    torch.testing.assert_close(measures["constant"], (lacking - mean).abs().mean((1, 2)))
    torch.testing.assert_close(stage.losses(pair)["l1"], measures["model"].mean())
    assert stage.mean_residual.count == 2 * wanted.shape[-1]  # training only


@torch.no_grad()
def test_the_level_is_what_the_input_needs():
    pair = pair_of(1, 2)
    loud = pair._replace(
        low=pair.low._replace(wave=3 * pair.low.wave + 0.1),
        high=pair.high._replace(wave=3 * pair.high.wave + 0.1),
    )
    stage = predictor("resunet", AUDIOSR, level=True)
    for ours, louder in zip(stage.images(pair), stage.images(loud), strict=True):
        torch.testing.assert_close(ours, louder, atol=1e-3, rtol=0)
    heard, _ = stage.images(pair)
    centred = pair.low.wave - pair.low.wave.mean(-1, keepdim=True)
    wave = 0.5 * centred / centred.abs().amax(-1, keepdim=True)
    torch.testing.assert_close(heard, stage.log_mel(wave), atol=1e-3, rtol=0)
    as_it_is = predictor("resunet", AUDIOSR)
    torch.testing.assert_close(as_it_is.images(pair)[0], stage.log_mel(pair.low.wave))


@torch.no_grad()
def test_the_vocoder_is_judged_by_the_mel_of_what_comes_out():
    stage, pair = vocoder(), pair_of(1, 2, samples=15360)
    real = resample(pair.high.wave, RATE, 44100)
    assert torch.equal(stage.heard(pair), real)
    log_mel = stage.log_mel(real)
    fake = stage(log_mel[..., :-1])
    assert fake.shape == real.shape == (2, 1, 14112)
    expected = (stage.log_mel(fake) - log_mel).abs().mean((1, 2))
    torch.testing.assert_close(stage.held_out(pair)["model"], expected)


def test_stages_have_names():
    assert find_stage("nvsr.MelPredictor") is MelPredictor
    assert find_stage("nvsr.Vocoder") is Vocoder
    stage = predictor("resunet")
    assert stage.network is stage.net
    assert stage.net(*stage.example(2, 4410)).shape == (2, 1, 10, 32)
    voice = vocoder()
    assert voice.network(*voice.example(2, 4410)).shape == (2, 1, 4410)


# ---------------------------------------------------------------- the released files


@pytest.fixture
def small(monkeypatch, workplace) -> dict[str, nn.Module]:
    """Released networks of a few channels; and such, with drawn weights."""
    build = {
        PREDICTOR: partial(ResUNet, **MODELS["resunet"]),
        VOCODER: partial(TFGAN, n_mels=32, **VOICE),
    }
    monkeypatch.setattr(nvsr, "NETWORKS", build)
    torch.manual_seed(1)
    return {name: build[name]() for name in build}


def released(small: dict[str, nn.Module], norm: str = "plain") -> dict[str, torch.Tensor]:
    """NVSR's file; norm: how the vocoder's weights are written."""
    state = {"f_helper.stft.conv_real.weight": torch.zeros(2), "mel.fb": torch.zeros(2)}
    for prefix, names in ((PREDICTOR, nvsr.resunet_names), (VOCODER, nvsr.tfgan_names)):
        modules = dict(names(small[prefix]))
        for name, value in small[prefix].state_dict().items():
            ours = max((module for module in modules if name.startswith(f"{module}.")), key=len)
            theirs = f"{prefix}{modules[ours]}{name.removeprefix(ours)}"
            if prefix == PREDICTOR or norm == "plain" or not theirs.endswith("weight"):
                state[theirs] = value
                continue
            g, v = {"old": ("_g", "_v"), "new": (".original0", ".original1")}[norm]
            theirs = theirs if norm == "old" else theirs.removesuffix("weight") + "parametrizations.weight"
            scale = 1 + torch.rand(len(value), 1, 1)
            state[f"{theirs}{g}"] = value.flatten(1).norm(dim=1).view(-1, 1, 1)
            state[f"{theirs}{v}"] = scale * value
    return state | {f"{VOCODER}{name}": torch.zeros(3) for name in sorted(nvsr.unused(small[VOCODER]))}


def saved(state: dict, name: str = "released.pth") -> Path:
    torch.save(state, name)
    return Path(name)


def assert_same(ours: nn.Module, wanted: nn.Module) -> None:
    assert ours.state_dict().keys() == wanted.state_dict().keys()
    for name, value in wanted.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], value, check_dtype=False)


@pytest.mark.parametrize("norm", ["plain", "old", "new"])
@pytest.mark.parametrize("file", ["nvsr", "voicefixer", "bare"])
def test_released_weights_land_in_their_stages(small, norm, file):
    state = released(small, norm)
    if file != "nvsr":
        state = nvsr.after(VOCODER, state)
        state = {"generator": state} if file == "voicefixer" else state
    voice = vocoder(seed=5)
    voice.convert(saved(state))
    assert_same(voice.generator, small[VOCODER])
    if file == "nvsr":
        stage = predictor("resunet", seed=5)
        stage.convert(Path("released.pth"))
        assert_same(stage.net, small[PREDICTOR])


CONV, BIAS = f"{PREDICTOR}after_conv2.weight", f"{VOCODER}generator.16.bias"


@pytest.mark.parametrize(
    ("build", "change", "message"),
    [
        (partial(predictor, "resunet"), {CONV: None}, f"is not NVSR, or not whole: it lacks {CONV}"),
        (
            partial(predictor, "resunet"),
            {CONV: torch.zeros(1, 5, 1, 1)},
            "[1, 5, 1, 1] where it has [1, 4, 1, 1]",
        ),
        (partial(predictor, "resunet"), {"generator.more": torch.zeros(1)}, "it also has generator.more (1)"),
        (vocoder, {BIAS: None}, "is not voicefixer's vocoder, or not whole: it lacks generator.16.bias"),
        (vocoder, {BIAS: torch.zeros(2)}, "generator.16.bias is [2] where it has [1]"),
        (vocoder, {f"{VOCODER}generator.17.bias": torch.zeros(2)}, "it also has generator.17.bias (1)"),
        (vocoder, {f"{VOCODER}generator.1.weight_g": torch.zeros(2)}, "it also has generator.1.weight_g (1)"),
        (
            vocoder,
            {f"{VOCODER}generator.1.weight{end}": torch.zeros(2) for end in ("_g", "_v")},
            "it also has generator.1.weight_g, generator.1.weight_v (2)",
        ),
        (vocoder, {"more": torch.zeros(2)}, "it also has more (1)"),
        (vocoder, {"more": [1]}, "holds no tensors by name, or more than tensors, or is damaged"),
    ],
)
def test_what_is_not_the_released_file_is_refused_by_name(small, build, change, message):
    state = {name: value for name, value in (released(small) | change).items() if value is not None}
    with pytest.raises(UserError) as refused:
        build().convert(saved(state))
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


class Opened:
    """What runs when it is unpickled."""

    def __reduce__(self):
        return os.mkdir, ("opened",)


def test_nothing_but_tensors_is_loaded(small):
    for content in ({"generator": Opened()}, [1], {"generator": {"a": 1}}, Opened()):
        with pytest.raises(UserError, match=r"released\.pth holds no tensors by name"):
            vocoder().convert(saved(content))
    assert not Path("opened").exists()


# ---------------------------------------------------------------- the method


@torch.no_grad()
@pytest.mark.parametrize("build", [method, partial(method, "resunet"), of_48k])
@pytest.mark.parametrize("rate", [8000, 44100, 48000])
@pytest.mark.parametrize("samples", [1, 700, 9001])
def test_any_input_gives_finite_output_of_its_length(build, rate, samples):
    low = Signal.of(random_wave(2, samples), rate)
    out = build()(low)
    assert out.wave.shape == (2, 1, -(-samples * RATE // rate))
    assert out.wave.isfinite().all()
    silence = build()(Signal.of(torch.zeros(2, 1, samples), rate)).wave
    assert silence.abs().max() < 1e-6


@torch.no_grad()
@pytest.mark.parametrize("build", [method, of_48k])
def test_items_do_not_depend_on_their_batch(build):
    resolver, wave = build(), 0.1 + random_wave(2, 14001)
    lengths = torch.tensor([14001, 9000])
    together = resolver(Signal(wave, 16000, lengths))
    for row, length in enumerate(lengths.tolist()):
        alone = resolver(Signal.of(wave[row : row + 1, :, :length], 16000)).wave[0]
        torch.testing.assert_close(together.wave[row, :, : alone.shape[-1]], alone, rtol=0, atol=1e-5)
        assert not together.wave[row, :, alone.shape[-1] :].any()


@torch.no_grad()
@pytest.mark.parametrize("network", ["dnn", "resunet"])
def test_windows_are_the_whole_away_from_their_ends(network):
    wave = random_wave(1, 3 * RATE)
    low = Signal.of(boxcar(wave, torch.tensor([6000.0]), RATE), RATE)
    whole = method(network)(low).wave
    cut = method(network, window=128, overlap=64)(low).wave
    assert whole.shape == cut.shape
    centre = slice(64 * 480 + 24000, 64 * 480 + 36000)  # of the second window
    assert rms((cut - whole)[..., centre]) < 2e-3 * rms(whole[..., centre])
    assert rms(cut - whole) < 0.1 * rms(whole)


@torch.no_grad()
@pytest.mark.parametrize("build", [method, of_48k])
@pytest.mark.parametrize("rate", [16000, RATE])
def test_a_long_recording_is_enhanced_by_stretches(build, rate):
    """One level and band edge for all windows, whether it is in memory or not."""
    resolver, low = build(window=64, overlap=0), 0.1 + random_wave(2, 2 * rate)
    whole = resolver(Signal.of(low, rate), cutoff=None).wave
    pieces = list(resolver.enhance(Recording.of(low, rate), seed=3))
    assert len(pieces) > 2
    torch.testing.assert_close(torch.cat(pieces, dim=-1), whole, rtol=0, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("build", [method, of_48k])
def test_the_known_band_is_kept_and_what_is_above_is_made(build):
    cutoff = 6000.0
    wave = 0.02 + 0.05 * boxcar(random_wave(1, 30777), torch.tensor([cutoff]), RATE)
    out = build()(Signal.of(wave, RATE), cutoff=torch.tensor([cutoff])).wave
    below = boxcar(out - wave, torch.tensor([cutoff - 150]), RATE)[..., 2048:-2048]
    assert rms(below) < 1e-2 * rms(wave - wave.mean())  # the drawn vocoder is much louder
    above = (out - boxcar(out, torch.tensor([cutoff + 150]), RATE))[..., 2048:-2048]
    assert rms(above) > 1e-2 * rms(wave - wave.mean())


@torch.no_grad()
def test_nothing_is_made_above_the_frontends_band():
    out = method()(Signal.of(random_wave(1, RATE), 16000)).wave
    spectrum = torch.fft.rfft(out[..., 4096:-4096] * torch.hann_window(out.shape[-1] - 8192)).abs()[0, 0]
    hertz = torch.linspace(0, RATE / 2, len(spectrum))
    power = spectrum.square()  # images of the last resampling are some 30 to 50 dB down
    assert power[hertz > 23000].sum() < 2e-3 * power[(hertz > 9000) & (hertz < 20000)].sum()


@torch.no_grad()
def test_an_edge_is_hard_and_by_bins():
    """Bin 100 is the first that is made."""
    resolver, n = method(), torch.arange(44100)
    hertz = 44100 / 2048
    kept, made = ((2 * torch.pi * k * hertz * n / 44100).cos()[None, None] for k in (80, 120))
    edge = torch.tensor([100 * hertz])
    out = resolver.replace_low_band(3 * kept + 5 * made, kept + made, edge)
    inside = slice(2048, -2048)
    torch.testing.assert_close(out[..., inside], (kept + 5 * made)[..., inside], atol=5e-3, rtol=0)
    all_known = resolver.replace_low_band(made, kept, torch.tensor([22050.0]))
    torch.testing.assert_close(all_known, kept, atol=1e-5, rtol=0)


@torch.no_grad()
def test_the_band_edge_of_white_noise():
    wave = boxcar(random_wave(1, 2 * 44100), torch.tensor([8000.0]), 44100)
    resolver = method()
    edge = resolver.band_edge(Recording.of(torch.cat([wave, 100 * wave, 0 * wave]), 44100))
    assert edge[0].item() == pytest.approx(0.97 * 8000, abs=60)
    assert edge[1] == edge[0]
    assert edge[2] == 22050


@torch.no_grad()
def test_the_band_edge_by_stretches_is_that_of_the_whole(monkeypatch):
    wave = boxcar(random_wave(2, 30000), torch.tensor([5000.0, 9000.0]), 44100)
    resolver, recording = method(), Recording.of(wave, 44100)
    whole = resolver.band_edge(recording)
    monkeypatch.setattr(nvsr, "FRAMES", 7)
    assert torch.equal(resolver.band_edge(recording), whole)


@torch.no_grad()
@pytest.mark.parametrize("cutoff", ["estimate", "given"])
def test_whose_band_edge_is_used(cutoff, monkeypatch):
    resolver, used = method(cutoff=cutoff), []
    monkeypatch.setattr(
        resolver, "replace_low_band", lambda made, known, edge: used.append(float(edge)) or made
    )
    low = Signal.of(random_wave(1, 16000), 16000)
    resolver(low, cutoff=torch.tensor([3210.0]))
    resolver(low)
    assert used[0] == 3210
    assert used[1] == 8000 if cutoff == "given" else 7300 < used[1] < 8000
    assert resolver.blind is (cutoff == "estimate")


@torch.no_grad()
def test_levels_go_through_where_the_mel_is_levelled():
    wave, cutoff = random_wave(1, 30000), torch.tensor([8000.0])
    resolver = of_48k()
    loud, quiet = (resolver(Signal.of(level * wave, RATE), cutoff=cutoff).wave for level in (1.0, 0.01))
    assert rms(loud - 100 * quiet) < 1e-2 * rms(loud)


@torch.no_grad()
@pytest.mark.parametrize(("build", "loudest"), [(method, 5.0), (of_48k, 5 * math.log(10))])
def test_the_vocoder_hears_the_predicted_mel(build, loudest, monkeypatch):
    """In units of its front-end, and no mel above 1e5."""
    resolver, heard, wave = build(), [], random_wave(1, 9600)
    monkeypatch.setattr(resolver.vocoder, "forward", lambda mel: heard.append(mel) or torch.zeros(1, 1, 9999))
    for residual in (0.25, 100.0):
        resolver.mel.net.forward = partial(torch.full_like, fill_value=residual)
        resolver.resolve(Signal.of(wave, resolver.internal), None, None, None)
    whole = nn.functional.pad(wave, (0, -9600 % resolver.mel.log_mel.hop))
    torch.testing.assert_close(heard[0], resolver.mel.image(whole) + 0.25)
    torch.testing.assert_close(heard[1], torch.full_like(heard[1], loudest))


def test_other_rates_have_the_frames_too():
    for rate in (16000, 22050, 44100):
        resolver = NVSR(rate, predictor().eval(), vocoder().eval(), window=64, overlap=0).eval()
        out = resolver(Signal.of(random_wave(1, 2 * rate + 1), rate))
        assert out.wave.shape[-1] == 2 * rate + 1
    with pytest.raises(UserError, match=r"64 frames of 10 ms are 7061\.76 samples at 11034 Hz"):
        NVSR(11034, predictor(), vocoder())


def test_settings_are_named_and_checked():
    assert NVSR.resolved({}) == {"window": 1024, "overlap": 64, "rolloff": 0.97, "cutoff": "estimate"}
    assert NVSR.resolved({"cutoff": "given"})["cutoff"] == "given"
    with pytest.raises(UserError, match=r"unknown key method\.steps: nvsr has window, overlap"):
        NVSR.resolved({"steps": 3})
    for settings, message in (
        ({"window": 100}, "method.window=100, method.overlap=64: multiples of 64 frames"),
        ({"window": 64}, "the overlap below the window"),
        ({"cutoff": "known"}, "method.cutoff=known"),
        ({"rolloff": 1.5}, "method.rolloff=1.5"),
    ):
        with pytest.raises(UserError, match=re.escape(message)):
            method(**settings)
    parts = {"mel": predictor(), "vocoder": vocoder()}
    built = build_method("nvsr", RATE, parts, NVSR.resolved({"overlap": 128}))
    assert (built.window, built.overlap) == (1024 * 480, 128 * 480)


def test_parts_that_do_not_belong_together():
    with pytest.raises(UserError, match="mel and vocoder have different front-ends"):
        NVSR(RATE, predictor(frontend=FRONTEND), vocoder())
    with pytest.raises(UserError, match=r"this vocoder needs a mel with options\.level=false"):
        NVSR(RATE, predictor(level=True), vocoder())
    with pytest.raises(UserError, match=r"this vocoder needs a mel with options\.level=true"):
        NVSR(RATE, predictor("resunet", AUDIOSR), tiny_vocoder())
    assert issubclass(Vocoder, audiosr.Vocoder)


def test_under_autocast_a_window_is_in_single_precision():
    """What follows is a Fourier transform, which a GPU does not have in half."""
    low = Signal.of(0.1 * torch.randn(1, 1, 44100), 44100)
    with torch.autocast("cpu", torch.bfloat16):
        made = method().resolve(low, torch.tensor([4000.0]), torch.zeros(1, dtype=torch.long), None)
    assert made.dtype == torch.float32


def test_in_use_it_has_no_critic():
    assert method().in_use().vocoder.critic is None
