"""Cukaj and Corsi's U-Net: count and goldens, losses in closed form, levels, windows, what it hears."""

import math
import re
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
import torchaudio.functional
from audiosr_tiny import OPTIMIZER, one_thread, random_wave  # noqa: F401
from test_audioedsr import trainer_for
from torch import nn
from torch.utils.data import DataLoader

from callbacks.checkpoints import Checkpoints, StepSeeds
from lightning_modules import find_method, find_stage
from lightning_modules.fma_unet import RESOLUTIONS, FmaUNet, UNet, distances, stft_distances
from lightning_modules.super_resolver import raise_rate
from signals.errors import UserError
from signals.types import Pair, Recording, Signal

GOLDEN = Path(__file__).parents[1] / "goldens" / "released.npz"

RATE = 44100
TINY = (4, 6, 8, 8)
REACH = 128  # samples: beyond what the network hears around one

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*does not have many workers",
    "ignore:.*`val_dataloader`",
    "ignore:You are trying to",
    "ignore:Found .* in eval mode",
)


def method(seed: int = 0, weights=None, **use) -> FmaUNet:
    torch.manual_seed(seed)
    stage = FmaUNet(weights or {"stft": 1.0}, OPTIMIZER, RATE, channels=TINY)
    stage.used(**use)
    return stage


def awake(stage: FmaUNet) -> FmaUNet:
    """As if trained: with statistics of noise at full scale, and louder."""
    for name, p in stage.named_parameters():
        if name.endswith("bias"):
            nn.init.normal_(p, std=0.1)
    with torch.no_grad():
        for _ in range(30):
            stage.train().net(noise(4, 512))
        stage.net.head.weight *= 3
    return stage.eval()


def noise(batch: int, samples: int, seed: int = 0) -> torch.Tensor:
    """[B, 1, T] of peak 1, smooth enough that peaks of several windows differ."""
    wave = random_wave(batch, samples, seed)
    return wave / wave.abs().amax(-1, keepdim=True)


def pair_of(*seeds: int, samples: int = 4096) -> Pair:
    """Noise of peak 1, and a low-passed copy of peak 1, at one rate."""
    high = torch.cat([noise(1, samples, seed) for seed in seeds])
    low = torchaudio.functional.lowpass_biquad(high, RATE, 4800.0)
    low = low / low.abs().amax(-1, keepdim=True)
    cutoff = torch.full((len(seeds),), 8000.0)
    names = [str(seed) for seed in seeds]
    return Pair(Signal.of(low, RATE), Signal.of(high, RATE), cutoff, names, torch.tensor(seeds))


# ---------------------------------------------------------------- against the authors' module


def their_name(ours: str) -> str:
    layer, kind = ours.rsplit(".", 1)
    for pattern, theirs in (
        (r"down\.(\d)\.0", lambda found: f"enc{1 + int(found[1])}"),
        (r"down\.(\d)\.1", lambda found: f"bn{1 + int(found[1])}"),
        (r"up\.(\d)\.0", lambda found: f"dec{4 - int(found[1])}"),
        (r"up\.(\d)\.1", lambda found: f"bn_dec{4 - int(found[1])}"),
        (r"head", lambda found: "dec1"),
    ):
        if found := re.fullmatch(pattern, layer):
            return f"{theirs(found)}.{kind}"
    raise KeyError(ours)


def drawn(name: str, shape: torch.Size) -> torch.Tensor:
    """The weight that the goldens give to a name of theirs."""
    random = np.random.RandomState(zlib.crc32(f"wideband-cukaj.{name}".encode()))
    w = random.standard_normal(tuple(shape)).astype(np.float32)
    if w.ndim > 1:
        w = w / np.float32(math.sqrt(math.prod(shape[1:])))
    else:
        w = np.float32(0.05) * w + np.float32(name.endswith("weight"))
    return torch.from_numpy(w)


def theirs() -> UNet:
    net = UNet().eval()
    state = {name: drawn(their_name(name), p.shape) for name, p in net.named_parameters()}
    assert net.load_state_dict(state, strict=False).unexpected_keys == []
    return net


def golden(*keys: str) -> list[torch.Tensor]:
    with np.load(GOLDEN) as arrays:
        return [torch.from_numpy(np.asarray(arrays[f"cukaj.{key}"])) for key in keys]


