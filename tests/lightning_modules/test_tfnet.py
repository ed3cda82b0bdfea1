"""TFNet: the published count, the replicator and the fusion in closed form, blocks, trainings."""

from pathlib import Path

import numpy as np
import pytest
import torch
from audiosr_tiny import OPTIMIZER, one_thread, random_wave  # noqa: F401
from test_audioedsr import RATE, loader, pair_of, trainer_for
from torch import nn
from torch.nn.functional import leaky_relu
from torch.utils.data import DataLoader

from callbacks.checkpoints import Checkpoints, StepSeeds
from lightning_modules import find_stage
from lightning_modules.audioedsr import PixelShuffle
from lightning_modules.super_resolver import raise_rate
from lightning_modules.tfnet import Branch, TFNet, TimeFrequency, conv, low_bins, replicated
from signals.errors import UserError
from signals.types import Recording, Signal

GOLDEN = Path(__file__).parents[1] / "goldens" / "released.npz"

TINY = {"channels": [2, 3, 4, 4], "kernels": [9, 7, 5, 3]}
BLOCK = 512
BRANCHES = ["both", "time", "frequency"]

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*does not have many workers",
    "ignore:.*`val_dataloader`",
    "ignore:You are trying to",
    "ignore:Found .* in eval mode",
)


def tfnet(seed: int = 0, block: int = BLOCK, **options) -> TFNet:
    torch.manual_seed(seed)
    return TFNet(block=block, **TINY | options)


