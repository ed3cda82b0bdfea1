"""Kuleshov et al.'s audio U-Net and TFiLM: published counts, closed forms, any length, trainings."""

import pytest
import torch
from audiosr_tiny import OPTIMIZER, one_thread, random_wave  # noqa: F401
from test_audioedsr import RATE, loader, pair_of, trainer_for
from torch import nn
from torch.nn.functional import conv1d, leaky_relu
from torch.utils.data import DataLoader

from callbacks.checkpoints import Checkpoints, StepSeeds
from lightning_modules import find_stage, super_resolver
from lightning_modules.audioedsr import PixelShuffle
from lightning_modules.kuleshov import KuleshovAudioUNet, KuleshovTFiLM, TFiLM, TFiLMUNet, UNet
from lightning_modules.tfnet import conv
from signals.errors import UserError
from signals.types import Recording, Signal

TINY = {"channels": [3, 4, 5, 5], "kernels": [9, 7, 5, 3]}
METHODS = [KuleshovAudioUNet, KuleshovTFiLM]

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*does not have many workers",
    "ignore:.*`val_dataloader`",
    "ignore:You are trying to",
    "ignore:Found .* in eval mode",
)


def build(method, seed: int = 0, weights=None, **options):
    torch.manual_seed(seed)
    options = TINY | ({"block": 16} if method is KuleshovTFiLM else {}) | options
    return method(weights or method.defaults["weights"], OPTIMIZER, RATE, **options)


def awake(stage):
    """As if trained: what the network adds to its input is heard."""
    for name, p in stage.named_parameters():
        if name.startswith("net.head") or name.endswith("bias"):
            nn.init.normal_(p, std=0.3)
    return stage.eval()


def unet_count(channels, kernels) -> int:
    """Weights and biases of every convolution, as the specification lists them."""
    inputs, last = [1, *channels[:-1]], channels[-1]
    down = sum(i * o * k + o for i, o, k in zip(inputs, channels, kernels, strict=True))
    before = [*(2 * c for c in channels[1:]), last]
    up = sum(i * 2 * o * k + 2 * o for i, o, k in zip(before, channels, kernels, strict=True))
    return down + last * last * 9 + last + up + 2 * channels[0] * 2 * 9 + 2


# ---------------------------------------------------------------- networks


@pytest.mark.parametrize(
    ("second", "count", "millions"), [(256, 56_411_394, 56.41), (384, 70_977_154, 70.98)]
)
def test_parameter_counts_are_the_published(second, count, millions):
    channels, kernels = [128, second, 512, 512], [65, 33, 17, 9]
    with torch.device("meta"):
        found = sum(p.numel() for p in UNet(channels).parameters())
    assert found == unet_count(channels, kernels) == count
    assert round(count / 1e6, 2) == millions


def test_tfilm_adds_an_lstm_with_keras_one_bias_for_each_level():
    """4 (C^2 + C^2 + C) for each of four levels down, the bottleneck and four levels up."""
    with torch.device("meta"):
        net = TFiLMUNet()
    found = sum(p.numel() for p in net.parameters())
    widths = [128, 256, 512, 512, 512, 512, 512, 256, 128]
    assert found == 56_411_394 + sum(8 * C * C + 4 * C for C in widths) == 68_221_186
    layers = [layer for layer in net.modules() if isinstance(layer, TFiLM)]
    assert [layer.lstm.hidden_size for layer in layers] == widths
    assert [layer.block for layer in layers] == [128, 64, 32, 16, 8, 8, 8, 8, 8]
    assert net.grid == 256
    with torch.device("meta"):
        mirrored = TFiLMUNet(decoder_blocks="mirrored")
    layers = [layer for layer in mirrored.modules() if isinstance(layer, TFiLM)]
    assert [layer.block for layer in layers] == [128, 64, 32, 16, 8, 16, 32, 64, 128]