def assert_close(ours: torch.Tensor, theirs: torch.Tensor, atol: float = 1e-5) -> None:
    print(f"max abs difference {(ours - theirs).abs().max():.1e}, rms {theirs.square().mean().sqrt():.2g}")
    torch.testing.assert_close(ours.to(theirs.dtype), theirs, atol=atol, rtol=0)


def test_the_parameter_count_is_the_published():
    with torch.device("meta"):
        net = UNet()
    assert sum(p.numel() for p in net.parameters()) == 5_995_457


@torch.no_grad()
def test_the_network_is_the_authors():
    net = theirs()
    x, out, pre_tanh, out_trainmode = golden("input.x", "out", "pre_tanh", "out_trainmode")
    heads = []
    net.head.register_forward_hook(lambda module, given, made: heads.append(made))
    assert_close(net(x), out)
    assert_close(heads[0], pre_tanh)
    assert_close(net.train()(x), out_trainmode)


@torch.no_grad()
def test_the_losses_are_the_authors():
    estimate, reference = (wave[:, None] for wave in golden("input.est", "input.ref"))
    batch, first, second = golden("train_stft_loss", *(f"train_stft_loss_item{row}" for row in (0, 1)))
    assert_close(distances(estimate, reference, {"stft": 1.0})["stft"], batch)
    each = distances(estimate, reference, {"stft": 1.0}, dim=(1, 2))["stft"]
    assert_close(each, torch.stack([first, second]))
    assert abs(each.mean() - batch) > 1e-6  # norms are over the batch
    (l1,) = golden("test_l1_loss")
    assert_close(distances(estimate, reference, {"l1": 1.0})["l1"], l1)


@torch.no_grad()
def test_their_evaluation_is_the_authors():
    low, high = (wave[:, None] for wave in golden("input.lr", "input.hr"))
    tested = [(1024, 120), (2048, 240), (512, 50)]
    names = ("l1", "mse", "stft")
    identity, drawn_net = ([f"{of}test_{name}_loss" for name in names] for of in ("", "model_"))
    for estimate, reference, keys in (
        (*(wave[:, None] for wave in golden("input.est", "input.ref")), identity),
        (theirs()(low), high, drawn_net),
    ):
        l1, mse, spectral = golden(*keys)
        assert_close((estimate - reference).abs().mean(), l1)
        assert_close((estimate - reference).square().mean(), mse)
        assert_close(sum(stft_distances(estimate, reference, resolutions=tested)), spectral)


# ---------------------------------------------------------------- the network


@torch.no_grad()
def test_what_it_hears_around_a_sample_and_that_strides_are_a_grid():
    net, x = awake(method()).net, noise(1, 2048)
    for place in (1024, 1027):
        touched = x.clone()
        touched[..., place] += 1
        heard = (net(touched) - net(x))[0, 0].abs().nonzero()
        assert place - REACH < heard.min() < place < heard.max() < place + REACH
    assert net.grid == 8
    late = net(nn.functional.pad(x, (8, 0)))[..., 8:]  # an equal network, later by its grid
    torch.testing.assert_close(late[..., REACH:], net(x)[..., REACH:], atol=1e-6, rtol=1e-4)
    late = net(nn.functional.pad(x, (4, 4)))[..., 4:-4]
    assert (late - net(x))[..., REACH:-REACH].abs().max() > 1e-4


@pytest.mark.parametrize("channels", [(3, 4), (2, 3, 4), (2, 2, 2, 2, 2)])
def test_widths_and_depths_are_free(channels):
    net = UNet(channels)
    assert net.grid == 2 ** (len(channels) - 1)
    out = net(noise(2, 20 * net.grid))
    assert out.shape == (2, 1, 20 * net.grid)
    assert out.abs().max() < 1


def test_gradients_reach_every_parameter():
    """But for biases before a batch normalisation, which takes them out again while it is training."""
    stage, pair = method(weights={"stft": 1.0, "l1": 1.0}), pair_of(1, 2)
    for mode in (True, False):
        stage.train(mode).zero_grad()
        sum(stage.losses(pair).values()).backward()
        for name, p in stage.named_parameters():
            assert p.grad.isfinite().all()
            before_norm = re.fullmatch(r"net\.(down|up)\.\d\.0\.bias", name)
            assert p.grad.abs().max() > 1e-6 or (mode and before_norm), name


# ---------------------------------------------------------------- losses


