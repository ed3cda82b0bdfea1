"""NU-Wave: count and goldens, its schedule and input; and, of both NU-Waves, level, noise and windows."""

import math
import re
import zlib
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from audiosr_tiny import OPTIMIZER, one_thread, pair_of, random_wave  # noqa: F401
from test_audioedsr import trainer_for
from torch import Tensor, nn
from torch.utils.data import DataLoader

from callbacks.checkpoints import Checkpoints, StepSeeds
from lightning_modules import find_method, find_stage
from lightning_modules.nuwave import (
    BETAS,
    NuWave,
    NuWaveNet,
    WaveDiffusion,
    ancestral,
    every,
    interpolated,
    samples_apart,
)
from lightning_modules.nuwave2 import NuWave2
from lightning_modules.stage import noise
from signals.errors import UserError
from signals.filters import stft_hard
from signals.types import Pair, Recording, Signal

GOLDEN = Path(__file__).parents[1] / "goldens" / "released.npz"

RATE = 48000
SAMPLES = 4096
TINY = {
    NuWave: {"channels": 4, "layers": 4, "cycle": 3, "width": 8},
    NuWave2: {"channels": 4, "layers": 2, "hidden": 4, "width": 8},
}
WEIGHTS = {NuWave: {"log_l1": 1.0}, NuWave2: {"l1": 1.0}}

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*does not have many workers",
    "ignore:.*`val_dataloader`",
    "ignore:You are trying to",
    "ignore:Found .* in eval mode",
)
both = pytest.mark.parametrize("kind", [NuWave, NuWave2])


def method(kind: type = NuWave, seed: int = 0, weights=None, model=None, **use) -> WaveDiffusion:
    torch.manual_seed(seed)
    stage = kind(weights or WEIGHTS[kind], OPTIMIZER, RATE, **(TINY[kind] if model is None else model))
    stage.used(**use)
    return stage.eval()


def pairs(*seeds: int, samples: int = SAMPLES) -> Pair:
    return pair_of(*seeds, samples=samples)


# ---------------------------------------------------------------- against the authors' modules


def drawn(model: str, name: str, shape: tuple[int, ...]) -> Tensor:
    """The weight that the goldens give to a name of theirs."""
    random = np.random.RandomState(zlib.crc32(f"wideband-{model}.{name}".encode()))
    w = random.standard_normal(tuple(shape)).astype(np.float32)
    if ".input." in f".{name}":
        return torch.from_numpy(w)
    if w.ndim > 1:
        w = w / np.float32(math.sqrt(math.prod(shape[1:])))
    else:
        w = np.float32(0.05) * w + np.float32(name.endswith("weight"))
    return torch.from_numpy(w)


def theirs(net: nn.Module, model: str, prefix: str, names: tuple[tuple[str, str], ...]) -> nn.Module:
    """`net` with their weights; names: patterns of ours, and what they are there, all of whom are used."""

    def their_name(ours: str) -> str:
        found = [re.sub(f"^{old}$", new, ours) for old, new in names if re.fullmatch(old, ours)]
        assert len(found) == 1, ours
        return prefix + found[0]

    state = {name: drawn(model, their_name(name), p.shape) for name, p in net.named_parameters()}
    assert net.load_state_dict(state).unexpected_keys == []
    return net.eval()


NAMES = (
    (r"embedding\.inner\.(\w+)", r"diffusion_embedding.projection1.\1"),
    (r"embedding\.outer\.(\w+)", r"diffusion_embedding.projection2.\1"),
    (r"layers\.(\d+)\.level\.(\w+)", r"residual_layers.\1.diffusion_projection.\2"),
    (r"layers\.(\d+)\.out\.(\w+)", r"residual_layers.\1.output_projection.\2"),
    (r"skip\.(\w+)", r"skip_projection.\1"),
    (r"head\.(\w+)", r"output_projection.\1"),
)
NUWAVE_NAMES = (
    *NAMES,
    (r"layers\.(\d+)\.mixing\.of_x\.(\w+)", r"residual_layers.\1.dilated_conv.\2"),
    (r"layers\.(\d+)\.mixing\.of_low\.(\w+)", r"residual_layers.\1.low_projection.\2"),
    (r"of_y\.(\w+)", r"input_projection.\1"),
    (r"of_low\.(\w+)", r"low_projection.\1"),
)


