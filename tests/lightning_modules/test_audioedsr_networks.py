"""King et al.'s networks: the published counts, the goldens of the authors' modules, closed forms."""

import math
import re
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from audiosr_tiny import one_thread  # noqa: F401
from torch import nn

from lightning_modules import audioedsr
from lightning_modules.audioedsr import EDSR, Critic, PixelShuffle, UNet, gradient_penalty, phase_shuffle
from signals.errors import UserError

GOLDEN = Path(__file__).parents[1] / "goldens" / "released.npz"

THEIR_NAMES = {  # patterns of our names: theirs
    "edsr": {
        r"head": "block1.0",
        r"body\.(\d+)\.body\.(\d)": r"block2.\1.block1.\2",
        r"body\.(\d+)": r"block2.\1",
        r"up\.(\d+)": r"block3.0.block1.\1",
        r"tail": "block3.1",
    },
    "unet": {
        r"down\.(\d)": r"downsample_blocks.\1.block1.0",
        r"bottleneck": "bottleneck_block.0",
        r"up\.(\d)": lambda found: f"Ublock.{3 - int(found[1])}.block1.0",
        r"final": "Fblock.0",
    },
    "disc": {
        r"convs\.([01])": lambda found: f"block{1 + int(found[1])}.0",
        r"convs\.(\d+)": lambda found: f"block3.{2 * int(found[1]) - 4}",
        r"hidden": "block4.1",
        r"score": "block4.3",
    },
}


def their_name(ours: str, table: dict) -> str:
    layer, kind = ours.rsplit(".", 1)
    for pattern, theirs in table.items():
        if re.fullmatch(pattern, layer):
            return f"{re.sub(pattern, theirs, layer)}.{kind}"
    raise KeyError(ours)


def drawn(name: str, shape: torch.Size) -> torch.Tensor:
    """The weight that the goldens give to a name (only weights of one dimension would be near 1)."""
    random = np.random.RandomState(zlib.crc32(f"wideband-{name}".encode()))
    w = random.standard_normal(shape).astype(np.float32)
    return torch.from_numpy(
        w / np.float32(math.sqrt(math.prod(shape[1:]))) if w.ndim > 1 else w * np.float32(0.05)
    )


def on_meta(build, *args, **options) -> nn.Module:
    with torch.device("meta"):
        return build(*args, **options).eval()


def with_drawn_weights(name: str, kind: str, net: nn.Module) -> nn.Module:
    table = THEIR_NAMES[kind]
    state = {k: drawn(f"{name}.{their_name(k, table)}", v.shape) for k, v in net.state_dict().items()}
    net.load_state_dict(state, assign=True)
    return net


def golden(name: str, *keys: str) -> list[torch.Tensor]:
    with np.load(GOLDEN) as arrays:
        return [torch.from_numpy(np.asarray(arrays[f"{name}.{key}"])) for key in keys]