def cosine(k: float, gain: float) -> torch.Tensor:
    """Of period 512 / k samples and even around both ends: reflected there, it goes on."""
    return gain * (2 * torch.pi * k / 512 * torch.arange(8193, dtype=torch.double)).cos().float()[None, None]


def test_distances_of_two_cosines():
    """A cosine on a bin is A N / 4 in it and half of that in both neighbours, in every frame."""
    unit = np.mean([n_fft / 2 / (n_fft / 2 + 1) for n_fft, _ in RESOLUTIONS])
    for a, b in ((0.5, 0.2), (0.1, 0.4), (0.3, 0.3)):
        convergence, difference = stft_distances(cosine(40, a), cosine(40, b))
        assert convergence.item() == pytest.approx(abs(a - b) / b, abs=1e-5)
        assert difference.item() == pytest.approx(abs(a - b) * unit, abs=1e-5)
        convergence, difference = stft_distances(cosine(40, a), cosine(90, b))  # of nothing in common
        assert convergence.item() == pytest.approx(math.hypot(a, b) / b, abs=1e-5)
        assert difference.item() == pytest.approx((a + b) * unit, abs=1e-5)
    terms = distances(cosine(40, 0.5), cosine(40, 0.2), {"stft": 1.0, "stft_l1": 1.0, "l1": 1.0})
    assert terms["stft"].item() == pytest.approx(1.5 + 0.3 * unit, abs=1e-5)
    assert terms["stft_l1"].item() == pytest.approx(0.3 * unit, abs=1e-5)
    assert terms["l1"].item() == pytest.approx(0.3 * 2 / math.pi, rel=2e-3)


def test_convergence_is_of_the_batch_or_of_each():
    """An error where the other item has all the power counts little in the norms of the batch."""
    reference = torch.cat([cosine(40, 0.3), cosine(40, 0.4)])
    estimate = torch.cat([cosine(40, 0.3), cosine(40, 0.2)])
    assert stft_distances(estimate, reference)[0].item() == pytest.approx(0.2 / 0.5, abs=1e-5)
    each = stft_distances(estimate, reference, dim=(1, 2))
    torch.testing.assert_close(each[0], torch.tensor([0.0, 0.5]), atol=1e-5, rtol=0)
    torch.testing.assert_close(each[1].mean(), stft_distances(estimate, reference)[1])


def test_no_term_but_l1_hears_the_sign():
    wave = noise(2, 8192)
    terms = distances(-wave, wave, {"stft": 1.0, "stft_l1": 1.0, "l1": 1.0})
    assert terms["stft"] == terms["stft_l1"] == 0
    torch.testing.assert_close(terms["l1"], 2 * wave.abs().mean())


@torch.no_grad()
def test_a_network_turned_upside_down_is_as_good():
    """To the published loss; not to l1."""
    stage, pair = awake(method(weights={"stft": 1.0, "l1": 1.0})), pair_of(1, 2)
    estimate, terms = stage.estimate(pair), stage.losses(pair)
    stage.net.head.weight.neg_()
    stage.net.head.bias.neg_()
    assert torch.equal(stage.estimate(pair), -estimate)
    turned = stage.losses(pair)
    assert turned["stft"] == terms["stft"]
    assert abs(turned["l1"] - terms["l1"]) > 1e-4


def test_silence_has_a_finite_loss_and_gradient():
    for estimate, reference in ((noise(2, 4096), 0.0), (torch.zeros(2, 1, 4096), 0.0), (noise(2, 4096), 1.0)):
        estimate.requires_grad_()
        wanted = reference * estimate.detach()
        wanted[0] = 0  # a silent item, also beside one that sounds
        for dim in (None, (1, 2)):
            terms = distances(estimate, wanted, {"stft": 1.0, "l1": 1.0}, dim)
            (gradient,) = torch.autograd.grad(sum(term.sum() for term in terms.values()), estimate)
            assert gradient.isfinite().all()
            assert gradient.abs().max() < 1e3
            assert all(term.isfinite().all() for term in terms.values())


def test_losses_are_in_float32_under_autocast():
    estimate, reference = noise(2, 4096), noise(2, 4096, seed=1)
    plain = distances(estimate, reference, {"stft": 1.0})["stft"]
    with torch.autocast("cpu", torch.bfloat16):
        rounded = distances(estimate.bfloat16(), reference, {"stft": 1.0})["stft"]
    expected = distances(estimate.bfloat16().float(), reference, {"stft": 1.0})["stft"]
    assert rounded.dtype == torch.float32
    torch.testing.assert_close(rounded, expected)
    assert rounded.item() == pytest.approx(plain.item(), rel=1e-2)