def golden(model: str, *keys: str) -> list[Tensor]:
    with np.load(GOLDEN) as arrays:
        return [torch.from_numpy(np.asarray(arrays[f"{model}.{key}"])) for key in keys]


def assert_close(ours: Tensor, theirs: Tensor, atol: float = 1e-4, rtol: float = 0) -> None:
    assert ours.shape == theirs.shape
    print(f"max abs difference {(ours - theirs).abs().max():.1e}, rms {theirs.square().mean().sqrt():.2g}")
    torch.testing.assert_close(ours.to(theirs.dtype), theirs, atol=atol, rtol=rtol)


def their_nuwave() -> NuWave:
    stage = method(model={})
    theirs(stage.net, "nuwave", "model.", NUWAVE_NAMES)
    return stage


def test_the_parameter_count_is_the_published():
    with torch.device("meta"):
        nets = NuWaveNet(), NuWaveNet(**NuWave.defaults["options"])
    assert [sum(p.numel() for p in net.parameters()) for net in nets] == [3_049_985] * 2


@torch.no_grad()
def test_the_network_is_the_authors():
    net = their_nuwave().net
    y, low, level, out, embedding = golden(
        "nuwave", "input.audio", "input.audio_low", "input.noise_level", "out", "noise_embedding"
    )
    assert_close(net.embedding(level[:, 0]), embedding)
    assert_close(net(y[:, None], low[:, None], level[:, 0])[:, 0], out)


@torch.no_grad()
def test_the_schedules_are_the_authors():
    names = {
        "level": "sqrt_alphas_cumprod_prev",
        "of_y": "sqrt_recip_alphas_cumprod",
        "of_eps": "sqrt_alphas_cumprod_m1",
        "mean_of_start": "posterior_mean_coef1",
        "mean_of_y": "posterior_mean_coef2",
    }
    steps = ancestral(BETAS)
    for ours, key in names.items():
        (expected,) = golden("nuwave", f"infer.{key}")
        found = torch.tensor([getattr(step, ours) for step in steps])
        assert_close(found, expected[-8:], atol=0, rtol=1e-6)
    (log_variance,) = golden("nuwave", "infer.posterior_log_variance_clipped")
    deviations = torch.tensor([step.deviation for step in steps])
    assert_close(deviations, (0.5 * log_variance).exp(), atol=0, rtol=1e-5)
    (levels,) = golden("nuwave", "train.sqrt_alphas_cumprod_prev")
    assert_close(method().levels, levels, atol=1e-6)


@torch.no_grad()
def test_the_sampler_is_the_authors():
    stage = their_nuwave()
    y, low, mean, sampled = golden("nuwave", "input.audio", "input.audio_low", "p_mean_t3", "sample8")
    assert_close(stage.mean(y[:, None], low[:, None], ancestral(BETAS)[3])[:, 0], mean)
    given = {number: drawn("nuwave", f"input.z{number}", (2, 2048))[:, None] for number in range(8)}
    asked = []
    out = stage.sample(low[:, None], torch.zeros(2), lambda number: asked.append(number) or given[number])
    assert asked == list(range(8))
    assert_close(out[:, 0], sampled, atol=1e-4 * float(sampled.abs().max()))


@torch.no_grad()
def test_the_loss_is_the_authors(monkeypatch):
    out, expected = golden("nuwave", "out", "lognorm_loss_out_vs_z0")
    error = (out - drawn("nuwave", "input.z0", (2, 2048)))[:, None]
    stage = method(weights={"log_l1": 1.0, "l1": 1.0})
    monkeypatch.setattr(stage, "errors", lambda pair, salt: (None, error))
    terms = stage.losses(pairs(1, 2))
    assert_close(terms["log_l1"], expected, atol=1e-6)
    torch.testing.assert_close(terms["l1"], error.abs().mean())