def method(seed: int = 0, weights=None, overlap: int = BLOCK // 2, **options) -> TimeFrequency:
    torch.manual_seed(seed)
    options = TINY | {"block": BLOCK} | options
    stage = TimeFrequency(weights or {"mse": 1.0}, OPTIMIZER, RATE, **options)
    stage.used(overlap=overlap)
    return stage


def quarter(batch: int, block: int = BLOCK) -> torch.Tensor:
    """The low band at rate 4."""
    return torch.full((batch,), block // 8)


def awake(net: nn.Module) -> nn.Module:
    """As if trained: its biases are not zero."""
    for name, p in net.named_parameters():
        if name.endswith("bias"):
            nn.init.normal_(p, std=0.1)
    return net


class Scaled(nn.Module):
    """A branch in closed form, of one parameter."""

    def __init__(self, by: float = 1.0):
        super().__init__()
        self.by = nn.Parameter(torch.tensor(by))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.by * x


def identity(**options) -> TimeFrequency:
    """Both branches give back what they hear."""
    stage = method(**options)
    stage.net.time, stage.net.frequency = stage.net.time and Scaled(), stage.net.frequency and Scaled()
    return stage


# ---------------------------------------------------------------- the network


@pytest.mark.parametrize(
    ("options", "count"),
    [
        ({}, 28_214_405),
        ({"w": 0.5}, 28_214_405 - 4097),
        ({"branches": "time"}, 14_105_154),
        ({"branches": "frequency"}, 14_105_154),
    ],
)
def test_parameter_counts_are_the_published(options, count):
    with torch.device("meta"):
        assert sum(p.numel() for p in TFNet(**options).parameters()) == count


@pytest.mark.parametrize("scale", [2, 4, 6, 8])
@pytest.mark.parametrize("branches", BRANCHES)
def test_it_learns_from_noise_and_from_silence_at_every_rate(branches, scale):
    """Untrained, and with biases, which are heard on silence."""
    wave, band = random_wave(2, 8192), low_bins(torch.full((2,), 8000 / scale), 16000, 8192)
    wave[1] = 0  # a silent item beside another, too
    for net in (tfnet(block=8192, branches=branches), awake(tfnet(block=8192, branches=branches))):
        for heard in (wave, 0 * wave, 1e-6 * wave):
            net.zero_grad()
            y = net(heard, band)
            (y - random_wave(2, 8192, seed=1)).square().mean().backward()
            assert y.shape == wave.shape
            assert y.isfinite().all()
            assert all(p.grad.isfinite().all() for p in net.parameters())
            if heard is wave:
                assert all(p.grad.any() for p in net.parameters())


@pytest.mark.parametrize(("kernel", "stride", "left"), [(65, 2, 31), (9, 2, 3), (3, 2, 0), (9, 1, 4)])
@torch.no_grad()
def test_convolutions_are_padded_as_tensorflows(kernel, stride, left):
    """SAME: out[t] = sum of w[j] x[stride * t + j - left]."""
    layer, x = conv(1, 1, kernel, stride), random_wave(1, 128)[0, 0]
    at = stride * np.arange(128 // stride)[:, None] + np.arange(kernel) - left
    heard = np.where((at >= 0) & (at < 128), x.numpy()[at.clip(0, 127)], 0)
    expected = torch.from_numpy(heard) @ layer[1].weight[0, 0]
    torch.testing.assert_close(layer(x[None, None])[0, 0], expected)


def test_convolutions_begin_orthogonal():
    for inputs, outputs in ((3, 8), (8, 3), (1, 8)):
        rows = conv(inputs, outputs, 5)[1].weight.flatten(1).double()
        rows = rows if rows.shape[0] <= rows.shape[1] else rows.T
        torch.testing.assert_close(rows @ rows.T, torch.eye(len(rows)).double(), atol=1e-5, rtol=0)
    assert not conv(2, 2, 9, bias=True)[1].bias.any()


def test_all_drops_out_but_the_way_down():
    """What is left is the first convolution, across to the head."""
    torch.manual_seed(0)
    branch, x = awake(Branch(**TINY, dropout=1.0)).train(), random_wave(2, 64)
    across = leaky_relu(branch.down[0](x), 0.2)
    expected = PixelShuffle()(branch.head(torch.cat([torch.zeros_like(across), across], dim=1)))
    torch.testing.assert_close(branch(x), expected)
    assert (branch.eval()(x) - expected).abs().max() > 1e-3


# ---------------------------------------------------------------- the low band and its copies


@pytest.mark.parametrize("rate", [12000, 16000, 44100, 48000])
def test_the_low_band_is_that_of_the_rate(rate):
    scales = torch.arange(1, 13)
    bins = low_bins(rate / 2 / scales.float(), rate, 8192)
    assert bins.tolist() == [4096 // scale for scale in range(1, 13)]  # 682 at rate 6


def test_a_cut_off_on_a_bin_is_in_the_low_band():
    """Rounded to float32, too."""
    k = torch.arange(1, 4097)
    assert torch.equal(low_bins((k.double() * 44100 / 8192).float(), 44100, 8192), k)


def test_the_low_band_is_within_the_spectrum():
    assert low_bins(torch.tensor([0.0, 1e-3, 3990.0, 8000.0, 22050.0]), 16000, 8).tolist() == [1, 1, 1, 4, 4]


@pytest.mark.parametrize("low", [1, 8, 13, 40, 64])
def test_copies_of_the_low_band(low):
    magnitude = torch.rand(2, 1, 64)
    rest = (*[(0, 0)] * 2, (0, 64 - low))
    known = magnitude[..., :low].numpy()
    expected = {
        "replicate": np.pad(known, rest, mode="wrap"),
        "fold": np.pad(known, rest, mode="symmetric"),
        "zeros": np.pad(known, rest),
    }
    for replicator, copied in expected.items():
        found = replicated(magnitude, torch.tensor([low, low]), replicator)
        np.testing.assert_array_equal(found, copied)


@pytest.mark.parametrize("replicator", ["replicate", "fold", "zeros"])
def test_every_item_has_its_own_band(replicator):
    magnitude, band = torch.rand(3, 1, 64), torch.tensor([5, 16, 64])
    together = replicated(magnitude, band, replicator)
    for row in range(3):
        own = slice(row, row + 1)
        assert torch.equal(together[own], replicated(magnitude[own], band[own], replicator))


# ---------------------------------------------------------------- fusion


@torch.no_grad()
def test_the_weight_fuses_bin_by_bin():
    """M = w |F(z)| + (1 - w) m with the phase of z; fixed for all bins, or trained for each."""
    net, x = awake(tfnet()).eval(), random_wave(2, BLOCK)
    band, z = quarter(2), net.time(x)
    Z, m = torch.fft.rfft(z), net.magnitude(torch.fft.rfft(x).abs(), band)
    k = torch.arange(BLOCK // 2 + 1)
    net.v.copy_(torch.where(k % 3 == 0, 20.0, -20.0) * (k % 5 > 0))
    w = torch.where(k % 3 == 0, 1.0, 0.0)
    w[k % 5 == 0] = 0.5
    fixed = tfnet(w=0.25).eval()
    fixed.load_state_dict({name: p for name, p in net.state_dict().items() if name != "v"})
    for network, weight in ((net, w), (fixed, 0.25)):
        Y = torch.fft.rfft(network(x, band))
        M = weight * Z.abs() + (1 - weight) * m
        expected = torch.polar(torch.ones_like(M), Z.angle()) * M
        torch.testing.assert_close(Y, expected, atol=1e-4, rtol=1e-4)
    fixed.fixed = 1.0
    torch.testing.assert_close(fixed(x, band), z, atol=1e-5, rtol=1e-4)
    fixed.fixed = 0.0
    torch.testing.assert_close(torch.fft.rfft(fixed(x, band)).abs(), m.abs(), atol=1e-4, rtol=1e-4)
    assert m.min() < -0.01  # which turns the phase


@torch.no_grad()
def test_the_weight_is_squashed_and_begins_as_a_half():
    net = tfnet()
    assert torch.equal(net.w, torch.full((BLOCK // 2 + 1,), 0.5))
    net.v += 1
    torch.testing.assert_close(net.w, torch.full_like(net.v, 2).sigmoid())  # (1 + tanh 1) / 2


@torch.no_grad()
def test_dc_passes_by_the_spectral_branch():
    for offset in (1.0, -0.5):
        x = random_wave(3, BLOCK) + offset
        y = awake(tfnet(branches="frequency")).eval()(x, quarter(3))
        torch.testing.assert_close(y.mean(-1), x.mean(-1), atol=1e-5, rtol=1e-4)
        both = tfnet(w=0.0).eval()
        fused = both(x, quarter(3))
        torch.testing.assert_close(fused.mean(-1).abs(), x.mean(-1).abs(), atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_the_spectral_branch_alone_has_the_phase_of_its_input():
    net, x = awake(tfnet(branches="frequency")).eval(), random_wave(2, BLOCK)
    X, Y = torch.fft.rfft(x), torch.fft.rfft(net(x, quarter(2)))
    m = net.magnitude(X.abs(), quarter(2))
    torch.testing.assert_close((Y * X.conj() / X.abs()).real, m, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close((Y * X.conj() / X.abs()).imag, torch.zeros_like(m), atol=1e-4, rtol=0)
    quiet = net(1e-12 * x, quarter(2))  # a phase is a phase at any level
    torch.testing.assert_close(
        torch.fft.rfft(quiet)[..., 1:-1].abs(), net.frequency(0 * m[..., 1:]).abs()[..., :-1]
    )


@pytest.mark.parametrize("branches", BRANCHES)
def test_gradients_are_those_of_differences(branches):
    """Of negative magnitudes, too."""
    net, x = awake(tfnet(branches=branches, dropout=0.0)), random_wave(2, BLOCK)
    ours = net.time or net.frequency
    bias = ours.head[1].bias
    loss = (net(x, quarter(2)) - random_wave(2, BLOCK, seed=1)).square().sum()
    (gradient,) = torch.autograd.grad(loss, bias)
    for place in range(2):
        sides = []
        for step in (1e-3, -2e-3):
            with torch.no_grad():
                bias[place] += step
                out = net(x, quarter(2)).double()
                sides.append((out - random_wave(2, BLOCK, seed=1)).square().sum().item())
        with torch.no_grad():
            bias[place] += 1e-3
        assert gradient[place].item() == pytest.approx((sides[0] - sides[1]) / 2e-3, rel=0.02)


@torch.no_grad()
def test_the_time_branch_alone_hears_no_spectrum():
    net, x = tfnet(branches="time").eval(), random_wave(2, BLOCK)
    assert torch.equal(net(x, quarter(2)), net.time(x))
    assert torch.equal(net(x, 2 * quarter(2)), net.time(x))
    both = tfnet().eval()
    assert not torch.equal(both(x, quarter(2)), both(x, 2 * quarter(2)))


# ---------------------------------------------------------------- blocks, lengths, places in time


@pytest.mark.parametrize("branches", BRANCHES)
@torch.no_grad()
def test_blocks_go_through_one_by_one(branches):
    net = awake(tfnet(branches=branches)).eval()
    wave, band = random_wave(2, 2 * BLOCK + 100), torch.tensor([40, 90])
    whole = net(wave, band)
    padded = torch.nn.functional.pad(wave, (0, BLOCK - 100))
    each = torch.cat([net(block, band) for block in padded.split(BLOCK, dim=-1)], dim=-1)
    torch.testing.assert_close(whole, each[..., : wave.shape[-1]])
    for row in range(2):
        own = slice(row, row + 1)
        torch.testing.assert_close(whole[own], net(wave[own], band[own]))
    used = method(overlap=0, branches=branches)
    used.net = net
    cutoff = band * RATE / BLOCK
    torch.testing.assert_close(used(Signal.of(wave, RATE), cutoff=cutoff).wave, whole)


@pytest.mark.parametrize("branches", BRANCHES)
@torch.no_grad()
def test_any_length_and_rate_in_the_same_time_out(branches):
    stage = awake(method(branches=branches)).eval()
    for samples in (1, 501, 1801):
        for rate in (RATE // 2, RATE // 6, 4800, RATE, 44100):
            lengths = torch.tensor([samples, -(-samples // 3)])
            low = Signal(random_wave(2, samples), rate, lengths)
            out = stage(low)
            assert out.rate == RATE
            assert out.lengths.tolist() == [-(-length * RATE // rate) for length in lengths.tolist()]
            assert out.wave.shape[-1] == out.lengths.max()
            assert out.wave.isfinite().all()
            short = Signal.of(low.wave[1:, :, : lengths[1]], rate)
            alone = stage(short, seeds=torch.tensor([1])).wave
            torch.testing.assert_close(alone, out.wave[1:, :, : out.lengths[1]], atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("overlap", [0, BLOCK // 2])
@pytest.mark.parametrize(
    "options", [{}, {"branches": "time"}, {"branches": "frequency", "replicator": "zeros"}]
)
@torch.no_grad()
def test_branches_that_change_nothing_leave_all_in_its_place(options, overlap):
    """Each window is what is interpolated of it alone, as in the code; inside, a tone stays a tone."""
    stage = identity(overlap=overlap, **options)
    if not options:  # copies in the high band need no phase of the time branch: it has none there
        stage.net.replicator = "zeros"
    for rate, samples in ((RATE // 4, BLOCK // 4), (RATE // 2, BLOCK // 2 - 7), (RATE, BLOCK)):
        low = Signal.of(random_wave(2, samples), rate)
        heard = raise_rate(low, RATE, "fft").wave
        full = stage(low, cutoff=torch.full((2,), RATE / 2)).wave
        torch.testing.assert_close(full, heard, atol=1e-5, rtol=1e-4)
    t = torch.arange(4 * BLOCK, dtype=torch.double) / RATE
    tone = torch.sin(2 * torch.pi * 375 * t).float()[None, None]  # whole periods in a window
    out = stage(Signal.of(tone[..., ::4], RATE // 4)).wave
    torch.testing.assert_close(out, tone, atol=1e-4, rtol=0)


@pytest.mark.parametrize("ratio", [2, 4])
@torch.no_grad()
def test_its_input_is_the_authors(ratio):
    with np.load(GOLDEN) as arrays:
        low, up = (torch.from_numpy(arrays[f"tfnet.r{ratio}.{key}"])[None, None] for key in ("lr", "up"))
    stage = identity(branches="frequency", block=16384)
    heard = Signal.of(low, RATE // ratio)
    torch.testing.assert_close(raise_rate(heard, stage.rate, stage.upsample).wave, up, atol=1e-6, rtol=0)
    out = stage(heard, cutoff=torch.tensor([RATE / 2])).wave
    torch.testing.assert_close(out, up, atol=1e-5, rtol=0)


@torch.no_grad()
def test_the_cut_off_says_what_is_copied():
    """Noise below 1/6 of the band comes out in every sixth, also where nothing at all was: in empty bins."""
    stage = identity(branches="frequency", block=8192, overlap=4096)
    x = torch.fft.rfft(random_wave(1, 8192))
    x[..., 0], x[..., 683:] = 0, 0
    low = Signal.of(torch.fft.irfft(x), RATE)
    Y = torch.fft.rfft(stage(low, cutoff=torch.tensor([RATE / 2 / 6])).wave).abs()[0, 0]
    for copy in range(1, 6):
        torch.testing.assert_close(Y[1 + 682 * copy : 683 + 682 * copy], Y[1:683], atol=2e-3, rtol=1e-3)


@torch.no_grad()
def test_overlapped_blocks_have_no_seam():
    """A branch that gives each block its own level: a step without overlap, a slope with it."""

    class Level(nn.Module):
        def forward(self, x):
            return x.mean(-1, keepdim=True).expand_as(x)

    wave = torch.arange(4 * BLOCK).float()[None, None] / BLOCK
    steps = {}
    for overlap in (0, BLOCK // 2):
        stage = method(overlap=overlap, branches="time")
        stage.net.time = Level()
        steps[overlap] = stage(Signal.of(wave, RATE)).wave.diff().abs().max().item()
    assert steps[0] == pytest.approx(1, rel=1e-3)
    assert steps[BLOCK // 2] == pytest.approx(1 / BLOCK, rel=1e-2)


@torch.no_grad()
def test_long_recordings_come_in_pieces():
    stage = awake(method()).eval()
    wave = random_wave(2, 3001)
    whole = stage(Signal.of(wave, RATE // 4)).wave
    pieces = list(stage.enhance(Recording.of(wave, RATE // 4)))
    assert max(piece.shape[-1] for piece in pieces) <= BLOCK
    torch.testing.assert_close(torch.cat(pieces, dim=-1), whole, atol=1e-6, rtol=1e-4)


# ---------------------------------------------------------------- terms and trainings


def test_the_weights_choose_the_loss():
    pair = pair_of(1, 2, scale=4)
    stage = awake(method(weights={"mse": 1.0, "norm": 2.0})).eval()
    with torch.no_grad():
        error = stage(pair.low).wave - pair.high.wave
        norms = torch.linalg.vector_norm(error, dim=(1, 2))
        torch.testing.assert_close(stage.losses(pair), {"mse": error.square().mean(), "norm": norms.mean()})
        torch.testing.assert_close(stage.held_out(pair)["model"], error.square().mean((1, 2)))
    assert set(method(weights={"mse": 0.0, "norm": 1.0}).losses(pair)) == {"norm"}
    assert set(method(weights={"mse": 1.0}).losses(pair)) == {"mse"}


def test_the_norm_of_nothing_has_a_gradient():
    pair = pair_of(1)
    silent = [signal._replace(wave=0 * signal.wave) for signal in (pair.low, pair.high)]
    stage = method(weights={"norm": 1.0})
    stage.losses(pair._replace(low=silent[0], high=silent[1]))["norm"].backward()
    assert all(p.grad.isfinite().all() for p in stage.parameters())


@pytest.mark.parametrize("branches", BRANCHES)
@torch.no_grad()
def test_its_network_takes_its_example(branches):
    stage = method(branches=branches).eval()
    assert stage.network(*stage.example(3, 2 * BLOCK)).shape == (3, 1, 2 * BLOCK)
    assert sum(p.numel() for p in stage.network.parameters()) == sum(p.numel() for p in stage.parameters())
    assert find_stage("tfnet.TimeFrequency") is TimeFrequency


@pytest.mark.parametrize("branches", BRANCHES)
def test_a_resumed_run_is_the_same_to_the_bit(branches, tmp_path):
    def trained(epochs: int, name: str, resume: str | None = None, seed: int = 0) -> dict:
        stage = method(seed, branches=branches)
        trainer = trainer_for(epochs, StepSeeds(0), Checkpoints(tmp_path / name))
        trainer.fit(stage, loader(2, scale=4), ckpt_path=resume, weights_only=True if resume else None)
        return stage.state_dict()

    straight, first = trained(2, "straight.ckpt"), trained(1, "first.ckpt")
    resumed = trained(2, "second.ckpt", str(tmp_path / "first.ckpt"), seed=5)
    assert [name for name in straight if not torch.equal(straight[name], resumed[name])] == []
    assert [name for name in straight if torch.equal(straight[name], first[name])] == []


@pytest.mark.parametrize("branches", BRANCHES)
def test_it_learns(branches):
    stage = method(branches=branches, dropout=0.0)
    stage.optimizer |= {"decay": 1.0}
    pair = pair_of(1, 2)
    with torch.no_grad():
        before = stage.eval().held_out(pair)["model"].mean()
    trainer_for(1, StepSeeds(0)).fit(stage.train(), DataLoader([pair] * 60, batch_size=None))
    with torch.no_grad():
        after = stage.eval().held_out(pair)["model"].mean()
    print(f"{branches}: {before:.2e} to {after:.2e}")
    assert after < 0.9 * before


@pytest.mark.parametrize("branches", BRANCHES)
def test_bf16_mixed_works(branches):
    stage = method(branches=branches)
    before = {name: p.clone() for name, p in stage.named_parameters()}
    trainer_for(1, precision="bf16-mixed").fit(stage, loader(1, scale=4))
    assert [name for name, p in stage.named_parameters() if torch.equal(p, before[name])] == []
    assert all(p.isfinite().all() and p.dtype == torch.float32 for p in stage.parameters())


def test_what_does_not_fit_is_said():
    for options, message in (
        ({"branches": "phase"}, "branches=phase: both, time or frequency"),
        ({"replicator": "tile"}, "replicator=tile: replicate, fold or zeros"),
        ({"w": 1.5}, "w=1.5: from 0 to 1, or null"),
        ({"kernels": [9, 8, 5, 3]}, r"kernels=\[9, 8, 5, 3\]: an odd one"),
        ({"kernels": [9, 7]}, r"for each of \[2, 3, 4, 4\]"),
        ({"block": 8190}, "block=8190: a multiple of 64 samples"),
        ({"overlap": BLOCK}, "overlap=512: from 0 to less than the block of 512"),
    ):
        with pytest.raises(UserError, match=message):
            method(**options)
    with pytest.raises(UserError, match="needs a weight above 0 for mse or norm"):
        method(weights={"mse": 0.0}).losses(pair_of(1))


def test_the_decay_is_of_all_weights_but_biases():
    """Half the sum of squares beside the code's error, the norm beside the printed one."""
    for error in ("mse", "norm"):
        stage = method(weights={error: 1.0, "decay": 0.1})
        awake(stage.net)
        weights = [p.detach() for name, p in stage.net.named_parameters() if not name.endswith("bias")]
        assert any(p.ndim == 1 for p in weights)  # v, of the fusion
        squares = sum(p.square().sum() for p in weights)
        expected = squares / 2 if error == "mse" else squares.sqrt()
        torch.testing.assert_close(stage.losses(pair_of(1))["decay"].detach(), expected)