@torch.no_grad()
def test_the_audio_unet_is_kuleshovs():
    """Stride 2 with SAME padding, a shuffle and a skip at each level, the input added; written out flat."""
    stage = awake(build(KuleshovAudioUNet))
    net, wave = stage.net, random_wave(2, 96)

    def heard(layer, x, stride):
        kernel = layer[1].weight.shape[-1]
        total = kernel - stride
        padded = torch.nn.functional.pad(x, (total // 2, total - total // 2))
        return conv1d(padded, layer[1].weight, layer[1].bias, stride)

    x, passed = wave, []
    for layer in net.down:
        x = leaky_relu(heard(layer, x, 2), 0.2)
        passed.append(x)
    x = leaky_relu(heard(net.bottleneck, x, 2), 0.2)
    for layer, across in zip(net.up, reversed(passed), strict=True):
        x = heard(layer, x, 1).relu()
        x = torch.stack([x[:, ::2], x[:, 1::2]], dim=-1).flatten(2)
        x = torch.cat([x, across], dim=1)
    x = heard(net.head, x, 1)
    expected = wave + torch.stack([x[:, :1], x[:, 1:]], dim=-1).flatten(2)
    torch.testing.assert_close(net(wave), expected)
    assert (expected - wave).abs().max() > 1e-2


def test_dropout_and_activation_commute():
    """So theirs, which drops before the activation, is the same network."""
    x, kept = torch.randn(1000), (torch.rand(1000) > 0.5) / 0.5
    torch.testing.assert_close(leaky_relu(kept * x, 0.2), kept * leaky_relu(x, 0.2))
    torch.testing.assert_close((kept * x).relu(), kept * x.relu())


@pytest.mark.parametrize("method", METHODS)
@torch.no_grad()
def test_untrained_it_all_but_passes_its_input_on(method):
    net, wave = build(method).net.eval(), random_wave(2, 1024)
    head = net.head[1] if method is KuleshovAudioUNet else net.head[0][1]
    assert head.weight.std().item() == pytest.approx(1e-3, rel=0.3)
    assert not head.bias.any()
    added = net(wave) - wave
    assert 0 < added.abs().max() < 0.02 * wave.abs().max()


@torch.no_grad()
def test_a_dilated_convolution_is_padded_as_tensorflows():
    """SAME: out[t] = sum of w[j] x[t + 2 j - (k - 1)], as long as what went in."""
    layer, x = conv(1, 1, 5, dilation=2, bias=True), random_wave(1, 64)
    layer[1].bias.fill_(0.3)
    padded = torch.nn.functional.pad(x[0, 0], (4, 4))
    expected = 0.3 + sum(w * padded[2 * j : 2 * j + 64] for j, w in enumerate(layer[1].weight[0, 0]))
    torch.testing.assert_close(layer(x)[0, 0], expected)


@torch.no_grad()
def test_tfilm_is_kerass_lstm_of_each_blocks_largest():
    """Its equations written out, of one bias; a block's samples are all times the same."""
    torch.manual_seed(0)
    layer, x = TFiLM(3, 4), torch.randn(2, 3, 20)
    W, U, b = layer.lstm.weight_ih_l0, layer.lstm.weight_hh_l0, layer.lstm.bias_ih_l0
    assert b.tolist() == [0] * 3 + [1] * 3 + [0] * 6  # the forget gate's begins as 1
    torch.testing.assert_close(U.T @ U, torch.eye(3))
    assert W.abs().max() <= (6 / 15) ** 0.5
    b += 0.1 * torch.randn(12)
    h, c, factors = torch.zeros(2, 3), torch.zeros(2, 3), []
    for block in x.split(4, dim=-1):
        i, f, g, o = (block.amax(-1) @ W.T + h @ U.T + b).chunk(4, dim=-1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * c.tanh()
        factors.append(h)
    expected = x * torch.stack(factors, dim=-1).repeat_interleave(4, dim=-1)
    torch.testing.assert_close(layer(x), expected)


def test_the_second_bias_is_no_parameter_and_moves_with_the_layer():
    layer = TFiLM(3, 4)
    assert [name for name, _ in layer.named_parameters()] == [
        "lstm.weight_ih_l0",
        "lstm.weight_hh_l0",
        "lstm.bias_ih_l0",
    ]
    assert not layer.lstm.bias_hh_l0.any()
    assert layer.double()(torch.randn(1, 3, 8, dtype=torch.double)).dtype == torch.double
    other = TFiLM(3, 4)
    other.load_state_dict(layer.state_dict())
    x = torch.randn(1, 3, 8)
    torch.testing.assert_close(other(x), layer.float()(x))


@torch.no_grad()
def test_the_tfilm_unet_is_its_layers_in_order():
    """Down: convolution, maximum of two, LeakyReLU, TFiLM; up: convolution, ReLU, shuffle, TFiLM, skip."""
    net, wave = awake(build(KuleshovTFiLM)).net, random_wave(2, 64)
    x, passed = wave, []
    for layer in [*net.down, net.bottleneck]:
        x = layer[0](x)
        x = layer[4](leaky_relu(torch.maximum(x[..., ::2], x[..., 1::2]), 0.2))
        passed.append(x)
    passed.pop()
    for layer, across in zip(net.up, reversed(passed), strict=True):
        x = layer[4](PixelShuffle()(layer[0](x).relu()))
        x = torch.cat([x, across], dim=1)
    expected = wave + PixelShuffle()(net.head[0](x))
    torch.testing.assert_close(net(wave), expected)


def test_only_the_bottleneck_drops_on_the_way_down():
    net = build(KuleshovTFiLM).net
    assert [layer[2].p for layer in net.down] == [0.0] * 4
    assert [layer.p for layer in [net.bottleneck[2], *(layer[1] for layer in net.up)]] == [0.5] * 5


# ---------------------------------------------------------------- lengths and places


@pytest.mark.parametrize("method", METHODS)
@torch.no_grad()
def test_any_length_and_rate_in_the_same_time_out(method):
    stage = awake(build(method))
    for rate in (RATE // 3, 4800, RATE, 44100):
        for samples in (1, 333, 501):
            lengths = torch.tensor([samples, -(-samples // 2)])
            out = stage(Signal(random_wave(2, samples), rate, lengths))
            assert out.rate == RATE
            assert out.lengths.tolist() == [-(-length * RATE // rate) for length in lengths.tolist()]
            assert out.wave.isfinite().all()


@pytest.mark.parametrize("method", METHODS)
@torch.no_grad()
def test_the_end_is_filled_with_zeros(method):
    net = awake(build(method)).net
    wave = random_wave(2, 3 * net.grid - 5)
    filled = torch.cat([wave, torch.zeros(2, 1, 5)], dim=-1)
    torch.testing.assert_close(net(wave), net(filled)[..., :-5])


@torch.no_grad()
def test_in_pieces_it_is_what_it_is_as_a_whole(monkeypatch):
    """Away from the seams, where a piece lacks what is beyond it, the convolutions hear the same."""
    stage, wave = awake(build(KuleshovAudioUNet)), random_wave(1, 12000)
    whole = stage(Signal.of(wave, RATE)).wave
    monkeypatch.setattr(super_resolver, "LONG_WINDOW", 4000)
    pieces = torch.cat(list(stage.enhance(Recording.of(wave, RATE))), dim=-1)
    assert pieces.shape == whole.shape
    hop, window = (4000 // 32 * 32 - RATE // 10) // 32 * 32, 4000 // 32 * 32
    inside = torch.arange(window - hop, hop)
    for first in range(0, 12000 - window, hop):
        torch.testing.assert_close(pieces[..., first + inside], whole[..., first + inside], atol=1e-5, rtol=0)
    assert (pieces - whole).norm() < 0.1 * (whole - wave).norm()


# ---------------------------------------------------------------- terms and trainings


@pytest.mark.parametrize("method", METHODS)
def test_the_weights_choose_the_loss(method):
    """rmse: the mean over items of the root of their mean square error, with 1e-6 under it."""
    pair = pair_of(1, 2)
    stage = awake(build(method, weights={"rmse": 1.0, "mse": 2.0}))
    with torch.no_grad():
        error = stage(pair.low).wave - pair.high.wave
        roots = torch.stack([(item.square().mean() + 1e-6).sqrt() for item in error])
        expected = {"rmse": roots.mean(), "mse": error.square().mean()}
        torch.testing.assert_close(stage.losses(pair), expected)
    assert set(build(method).losses(pair)) == {"rmse"}
    assert set(build(method, weights={"rmse": 0.0, "mse": 1.0}).losses(pair)) == {"mse"}
    with pytest.raises(UserError, match="needs a weight above 0 for rmse or mse"):
        build(method, weights={"mse": 0.0}).losses(pair)


@pytest.mark.parametrize("method", METHODS)
def test_it_learns_from_noise_and_silence(method):
    stage, pair = build(method), pair_of(1, 2)
    awake(stage).train()
    for level in (1.0, 1e-6, 0.0):
        stage.zero_grad()
        low, high = (signal._replace(wave=level * signal.wave) for signal in (pair.low, pair.high))
        stage.losses(pair._replace(low=low, high=high))["rmse"].backward()
        assert all(p.grad.isfinite().all() for p in stage.parameters())
        if level == 1:
            assert [name for name, p in stage.named_parameters() if not p.grad.any()] == []


@pytest.mark.parametrize("method", METHODS)
@torch.no_grad()
def test_its_network_takes_its_example(method):
    stage = build(method).eval()
    assert stage.network(*stage.example(3, 500)).shape == (3, 1, 500)
    assert find_stage({KuleshovAudioUNet: "kuleshov_audiounet"}.get(method, "kuleshov_tfilm")) is method


@pytest.mark.parametrize("method", METHODS)
def test_a_resumed_run_is_the_same_to_the_bit(method, tmp_path):
    def trained(epochs: int, name: str, resume: str | None = None, seed: int = 0) -> dict:
        stage = awake(build(method, seed)).train()  # untrained, TFiLM's deepest levels have no gradient
        trainer = trainer_for(epochs, StepSeeds(0), Checkpoints(tmp_path / name))
        trainer.fit(stage, loader(2), ckpt_path=resume, weights_only=True if resume else None)
        return stage.state_dict()

    straight, first = trained(2, "straight.ckpt"), trained(1, "first.ckpt")
    resumed = trained(2, "second.ckpt", str(tmp_path / "first.ckpt"), seed=5)
    assert [name for name in straight if not torch.equal(straight[name], resumed[name])] == []
    changed = {name for name in straight if not torch.equal(straight[name], first[name])}
    assert {name for name in straight if not name.endswith("bias_hh_l0")} == changed


@pytest.mark.parametrize("method", METHODS)
def test_it_learns_a_pair(method):
    stage = build(method, channels=[8, 8, 8, 8], dropout=0.0)
    stage.optimizer |= {"decay": 1.0, "lr": 3e-3}
    pair = pair_of(1, 2)
    with torch.no_grad():
        before = stage.eval().held_out(pair)["model"].mean()
    trainer_for(1, StepSeeds(0)).fit(stage.train(), DataLoader([pair] * 60, batch_size=None))
    with torch.no_grad():
        after = stage.eval().held_out(pair)["model"].mean()
    print(f"{method.__name__}: {before:.2e} to {after:.2e}")
    assert after < 0.8 * before


@pytest.mark.parametrize("method", METHODS)
def test_bf16_mixed_works(method):
    stage = build(method)
    trainer_for(1, precision="bf16-mixed").fit(stage, loader(1))
    assert all(p.isfinite().all() and p.dtype == torch.float32 for p in stage.parameters())


def test_what_does_not_fit_is_said():
    for method in METHODS:
        with pytest.raises(UserError, match=r"kernels=\[9, 8, 5, 3\]: an odd one from 3 on"):
            build(method, kernels=[9, 8, 5, 3])
        with pytest.raises(UserError, match=r"kernels=\[9\]: an odd one .* for each of \[3, 4, 5, 5\]"):
            build(method, kernels=[9])
    for options, message in (
        ({"block": 8}, "block=8: a multiple of 16 samples"),
        ({"block": 24}, "block=24: a multiple of 16 samples"),
        ({"decoder_blocks": "first"}, "decoder_blocks=first: last or mirrored"),
    ):
        with pytest.raises(UserError, match=message):
            build(KuleshovTFiLM, **options)