@pytest.mark.parametrize("ratio", [2, 3])
def test_the_input_is_the_authors(ratio):
    """But for a frame at the start, where theirs is mirrored; at r = 3 it rounds where samples lie."""
    with np.load(GOLDEN) as arrays:
        wave = torch.from_numpy(arrays["signals.48000.ref"])[None, None]
        head = torch.from_numpy(arrays[f"nuwave_prep.r{ratio}.wav_l.head"])
    cutoff = torch.tensor([RATE / 2 / ratio])
    filtered = stft_hard(wave, cutoff, RATE, 1024, 256)
    for low, rate in ((filtered, RATE), (filtered[..., ::ratio], RATE // ratio)):
        heard = method().condition(Recording.of(low, rate), cutoff).read(0, 6000)[0, 0]
        assert_close(heard[1024:], head[1024:], atol={2: 1e-6, 3: 5e-5}[ratio])


# ---------------------------------------------------------------- its input


@pytest.mark.parametrize(
    ("rate", "ratio"),
    [(24000, 2), (16000, 3), (8000, 6), (Fraction(8000, 3), 18), (32000, 1.5), (44100, 160 / 147)],
)
def test_lines_are_pytorchs(rate, ratio):
    low = random_wave(2, 1470)
    ours = interpolated(Recording.of(low, rate), RATE)
    expected = nn.functional.interpolate(low.double(), scale_factor=ratio, mode="linear", align_corners=False)
    assert ours.samples == -(-1470 * RATE // rate)
    whole = ours.read(0, ours.samples)
    torch.testing.assert_close(whole.double(), expected[..., : ours.samples], atol=1e-6, rtol=0)
    silent = nn.functional.pad(whole, (50, 50))
    for first, count in ((-50, 100), (777, 500), (ours.samples - 50, 100), (ours.samples + 3, 10), (-20, 7)):
        stretch = silent[..., first + 50 : first + 50 + count]
        torch.testing.assert_close(
            ours.read(first, count),
            nn.functional.pad(stretch, (0, count - stretch.shape[-1])),
            atol=1e-6,
            rtol=0,
        )


def test_lines_are_exact_far_into_a_recording():
    """A ramp stays one after five hours, but for half a sample of the input."""
    samples, far = 3 * 10**8, 8 * 10**8 + 1
    ramp = Recording(
        lambda first, count: (torch.arange(first, first + count) - far // 3).float()[None, None],
        samples,
        16000,
    )
    heard = interpolated(ramp, RATE).read(far, 9)[0, 0]
    expected = (torch.arange(9) + far % 3 + 0.5) / 3 - 0.5
    torch.testing.assert_close(heard, expected, atol=1e-5, rtol=0)


def test_every_other_sample():
    wave = random_wave(2, 11)
    third = every(Recording.of(wave, RATE), 3)
    assert (third.samples, third.rate) == (4, 16000)
    assert torch.equal(third.read(0, 4), wave[..., ::3])
    assert torch.equal(third.read(1, 5), nn.functional.pad(wave[..., 3::3], (0, 2)))


def test_how_far_samples_lie_apart():
    cutoff = torch.tensor([12000.0, 8000.0, 4000.0, 24000.0, 9000.0, 48000.0, 11999.0])
    assert samples_apart(RATE, cutoff).tolist() == [2, 3, 6, 1, 1, 1, 1]
    assert samples_apart(16000, torch.tensor([8000 / 6, 8000.0, 12000.0])).tolist() == [6, 1, 1]


def test_cut_offs_of_a_batch_may_differ():
    wave = random_wave(4, 3000)
    cutoff = torch.tensor([8000.0, 12000.0, 9000.0, 8000.0])
    stage = method()
    heard = stage.condition(Recording.of(wave, RATE), cutoff).read(100, 900)
    for row, hertz in enumerate(cutoff.tolist()):
        alone = stage.condition(Recording.of(wave[row : row + 1], RATE), torch.tensor([hertz])).read(100, 900)
        assert torch.equal(alone[0], heard[row])
    assert torch.equal(heard[2], wave[2, :, 100:1000])  # 48 kHz is no multiple of 18
    lines = interpolated(Recording.of(wave[1:2, :, ::2], 24000), RATE).read(100, 900)
    assert torch.equal(heard[1], lines[0])
    higher = stage.condition(Recording.of(wave, 96000), torch.full((4,), 24000.0))
    assert (higher.rate, higher.samples) == (RATE, 1500)


# ---------------------------------------------------------------- schedule


def test_levels_lie_evenly_between_neighbours():
    stage = method()
    alpha, sigma, told = stage.noising(torch.tensor([0.0, 0.0005, 0.5, 0.99999]))
    torch.testing.assert_close(alpha.square() + sigma.square(), torch.ones(4))
    assert torch.equal(alpha, told)
    assert alpha[0] == 1
    torch.testing.assert_close(alpha[1], (1 + stage.levels[1]) / 2)
    torch.testing.assert_close(alpha[2], stage.levels[500])
    assert alpha[3] == pytest.approx(float(stage.levels[1000]), rel=1e-3)


@torch.no_grad()
def test_a_network_that_knows_the_noise_finds_the_signal(monkeypatch):
    """But for the noise that is added in the steps, and the level of the last in float32."""
    stage, wave = method(), random_wave(2, 3000)

    def predict(y, low, level):
        return (y - level[:, None, None] * wave) / (1 - level.double().square()).sqrt()[:, None, None].float()

    monkeypatch.setattr(stage.net, "forward", predict)
    out = stage.sample(wave, torch.zeros(2), lambda number: noise((1, 3000), torch.tensor([1, 2]), number))
    assert (out / 0.98690 - wave).abs().max() < 0.02 * wave.abs().max()


# ---------------------------------------------------------------- both: noise, level, windows


@both
@torch.no_grad()
def test_windows_share_their_noise(kind, monkeypatch):
    """A sampler that gives back its noise gives one noise, however it is cut."""
    wave = random_wave(2, 50000)
    wave = wave / wave.abs().amax(-1, keepdim=True)

    def noises(**use) -> Tensor:
        stage = method(kind, **use)
        monkeypatch.setattr(stage, "sample", lambda low, cutoff, drawn: drawn(0) + 10 * drawn(3))
        return stage(Signal.of(wave, RATE), seeds=torch.tensor([3, 4])).wave

    whole = noises(window=None)
    for window, overlap in ((20000, 3000), (9001, 0), (2**14, 2**13)):
        cut = noises(window=window, overlap=overlap)
        torch.testing.assert_close(cut, whole, atol=1e-5, rtol=0)
    assert whole.std() == pytest.approx(math.sqrt(101), rel=0.02)
    assert abs(float((whole[0] * whole[1]).mean())) < 3


@both
@torch.no_grad()
def test_windows_equal_the_whole_but_at_their_borders(kind):
    """There a window hears silence beyond; its neighbour fades that away."""
    for rate in (RATE, 16000):
        wave, window = random_wave(2, rate // 2), 16384
        whole, cut = (method(kind, window=size)(Signal.of(wave, rate)).wave for size in (None, window))
        error = (cut - whole).abs().amax((0, 1)) / whole.std()
        overlap = slice(window - 8192, window)
        print(f"{error[: overlap.start].max():.1e} before, {error[overlap].max():.1e} where they overlap")
        assert error[: overlap.start].max() < 1e-4
        assert error[overlap].max() < 0.2


@both
@torch.no_grad()
def test_levels_go_through(kind):
    stage = method(kind)
    for rate in (RATE, 16000):
        wave = random_wave(2, 3001)
        once = stage(Signal.of(wave, rate)).wave
        assert torch.equal(stage(Signal.of(2 * wave, rate)).wave, 2 * once)
        quiet = stage(Signal.of(1e-3 * wave, rate)).wave
        torch.testing.assert_close(quiet, 1e-3 * once, atol=1e-6, rtol=1e-2)


@both
@torch.no_grad()
def test_silence_stays_silence(kind):
    stage = method(kind, window=8192, overlap=1024)
    wave = torch.cat([torch.zeros(1, 1, 9000), random_wave(1, 9000)])
    out = stage(Signal.of(wave, 16000)).wave
    assert out.isfinite().all()
    assert torch.equal(out[0], torch.zeros_like(out[0]))
    assert out[1].abs().max() > 0
    pair = pairs(1, 2, 3)
    pair.low.wave[:2] = 0
    pair.high.wave[0] = 0
    for mode in (True, False):
        stage.train(mode).zero_grad()
        with torch.enable_grad():
            (loss,) = stage.losses(pair).values()
            loss.backward()
        assert loss.isfinite()
        assert all(p.grad.isfinite().all() and p.grad.abs().max() < 1e3 for p in stage.parameters())


def test_a_recording_has_one_peak_read_by_stretches():
    stage, longest = method(), 0

    def read(first: int, count: int) -> Tensor:
        nonlocal longest
        longest = max(longest, count)
        n = torch.arange(first, first + count)
        return torch.stack([0.5 * (n == 10**6), 0.25 * (n == 10**6 + 8)])[:, None]

    found = stage.survey(Recording(read, 2 * 10**6, RATE), torch.full((2,), 24000.0), torch.arange(2), None)
    assert found["peak"].flatten().tolist() == [0.5, 0.25]
    assert longest < 2**20


@both
@torch.no_grad()
def test_any_length_and_rate_in_the_same_time_out(kind):
    stage = method(kind, window=2000, overlap=500)
    for samples in (1, 700, 1501):
        for rate in (RATE, 16000, 8000, 44100, 96000):
            lengths = torch.tensor([samples, -(-samples // 3)])
            low = Signal(random_wave(2, samples), rate, lengths)
            out = stage(low, seeds=torch.tensor([5, 6]))
            assert out.rate == RATE
            assert out.lengths.tolist() == [-(-length * RATE // rate) for length in lengths.tolist()]
            assert out.wave.isfinite().all()
            alone = stage(Signal.of(low.wave[1:, :, : lengths[1]], rate), seeds=torch.tensor([6])).wave
            torch.testing.assert_close(alone, out.wave[1:, :, : out.lengths[1]], atol=1e-5, rtol=1e-3)


@both
@torch.no_grad()
def test_a_batch_equals_its_items_alone(kind):
    stage, pair = method(kind, weights={"l1": 1.0, "log_l1": 1.0}), pairs(1, 2, 3)
    pair = pair._replace(cutoff=torch.tensor([8000.0, 12000.0, 5000.0]))
    together, terms = stage.held_out(pair), stage.losses(pair)
    alone = []
    for row in range(3):
        own = slice(row, row + 1)
        low, high = (Signal.of(signal.wave[own], RATE) for signal in (pair.low, pair.high))
        item = Pair(low, high, pair.cutoff[own], pair.ids[own], pair.seeds[own])
        for name, values in stage.held_out(item).items():
            torch.testing.assert_close(values[0], together[name][row])
        alone.append(stage.losses(item))
    for name, term in terms.items():
        torch.testing.assert_close(torch.stack([item[name] for item in alone]).mean(), term)
    torch.testing.assert_close(terms["l1"], together["model"].mean())
    torch.testing.assert_close(terms["log_l1"], together["model"].log().mean())


@both
@torch.no_grad()
def test_what_is_random_in_training_is_new_in_every_step_and_follows_from_the_seeds(kind, monkeypatch):
    stage, pair, heard = method(kind).train(), pairs(1, 2), []
    monkeypatch.setattr(stage, "predict", lambda *given: heard.append(given) or torch.zeros_like(given[0]))
    for seen in (0, 0, 1):
        stage.batches_seen.fill_(seen)
        stage.losses(pair)
    y, low, cutoff, level = zip(*heard, strict=True)
    for parts in (y, low, cutoff, level):
        assert torch.equal(parts[0], parts[1])
    for parts in (y, low, level):
        assert not torch.isclose(parts[0], parts[2]).any(dim=-1).all()
    gain = low[0].abs().amax(-1).flatten()
    assert ((gain >= 0.5) & (gain <= 1)).all()
    assert gain[0] != gain[1]
    alpha, sigma, _ = stage.noising(stage.times(pair.seeds, 1))
    scaled = (
        gain[:, None, None]
        * pair.high.wave
        / stage.condition(Recording.of(pair.low.wave, RATE), pair.cutoff)
        .read(0, SAMPLES)
        .abs()
        .amax(-1, keepdim=True)
    )
    expected = alpha[:, None, None] * scaled + sigma[:, None, None] * noise((1, SAMPLES), pair.seeds, 2)
    torch.testing.assert_close(y[0], expected)


@both
@torch.no_grad()
def test_a_window_without_a_band_has_the_level_of_its_reference(kind, monkeypatch):
    stage, pair, heard = method(kind), pairs(1), []
    monkeypatch.setattr(stage, "predict", lambda *given: heard.append(given) or torch.zeros_like(given[0]))
    pair = pair._replace(low=pair.low._replace(wave=1e-5 * pair.low.wave))
    stage.held_out(pair)
    assert heard[0][0].abs().max() < 20
    assert heard[0][1].abs().max() < 1e-3


@both
def test_gradients_reach_every_parameter(kind):
    stage = method(kind).train()
    (loss,) = stage.losses(pairs(1, 2)).values()
    loss.backward()
    last = f"net.layers.{len(stage.net.layers) - 1}.out"
    for name, p in stage.named_parameters():
        assert p.grad.isfinite().all()
        each = p.grad.flatten(1).abs().amax(1) if p.ndim > 1 else p.grad.abs()
        # The residual half of the last layer goes nowhere, as in the authors'.
        assert (each[len(each) // 2 :] if name.startswith(last) else each).max() > 1e-9, name


@both
def test_it_overfits_one_window(kind):
    """Always the same noise."""
    stage, pair = method(kind, weights={"l1": 1.0}), pairs(1, 2)
    adam = torch.optim.Adam(stage.parameters(), 1e-2)
    losses = []
    for _ in range(40):
        loss = stage.losses(pair)["l1"]
        adam.zero_grad()
        loss.backward()
        adam.step()
        losses.append(loss.item())
    print(f"{losses[0]:.2f} to {losses[-1]:.2f}")
    assert losses[-1] < 0.6 * losses[0]
    assert losses[-1] < 0.9 * float(stage.held_out(pair)["constant"].mean())


@both
def test_bf16_mixed_works(kind):
    stage = method(kind).train()
    before = {name: p.clone() for name, p in stage.named_parameters()}
    trainer_for(1, precision="bf16-mixed").fit(stage, DataLoader([pairs(1, 2)], batch_size=None))
    assert [name for name, p in stage.named_parameters() if torch.equal(p, before[name])] == []
    assert all(p.isfinite().all() and p.dtype == torch.float32 for p in stage.parameters())
    with torch.autocast("cpu", torch.bfloat16):
        out = stage.eval()(Signal.of(random_wave(2, 3000), RATE)).wave
        rounded = stage.held_out(pairs(1, 2))["model"]
    assert out.isfinite().all()
    assert out.dtype == torch.float32
    torch.testing.assert_close(rounded, stage.held_out(pairs(1, 2))["model"], rtol=0.02, atol=0)


@both
def test_it_learns_and_resumes_to_the_bit(kind, tmp_path):
    batches = DataLoader([pairs(2 * k, 2 * k + 1) for k in range(2)], batch_size=None)

    def trained(epochs: int, name: str, resume: str | None = None, seed: int = 0) -> dict:
        stage = method(kind, seed).train()
        trainer = trainer_for(epochs, StepSeeds(0), Checkpoints(tmp_path / name))
        trainer.fit(stage, batches, ckpt_path=resume, weights_only=True if resume else None)
        return stage.state_dict()

    straight, first = trained(2, "straight.ckpt"), trained(1, "first.ckpt")
    resumed = trained(2, "second.ckpt", str(tmp_path / "first.ckpt"), seed=5)
    assert [name for name in straight if not torch.equal(straight[name], resumed[name])] == []
    assert [name for name in straight if torch.equal(straight[name], first[name])] == []


@both
def test_the_weights_choose_the_loss(kind):
    pair = pairs(1, 2)
    assert set(method(kind, weights={"l1": 1.0, "log_l1": 0.0}).losses(pair)) == {"l1"}
    assert set(method(kind, weights={"l1": 1.0, "log_l1": 2.0}).losses(pair)) == {"l1", "log_l1"}
    with pytest.raises(UserError, match="a weight above 0 for l1 or log_l1"):
        method(kind, weights={"l1": 0.0}).losses(pair)


@both
def test_it_is_built_without_memory(kind):
    """To count what it has, and what it does."""
    with torch.device("meta"):
        stage = method(kind)
        assert stage.network(*stage.example(2, 2000)).shape == (2, 1, 2000)


@both
@torch.no_grad()
def test_its_network_takes_its_example_and_it_is_found(kind):
    stage, name = method(kind), kind.__name__.lower()
    assert stage.network(*stage.example(3, 401)).shape == (3, 1, 401)
    assert sum(p.numel() for p in stage.network.parameters()) == sum(p.numel() for p in stage.parameters())
    assert find_stage(f"{name}.{kind.__name__}") is kind
    assert find_method(name) is kind
    assert set(kind.defaults["weights"]) == set(stage.losses(pairs(1, 2)))


@both
def test_settings_of_its_use(kind):
    stage = method(kind)
    assert (stage.window, stage.overlap) == (2**17, 8192)
    stage.used(window=None)
    assert (stage.window, stage.overlap) == (None, 8192)
    for use in ({"overlap": 2**17}, {"overlap": -1}, {"window": 8192}):
        with pytest.raises(UserError, match="from 0 to less than the window of"):
            stage.used(**use)
    with pytest.raises(UserError, match="no setting hop"):
        stage.used(hop=3)