def test_the_weights_choose_the_loss():
    pair = pair_of(1, 2)
    for names in (["stft"], ["stft_l1"], ["l1"], ["stft", "l1"]):
        stage = awake(method(weights={"stft": 0.0} | dict.fromkeys(names, 2.0)))
        with torch.no_grad():
            terms = stage.losses(pair)
            assert set(terms) == set(names)
            estimate = stage.estimate(pair)
            torch.testing.assert_close(terms, distances(estimate, pair.high.wave, stage.weights))
    with pytest.raises(UserError, match="a weight above 0 for stft, stft_l1 or l1"):
        method(weights={"stft": 0.0}).losses(pair)
    with pytest.raises(UserError, match="windows of 2048 samples: the loss needs 2049"):
        method().losses(pair_of(1, samples=2048))


@torch.no_grad()
def test_it_is_judged_by_its_own_loss_of_each_item():
    pair, weights = pair_of(1, 2, 3), {"stft": 0.5, "l1": 2.0}
    stage = awake(method(weights=weights))
    measures = stage.held_out(pair)
    for row in range(3):
        own = slice(row, row + 1)
        high = pair.high.wave[own]
        terms = distances(stage.estimate(pair)[own], high, weights)
        expected = 0.5 * terms["stft"] + 2 * terms["l1"]
        torch.testing.assert_close(measures["model"][row], expected)
        difference = stft_distances(0 * high, high)[1].item()
        expected = 0.5 * (1 + difference) + 2 * high.abs().mean().item()  # convergence of silence is 1
        assert measures["constant"][row].item() == pytest.approx(expected, rel=1e-5)


# ---------------------------------------------------------------- levels


@torch.no_grad()
def test_levels_go_through():
    """Twice as loud in, twice as loud out; what is of peak 1 is heard as it is."""
    stage = awake(method())
    for rate in (RATE, 16000):
        wave = random_wave(2, 4001)
        once = stage(Signal.of(wave, rate)).wave
        assert torch.equal(stage(Signal.of(2 * wave, rate)).wave, 2 * once)
        quiet = stage(Signal.of(1e-3 * wave, rate)).wave
        torch.testing.assert_close(quiet, 1e-3 * once, atol=1e-7, rtol=1e-3)
    peaked = noise(2, 4000)
    assert torch.equal(stage(Signal.of(peaked, RATE)).wave, stage.net(peaked))


@torch.no_grad()
def test_a_recording_has_one_level_however_it_is_cut():
    wave = noise(2, 24000)
    wave[..., 1000:] *= 0.1  # where a window of its own level would be ten times as loud
    whole, cut = (
        awake(method(**use))(Signal.of(wave, RATE)).wave for use in ({}, {"window": 9000, "overlap": 1000})
    )
    torch.testing.assert_close(cut[..., 12000:15000], whole[..., 12000:15000], atol=1e-6, rtol=1e-4)


def test_the_peak_is_read_by_stretches():
    """Of what is heard, in bounded memory."""
    stage, longest = method(), 0

    def read(first: int, count: int) -> torch.Tensor:
        nonlocal longest
        longest = max(longest, count)
        n = torch.arange(first, first + count)
        loud = torch.stack([n == 10**6, n == 10**6 + 7]).float()[:, None]
        return torch.tensor([0.5, 0.25])[:, None, None] * loud

    for rate, gain in ((RATE, 1.0), (16000, None)):
        survey = stage.survey(
            Recording(read, 2 * 10**6, rate), torch.full((2,), 8000.0), torch.zeros(2), None
        )
        assert survey["peak"].shape == (2, 1, 1)
        assert survey["peak"][0].item() == pytest.approx(2 * survey["peak"][1].item(), rel=0.05)
        if gain:
            assert survey["peak"].flatten().tolist() == [0.5, 0.25]
    assert longest < 2**20


@torch.no_grad()
def test_silence_stays_silence():
    stage = awake(method(window=8192, overlap=1024))
    for rate in (RATE, 16000):
        wave = torch.cat([torch.zeros(1, 1, 9000), random_wave(1, 9000)])
        out = stage(Signal.of(wave, rate)).wave
        assert out.isfinite().all()
        assert torch.equal(out[0], torch.zeros_like(out[0]))
        assert out[1].abs().max() > 0
    pair = pair_of(1, 2)
    pair.low.wave[0] = 0
    assert all(term.isfinite() for term in stage.train().losses(pair).values())