def assert_close(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    difference = (ours - theirs).abs().max().item()
    print(f"max abs difference {difference:.1e}, rms {theirs.square().mean().sqrt():.2g}")
    assert ours.shape == theirs.shape
    assert difference < 1e-4


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


# ---------------------------------------------------------------- against the authors' modules


@pytest.mark.parametrize(
    ("build", "arguments", "count"),
    [
        (EDSR, (2,), 9_594_113),
        (EDSR, (4,), 9_692_673),
        (UNet, (), 56_411_394),
        (Critic, (), 8_396_617),
        (Critic, (64, 4), 2_089_025),
    ],
)
def test_parameter_counts_are_the_published(build, arguments, count):
    assert parameters(on_meta(build, *arguments)) == count


@pytest.mark.parametrize("scale", [2, 4])
@torch.no_grad()
def test_edsr_is_the_authors(scale):
    name = f"king_edsr{scale}x"
    net = with_drawn_weights(name, "edsr", on_meta(EDSR, scale))
    x, offset, wide, clamped = golden(name, "input.x", "offset.pre_relu", "wide.pre_relu", "wide.out")
    assert_close(net(x), wide)
    net.offset = 1.0
    assert_close(net(0.1 * x) + 1, offset)
    net.clamp = True
    assert_close(net(x - 1) + 1, clamped)


@torch.no_grad()
def test_unet_is_the_authors():
    net = with_drawn_weights("king_unet", "unet", on_meta(UNet, offset=1.0, clamp=True))
    for length in (512, 500):
        x, offset, wide = golden("king_unet", f"input.x{length}", f"offset.out{length}", f"wide.out{length}")
        assert_close(net(0.1 * x) + 1, offset)
        assert_close(net(x - 1) + 1, wide)
    net.offset, net.clamp, net.skip = 0.0, False, False
    assert_close(net(x), golden("king_unet", "wide.fblock500")[0][..., :500])


def test_critic_and_its_penalty_are_the_authors():
    net = with_drawn_weights("king_disc", "disc", on_meta(Critic))
    real, fake, alpha = golden("king_disc", "input.real", "input.fake", "input.alpha")
    for kind, shift, scale in (("offset", 1, 0.1), ("wide", 0, 100)):
        of_real, of_fake, penalty, loss = golden(
            "king_disc", *(f"{kind}.{key}" for key in ("out_real", "out_fake", "gradient_penalty", "d_loss"))
        )
        x, x_tilde = (shift + scale * wave for wave in (real, fake))
        ours = gradient_penalty(net, x, x_tilde, alpha.flatten())
        with torch.no_grad():
            assert_close(net(x), of_real)
            assert_close(net(x_tilde), of_fake)
        assert_close(ours.double(), penalty)
        assert_close((net(x_tilde).mean() - net(x).mean() + 10 * ours).double(), loss)
        norms, gradient = golden("king_disc", f"{kind}.grad_norms", f"{kind}.input_grad_x1e4")
        between = (alpha * x + (1 - alpha) * x_tilde).requires_grad_()
        (ours,) = torch.autograd.grad(net(between).sum(), between)
        torch.testing.assert_close(1e4 * ours, gradient, rtol=1e-3, atol=1e-3 * gradient.abs().max().item())
        torch.testing.assert_close(ours.flatten(1).norm(dim=1).double(), norms, rtol=1e-3, atol=0)


# ---------------------------------------------------------------- any length, any width


@pytest.mark.parametrize("samples", [1, 7, 64, 333])
@torch.no_grad()
def test_any_length_gives_the_right_length(samples):
    wave = torch.randn(2, 1, samples)
    for scale in (2, 4, 8):
        assert EDSR(scale, channels=4, blocks=1)(wave).shape == (2, 1, scale * samples)
    assert UNet([2, 4, 4], [9, 5, 3])(wave).shape == (2, 1, samples)
    assert UNet([2, 4], [9, 5], skip=False, offset=1.0, clamp=True)(wave).shape == (2, 1, samples)
    assert Critic(2, 3)(wave).shape == (2,)


@pytest.mark.parametrize("scale", [1, 3, 6])
def test_scales_of_no_power_of_two_are_refused(scale):
    with pytest.raises(UserError, match="powers of two"):
        EDSR(scale)


@torch.no_grad()
def test_a_clamped_network_keeps_above_minus_its_offset():
    torch.manual_seed(0)
    wave = 5 * torch.randn(1, 1, 200)
    for clamped in (EDSR(2, 4, 1, offset=1.0, clamp=True), UNet([2], [3], offset=1.0, clamp=True)):
        free = type(clamped)(*((2, 4, 1) if isinstance(clamped, EDSR) else ([2], [3])), offset=1.0).eval()
        free.load_state_dict(clamped.state_dict())
        out = clamped.eval()(wave)
        assert out.min() == -1
        torch.testing.assert_close(out, free(wave).clamp(min=-1))
    with pytest.raises(UserError, match="offset above 0"):
        UNet(clamp=True)


@torch.no_grad()
def test_the_skip_adds_the_input():
    wave = torch.randn(1, 1, 100)
    net = UNet([2, 4], [9, 5]).eval()
    whole = net(wave)
    net.skip = False
    torch.testing.assert_close(whole, net(wave) + wave)


# ---------------------------------------------------------------- shuffles


@pytest.mark.parametrize("factor", [2, 3])
def test_pixel_shuffle_interleaves_neighbouring_channels(factor):
    x = torch.randn(2, 4 * factor, 5)
    out = PixelShuffle(factor)(x)
    assert out.shape == (2, 4, 5 * factor)
    for j in range(factor):
        for c in range(4):
            assert torch.equal(out[:, c, j::factor], x[:, factor * c + j])


def test_phase_shuffle_moves_each_item_and_reflects():
    x = torch.arange(6.0).repeat(3, 2, 1)
    out = phase_shuffle(x, torch.tensor([2, -2, 0]))
    assert out[0, 0].tolist() == [2, 1, 0, 1, 2, 3]
    assert out[1, 1].tolist() == [2, 3, 4, 5, 4, 3]
    assert torch.equal(out[2], x[2])


@pytest.mark.parametrize("samples", [1, 2, 3, 50])
def test_phase_shuffle_takes_any_length(samples):
    """NumPy's reflection, which bounces as often as it must."""
    x, shifts = torch.randn(41, 3, samples), torch.arange(-20, 21)
    for row, shift in enumerate(shifts.tolist()):
        padded = np.pad(x[row].numpy(), ((0, 0), (20, 20)), mode="reflect" if samples > 1 else "edge")
        moved = padded[:, 20 - shift : 20 - shift + samples]
        np.testing.assert_array_equal(phase_shuffle(x, shifts)[row], moved)


def test_shifts_are_whole_and_within_reach():
    seeds = torch.arange(2000)
    shifts = audioedsr.draw_shifts(2, 3, seeds, salt=1)
    assert shifts.shape == (3, 2000)
    assert shifts.unique(return_counts=True)[0].tolist() == [-2, -1, 0, 1, 2]
    assert shifts.unique(return_counts=True)[1].min() > 1000  # of 1200 each
    assert torch.equal(shifts[:, :2], audioedsr.draw_shifts(2, 3, seeds[:2], salt=1))
    assert not torch.equal(shifts, audioedsr.draw_shifts(2, 3, seeds, salt=2))
    assert not torch.equal(shifts[0], shifts[1])
    assert audioedsr.draw_shifts(0, 3, seeds, salt=1) is None


@torch.no_grad()
def test_networks_are_moved_by_their_shifts():
    wave = torch.randn(2, 1, 96)
    for net in (UNet([2, 4], [9, 5], phase_shuffle=2), Critic(2, 3, phase_shuffle=2)):
        net.eval()
        still = torch.zeros(net.layers, 2, dtype=torch.long)
        torch.testing.assert_close(net(wave, still), net(wave))
        for place in range(net.layers):
            moved = still.clone()
            moved[place, 0] = 2
            changed = (net(wave, moved) != net(wave)).view(2, -1).any(1)
            assert changed.tolist() == [True, False]


@pytest.mark.parametrize(
    "build", [lambda **o: EDSR(4, channels=8, blocks=2, **o), lambda **o: UNet([4, 8], [9, 5], **o)]
)
@torch.no_grad()
def test_icnr_has_no_tones(build):
    """A constant input gives a constant output, away from the ends, where the padding is heard."""
    spread = {}
    for icnr in (True, False):
        torch.manual_seed(0)
        middle = build(icnr=icnr).eval()(torch.ones(1, 1, 512))[..., 200:300]
        spread[icnr] = (middle - middle.mean()).abs().max().item()
    assert spread[True] < 1e-6
    assert spread[False] > 1e-3


# ---------------------------------------------------------------- the penalty


def test_a_linear_critics_penalty_is_its_closed_form():
    torch.manual_seed(0)
    real, fake, epsilon = torch.randn(3, 1, 50), torch.randn(3, 1, 50), torch.rand(3)
    for size in (0.0, 0.5, 1.0, 7.0):
        w = torch.randn(50)
        w = (size * w / w.norm()).requires_grad_()
        penalty = gradient_penalty(lambda wave, w=w: wave[:, 0] @ w, real, fake, epsilon)
        torch.testing.assert_close(penalty, torch.tensor((size - 1) ** 2))
        if size:
            (gradient,) = torch.autograd.grad(penalty, w)
            torch.testing.assert_close(gradient, 2 * (size - 1) * w.detach() / size, atol=1e-5, rtol=1e-4)


def test_the_penalty_is_taken_between_the_two():
    """The gradient of sum(x^2) / 2 is x: the penalty tells where it was."""
    real, fake = torch.randn(4, 1, 9), torch.randn(4, 1, 9, requires_grad=True)
    epsilon = torch.tensor([0.0, 0.25, 0.5, 1.0])
    penalty = gradient_penalty(lambda wave: wave.square().sum((1, 2)) / 2, real, fake, epsilon)
    share = epsilon[:, None, None]
    norms = (share * real + (1 - share) * fake).flatten(1).norm(dim=1)
    torch.testing.assert_close(penalty, (norms - 1).square().mean())


def test_the_penalty_is_in_float32_under_autocast():
    torch.manual_seed(0)
    critic, real, fake, epsilon = Critic(4, 2), torch.randn(2, 1, 64), torch.randn(2, 1, 64), torch.rand(2)
    plain = gradient_penalty(critic, real, fake, epsilon)
    with torch.autocast("cpu", torch.bfloat16):
        under = gradient_penalty(critic, real.bfloat16().float(), fake, epsilon)
        assert critic.convs[0](real).dtype == torch.bfloat16
    assert under.dtype == torch.float32
    torch.testing.assert_close(under, gradient_penalty(critic, real.bfloat16().float(), fake, epsilon))
    assert plain.requires_grad