# ---------------------------------------------------------------- windows, lengths, rates


@pytest.mark.parametrize("rate", [RATE, 16000])
@torch.no_grad()
def test_windows_equal_the_whole_but_at_their_borders(rate):
    """Within reach of a border a window hears the silence beyond; its neighbour fades that away."""
    wave, seams = random_wave(2, 9 * rate // 10), {}
    whole = awake(method(window=None))(Signal.of(wave, rate)).wave
    for overlap in (0, 2048):
        stage, borders = awake(method(window=8192, overlap=overlap)), [whole.shape[-1]]
        given = stage.windows

        def windows(low, firsts, count, *rest, given=given, borders=borders):
            borders += [border for first in firsts for border in (first, first + count)]
            return given(low, firsts, count, *rest)

        stage.windows = windows
        cut = torch.cat(list(stage.enhance(Recording.of(wave, rate))), dim=-1)
        torch.testing.assert_close(stage(Signal.of(wave, rate)).wave, cut, atol=1e-6, rtol=1e-4)
        error = (cut - whole).abs().amax((0, 1)) / whole.square().mean().sqrt()
        places = torch.arange(len(error))[:, None]
        near = (places - torch.tensor(borders)).abs().amin(1) < REACH
        assert error[~near].max() < 1e-4
        assert len(borders) > 5
        seams[overlap] = error[:-REACH].max().item()
    print(f"{rate} Hz: largest error at seams {seams}")
    assert seams[0] > 0.3
    assert seams[2048] < 0.1 * seams[0]


@torch.no_grad()
def test_any_length_and_rate_in_the_same_time_out():
    stage = awake(method(window=8192, overlap=512))
    for samples in (1, 501, 3001):
        for rate in (RATE, 16000, 8000, 22050, 48000):
            lengths = torch.tensor([samples, -(-samples // 3)])
            low = Signal(random_wave(2, samples), rate, lengths)
            out = stage(low)
            assert out.rate == RATE
            assert out.lengths.tolist() == [-(-length * RATE // rate) for length in lengths.tolist()]
            assert out.wave.isfinite().all()
            alone = stage(Signal.of(low.wave[1:, :, : lengths[1]], rate)).wave
            torch.testing.assert_close(alone, out.wave[1:, :, : out.lengths[1]], atol=1e-6, rtol=1e-4)


# ---------------------------------------------------------------- what it hears


class Listening(nn.Module):
    """In place of the network: gives back what it hears."""

    grid = 8

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


def hears(wave: torch.Tensor, rate: int, cutoff: float | None = None, **use) -> torch.Tensor:
    stage = method(**use)
    stage.net = Listening()
    cutoff = None if cutoff is None else torch.full((len(wave),), cutoff)
    return stage(Signal.of(wave, rate), cutoff=cutoff).wave


def test_a_lower_rate_is_filtered_as_the_training_was():
    low = random_wave(2, 16000)
    raised = raise_rate(Signal.of(low, 16000), RATE, "polyphase").wave
    for cutoff in (None, 8000.0, 6000.0):
        expected = torchaudio.functional.lowpass_biquad(raised, RATE, 0.6 * (cutoff or 8000.0), Q=0.707)
        heard = hears(low, 16000, cutoff)  # filtered from the resampler's first ringing on, not from sample 0
        torch.testing.assert_close(heard[..., 200:], expected[..., 200:], atol=1e-4, rtol=0)
    torch.testing.assert_close(hears(low, 16000, prefilter=False), raised, atol=1e-6, rtol=0)
    full = random_wave(2, 20000)
    for wave, rate in ((full, RATE), (full, 48000)):
        expected = raise_rate(Signal.of(wave, rate), RATE, "polyphase").wave
        torch.testing.assert_close(hears(wave, rate), expected, atol=1e-6, rtol=0)


def test_it_hears_the_published_input_from_a_recording_at_16_khz():
    """To -30 dB: what there is at 8 kHz two ways of resampling keep differently."""
    high = random_wave(1, 2 * RATE)
    narrow = torchaudio.functional.resample(high, RATE, 16000)
    back = torchaudio.functional.resample(narrow, 16000, RATE)[..., : 2 * RATE]
    published = torchaudio.functional.lowpass_biquad(back, RATE, 4800.0, Q=0.707)
    ratio = {}
    for prefilter in (True, False):
        error = hears(narrow, 16000, prefilter=prefilter)[..., : 2 * RATE] - published
        ratio[prefilter] = 10 * (error.square().mean() / published.square().mean()).log10().item()
    print(ratio)
    assert ratio[True] < -30
    assert ratio[False] > -6


def test_filtered_stretches_are_those_of_the_whole():
    low = random_wave(2, 40000)
    whole = hears(low, 16000, window=None)
    for overlap in (0, 5000):
        torch.testing.assert_close(hears(low, 16000, window=16384, overlap=overlap), whole, atol=1e-6, rtol=0)


def test_training_hears_what_use_does():
    """Also where the pairs come at a lower rate, or not of peak 1."""
    pair = pair_of(1, 2)
    quiet = pair._replace(low=pair.low._replace(wave=0.3 * pair.low.wave))
    narrow = pair._replace(low=Signal.of(random_wave(2, 1486), 16000))
    stage = awake(method(window=None))
    with torch.no_grad():
        for given in (pair, quiet, narrow):
            estimate = stage.estimate(given)
            assert estimate.shape == pair.high.wave.shape
            used = stage(given.low, cutoff=given.cutoff).wave
            torch.testing.assert_close(estimate, used, atol=1e-6, rtol=1e-4)


# ---------------------------------------------------------------- trainings


def test_it_overfits_one_batch():
    stage, pair = method(weights={"stft": 1.0, "l1": 1.0}), pair_of(1, 2)
    adam = torch.optim.Adam(stage.parameters(), 1e-2)
    losses = []
    for _ in range(60):
        loss = sum(stage.losses(pair).values())
        adam.zero_grad()
        loss.backward()
        adam.step()
        losses.append(loss.item())
    print(f"{losses[0]:.2f} to {losses[-1]:.2f}")
    assert losses[-1] < 0.4 * losses[0]


def test_it_learns_and_resumes_to_the_bit(tmp_path):
    pairs = DataLoader([pair_of(2 * k, 2 * k + 1) for k in range(2)], batch_size=None)

    def trained(epochs: int, name: str, resume: str | None = None, seed: int = 0) -> dict:
        stage = method(seed)
        trainer = trainer_for(epochs, StepSeeds(0), Checkpoints(tmp_path / name))
        trainer.fit(stage, pairs, ckpt_path=resume, weights_only=True if resume else None)
        return stage.state_dict()

    straight, first = trained(2, "straight.ckpt"), trained(1, "first.ckpt")
    resumed = trained(2, "second.ckpt", str(tmp_path / "first.ckpt"), seed=5)
    assert [name for name in straight if not torch.equal(straight[name], resumed[name])] == []
    assert [name for name in straight if torch.equal(straight[name], first[name])] == []


def test_bf16_mixed_works():
    stage = method()
    before = {name: p.clone() for name, p in stage.named_parameters()}
    trainer_for(1, precision="bf16-mixed").fit(stage, DataLoader([pair_of(1, 2)], batch_size=None))
    assert [name for name, p in stage.named_parameters() if torch.equal(p, before[name])] == []
    assert all(p.isfinite().all() and p.dtype == torch.float32 for p in stage.parameters())


@torch.no_grad()
def test_its_network_takes_its_example_and_it_is_found():
    stage = method().eval()
    assert stage.network(*stage.example(3, 401)).shape == (3, 1, 408)
    assert sum(p.numel() for p in stage.network.parameters()) == sum(p.numel() for p in stage.parameters())
    assert find_stage("fma_unet.FmaUNet") is FmaUNet
    assert find_method("fma_unet") is FmaUNet


def test_settings_of_its_use():
    stage = method()
    assert (stage.window, stage.overlap, stage.prefilter) == (65536, 8192, True)
    stage.used(overlap=0, prefilter=False)
    assert (stage.window, stage.overlap, stage.prefilter) == (65536, 0, False)
    stage.used()
    assert (stage.overlap, stage.prefilter) == (8192, True)
    for use in ({"overlap": 65536}, {"overlap": -1}, {"window": 8192}):
        with pytest.raises(UserError, match="from 0 to less than the window of"):
            stage.used(**use)
    with pytest.raises(UserError, match="no setting hop"):
        stage.used(hop=3)
