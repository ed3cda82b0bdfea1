"""QISTA-Net-Audio: the authors' graph by goldens, Algorithm 1 in its plain form, SciPy's frames, training."""

from pathlib import Path

import numpy as np
import pytest
import scipy.signal
import torch
from torch.nn.functional import conv2d, pad

from lightning_modules.qista import (
    BINS,
    FRAMES_AT_ONCE,
    M,
    N,
    NetworkM,
    NetworkN,
    QistaNetAudio,
    analyse,
    authors_snr,
    folding,
    image,
    synthesise,
)
from signals.errors import UserError
from signals.types import Pair, Recording, Signal

SPECS = Path(__file__).parents[2].parent / "shared" / "specs"
OFFICIAL = {name: SPECS / f"qista_net_{name}_official.npz" for name in ("n", "m")}
needs_specs = pytest.mark.skipif(not OFFICIAL["n"].exists(), reason="the specs' weights are not here")
ADAM = {"lr": 1e-3, "betas": (0.9, 0.999), "weight_decay": 0.0, "warmup": 0, "decay": 1.0}
ADAM |= {"decay_every": 1000, "clip": 0.0}
SMALL = {"n": {"phases": 2, "channels": 4}, "m": {"phases": 3}}


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def stages(**options) -> tuple[N, M]:
    torch.manual_seed(0)
    n = N({"mse": 1.0, "auxiliary": 0.01}, ADAM, **SMALL["n"], **options)
    return n.eval(), M({"mse": 1.0}, ADAM, **SMALL["m"]).eval()


def pair_of(high: torch.Tensor, rate: int = 16_000, lengths: list[int] | None = None) -> Pair:
    lengths = torch.tensor(lengths or [high.shape[-1]] * len(high))
    low = Signal(high[..., ::2], rate // 2, (lengths + 1) // 2)
    ids = [str(i) for i in range(len(high))]
    return Pair(
        low, Signal(high, rate, lengths), torch.full((len(high),), rate / 4), ids, torch.arange(len(high))
    )


# ---------------------------------------------------------------- the released weights


@pytest.fixture(scope="module")
def official() -> tuple[N, M]:
    n, m = N({}, ADAM), M({}, ADAM)
    n.network.load_state_dict(N.converted(OFFICIAL["n"]))
    m.network.load_state_dict(M.converted(OFFICIAL["m"]))
    return n.eval().requires_grad_(False), m.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def golden() -> dict[str, torch.Tensor]:
    with np.load(SPECS / "qista_golden.npz") as file:
        return {name: torch.from_numpy(np.asarray(file[name])) for name in file.files}


@needs_specs
def test_every_phase_of_n_is_that_of_the_authors_graph(official, golden):
    chosen = golden["frames"]
    first, *made = official[0].net.iterate(golden["ri_in"], "features")
    assert len(made) == 9
    torch.testing.assert_close(first.X[chosen], golden["n_X_init"], rtol=0, atol=1e-8)
    for t, phase in enumerate(made):
        torch.testing.assert_close(phase.R[chosen], golden[f"n_R_{t}"], rtol=0, atol=1e-8)
        torch.testing.assert_close(phase.X[chosen], golden[f"n_X_{t}"], rtol=0, atol=1e-8)
        assert phase.difference.square().mean().item() == pytest.approx(golden[f"n_aux_{t}"].item(), rel=1e-4)
    torch.testing.assert_close(official[0].net(golden["ri_in"]), golden["n_out"], rtol=0, atol=5e-8)


@needs_specs
def test_every_phase_of_m_is_that_of_the_authors_graph(official, golden):
    chosen = golden["frames"]
    first, *made = official[1].net.iterate(golden["mag_in"])
    assert len(made) == 20
    torch.testing.assert_close(first[chosen], golden["m_x_init"], rtol=0, atol=5e-8)
    for t, x in enumerate(made):
        torch.testing.assert_close(x[chosen], golden[f"m_x_{t}"], rtol=0, atol=5e-8)
    torch.testing.assert_close(made[-1], golden["m_out"], rtol=0, atol=5e-8)


@needs_specs
def test_the_waveform_is_the_authors(official, golden):
    """But for 16 samples at each end, where a window's square is divided by, and in our own way with ends."""
    given, wanted = golden["lr_wave"][None].float(), golden["hr_wave_even"][None].float()
    samples = len(golden["hr_wave"])
    n, m = official
    wave = QistaNetAudio(48_000, n, m, ends=False).estimate(given, None)[0][0]
    torch.testing.assert_close(
        wave[16 : samples - 16], golden["wave_complex"].to(wave.dtype)[16 : samples - 16], rtol=0, atol=3e-6
    )
    snr = authors_snr(wave[None, :samples], wanted[:, :samples])
    assert snr.item() == pytest.approx(golden["snr_authors"].item(), abs=1e-3)
    alone = QistaNetAudio(48_000, n, magnitude="n", ends=False).estimate(given, None)[0][0].real
    expected = golden["wave_n_only_real"].to(alone.dtype)
    torch.testing.assert_close(alone[16 : samples - 16], expected[16 : samples - 16], rtol=0, atol=3e-6)
    ours = QistaNetAudio(48_000, n, m)(Signal.of(given[:, None], 24_000)).wave[0, 0]
    torch.testing.assert_close(ours[128:-256], wave.real[128:-256], rtol=0, atol=1e-6)
    assert ours.abs().max() < 0.5 < wave.real.abs().max()  # which is what the ends are for


@needs_specs
def test_the_counts_are_those_that_the_code_uses(official):
    assert [sum(p.numel() for p in stage.network.parameters()) for stage in official] == [289_051, 32_808]


@needs_specs
def test_each_variable_is_accounted_for(tmp_path):
    with np.load(OFFICIAL["m"]) as file:
        arrays = dict(file)
    for name, change, told in (
        ("less", {"conv_3/Variable_1": None}, "lacks conv_3/Variable_1"),
        ("more", {"conv_3/Variable_7": np.zeros(())}, "also has conv_3/Variable_7"),
    ):
        changed = {k: v for k, v in (arrays | change).items() if v is not None}
        np.savez(tmp_path / f"{name}.npz", **changed)
        with pytest.raises(UserError, match=told):
            M.converted(tmp_path / f"{name}.npz")
    with pytest.raises(UserError, match="lacks FC_100"):
        N.converted(OFFICIAL["m"])
    whole = OFFICIAL["m"].read_bytes()
    np.save(tmp_path / "one.npy", np.zeros(3))
    np.savez(tmp_path / "words.npz", FC_101=np.array(["a"]))
    for name, content in (
        ("text", b"weights"),
        ("empty", b""),
        ("cut", whole[:5000]),
        ("flipped", whole[:3000] + bytes(900) + whole[3900:]),
        ("array", (tmp_path / "one.npy").read_bytes()),
        ("words", (tmp_path / "words.npz").read_bytes()),
    ):
        (tmp_path / f"{name}.npz").write_bytes(content)
        with pytest.raises(UserError, match=rf"{name}\.npz is no \.npz of named arrays"):
            M.converted(tmp_path / f"{name}.npz")
    np.savez(tmp_path / "nan.npz", **arrays | {"conv_3/Variable": np.array(np.nan)})
    with pytest.raises(UserError, match="holds NaN or infinity in conv_3/Variable"):
        M.converted(tmp_path / "nan.npz")


# ---------------------------------------------------------------- frames


@pytest.mark.parametrize("samples", [256, 1000, 1024, 1025])
def test_frames_are_scipys(samples):
    wave = drawn(2, samples)
    window = scipy.signal.get_window("hann", 256)
    *_, expected = scipy.signal.stft(
        wave.double().numpy(), 1, window, 256, 128, detrend=False, return_onesided=False, boundary=None
    )
    found = analyse(wave, 256)
    np.testing.assert_allclose(found.mT.numpy(), expected, atol=1e-7)
    _, back = scipy.signal.istft(
        expected, 1, window, 256, 128, input_onesided=False, boundary=None, scaling="spectrum"
    )
    inside = slice(16, -16)  # a window's square is divided by, which is nearly 0 at the ends
    np.testing.assert_allclose(synthesise(found).numpy()[:, inside], back[:, inside], atol=1e-4)


def test_dropping_every_second_sample_is_the_folding_operator():
    """Y[k] = X[k] + X[k + 128], exactly, for every frame."""
    wave = drawn(1, 2048)
    X, Y = analyse(wave, 256), analyse(wave[:, ::2], 128)
    assert X.shape[1] == Y.shape[1]
    torch.testing.assert_close(X @ folding().to(X.dtype).mT, Y, rtol=0, atol=1e-7)


# ---------------------------------------------------------------- the networks


def plain(net: NetworkN, Y: torch.Tensor) -> torch.Tensor:
    """Algorithm 1, one convolution over the image after another."""

    def C(x: torch.Tensor, kernel: torch.Tensor) -> torch.Tensor:
        return conv2d(pad(x, (0, 1, 0, 1)), kernel)

    X = Y @ net.B.mT
    for phase in net.phases:
        K = phase.C
        R = X + phase.beta * (Y - X @ net.A.mT) @ net.B.mT
        h = C(C(C(C(R[:, None], K[0]), K[1]).relu(), K[2]).relu(), K[3])
        s = h.sign() * (h.abs() - phase.lambda_ / (0.1 + h.abs()) ** (1 - net.q)).relu()
        X = R + phase.alpha * C(C(C(C(s - h, K[4]).relu(), K[5]).relu(), K[6]), K[7])[:, 0]
    return X


@pytest.mark.parametrize("lambda_", [0.02, -0.02])
@pytest.mark.parametrize("q", [0.5, 0.05])
def test_both_rows_as_channels_are_the_image(q, lambda_):
    torch.manual_seed(0)
    net = NetworkN(phases=3, channels=5, q=q).requires_grad_(False)
    for phase in net.phases:
        phase.lambda_.fill_(lambda_)
    Y = drawn(7, 2, 128)
    expected = plain(net, Y)
    torch.testing.assert_close(net(Y), expected, rtol=0, atol=1e-5 * expected.abs().max().item())
    assert (expected - plain(NetworkN(3, 5, q).requires_grad_(False), Y)).abs().max() > 0.01  # weights matter


def test_gradients_are_those_of_the_image():
    torch.manual_seed(0)
    net = NetworkN(phases=2, channels=3).double()
    Y = drawn(3, 2, 128).double()
    named = dict(net.named_parameters())
    for form in (net, lambda Y: plain(net, Y)):
        grads = torch.autograd.grad(form(Y).square().sum(), named.values())
        before = locals().get("found")
        found = dict(zip(named, grads, strict=True))
        if before:
            for name in named:
                torch.testing.assert_close(found[name], before[name], rtol=1e-6, atol=1e-9)


def test_the_imaginary_row_never_hears_the_real_one():
    """The convolutions look down only: the paper's joint image joins in one direction."""
    net = NetworkN(phases=3, channels=4).requires_grad_(False)
    Y = drawn(2, 2, 128)
    other = Y.clone()
    other[:, 0] = 0
    torch.testing.assert_close(net(other)[:, 1], net(Y)[:, 1], rtol=0, atol=0)
    assert (net(other)[:, 0] - net(Y)[:, 0]).abs().max() > 0.01


def test_frames_do_not_depend_on_how_many_there_are():
    net = NetworkN(phases=1, channels=2).requires_grad_(False)
    Y = drawn(2 * FRAMES_AT_ONCE + 3, 2, 128)
    with torch.no_grad():
        torch.testing.assert_close(net(Y)[-1:], net(Y[-1:]), rtol=0, atol=1e-6)


def test_operators():
    assert NetworkM(operator="folding").A.sum(1).tolist() == [2.0] * 128
    even = NetworkM().A
    assert torch.equal(even @ torch.arange(256.0), torch.arange(0, 256.0, 2))  # bins, not samples
    assert "A" not in dict(NetworkN(operator="folding").named_parameters())
    for build in (lambda: NetworkN(operator="odd"), lambda: NetworkM(operator="learned")):
        with pytest.raises(UserError, match="operator"):
            build()


# ---------------------------------------------------------------- trainings


@pytest.mark.parametrize("auxiliary", ["features", "image"])
def test_terms_of_n(auxiliary):
    """Of the last phase the error, of all phases the transforms against their inverses."""
    n, _ = stages(auxiliary=auxiliary)
    terms = n.losses(pair_of(drawn(3, 1, 256)))
    assert set(terms) == {"mse", "auxiliary"}
    grads = {
        name: torch.autograd.grad(term, list(n.parameters()), retain_graph=True, allow_unused=True)
        for name, term in terms.items()
    }
    names = [name for name, _ in n.named_parameters()]
    of = {name: dict(zip(names, grad, strict=True)) for name, grad in grads.items()}
    last = "net.phases.1.C.7"
    assert of["mse"][last] is not None
    assert (of["auxiliary"][last] is None) == (auxiliary == "features")  # C7 is left out of it


def test_terms_of_m():
    """The code's is half the sum, the paper's the mean of the same squares."""
    _, m = stages()
    pair = pair_of(drawn(4, 1, 256))
    mean = m.losses(pair)["mse"]
    m.weights = {"half_sum": 1.0}
    torch.testing.assert_close(m.losses(pair)["half_sum"], mean * 4 * 256 / 2)
    m.weights = {"mse": 0.0}
    with pytest.raises(UserError, match="mse or half_sum"):
        m.losses(pair)


@pytest.mark.parametrize("which", [0, 1])
def test_it_learns(which):
    stage = stages()[which].train()
    pair = pair_of(0.5 * drawn(4, 1, 256))
    adam = torch.optim.Adam(stage.parameters(), 3e-3)
    first = None
    for _ in range(30):
        loss = sum(stage.weights[name] * term for name, term in stage.losses(pair).items())
        first = first or loss.item()
        adam.zero_grad()
        loss.backward()
        adam.step()
    assert loss.item() < 0.8 * first
    assert stage.held_out(pair)["model"].shape == stage.held_out(pair)["constant"].shape == (4,)


def test_another_scale_is_refused():
    n, _ = stages()
    high = drawn(1, 1, 256)
    pair = pair_of(high)
    with pytest.raises(UserError, match="doubles the rate"):
        n.losses(pair._replace(low=Signal.of(high[..., ::4], 4000)))


# ---------------------------------------------------------------- in use


@pytest.fixture
def method() -> QistaNetAudio:
    return QistaNetAudio(16_000, *stages()).requires_grad_(False)


@pytest.mark.parametrize("samples", [100, 129, 4000, 4001])
def test_any_length(method, samples):
    low = Signal.of(0.1 * drawn(2, 1, samples), 8000)
    out = method(low)
    assert out.wave.shape == (2, 1, 2 * samples)
    assert out.wave.isfinite().all()
    assert not method(Signal.of(torch.zeros(1, 1, samples), 8000)).wave.any()


def test_a_true_spectrum_is_the_reference():
    """With the reference's phase and magnitude, the frames give the recording back."""
    high = 0.1 * drawn(2, 1, 5001)
    oracle = QistaNetAudio(16_000, magnitude="reference", phase="reference")
    assert oracle.oracle
    out = oracle(Signal.of(high[..., ::2], 8000), reference=Signal.of(high, 16_000))
    torch.testing.assert_close(out.wave, high, rtol=0, atol=1e-6)


def test_options(method):
    low = Signal.of(0.1 * drawn(1, 1, 3000), 8000)
    method.consistent = True
    torch.testing.assert_close(method(low).wave[..., ::2], low.wave)
    assert method.estimate(low.wave[:, 0], None)[0].imag.abs().max() > 1e-4
    method.hermitian = True
    assert method.estimate(low.wave[:, 0], None)[0].imag.abs().max() < 1e-6


def test_what_is_missing_is_named():
    n, m = stages()
    with pytest.raises(UserError, match="needs QISTA-Net-n"):
        QistaNetAudio(16_000, m=m)
    with pytest.raises(UserError, match="needs QISTA-Net-m"):
        QistaNetAudio(16_000, n)
    with pytest.raises(UserError, match="magnitude=x"):
        QistaNetAudio(16_000, n, m, magnitude="x")
    with pytest.raises(UserError, match="is odd"):
        QistaNetAudio(16_001, n, m)


@pytest.mark.parametrize("rate", [8000, 11_025, 12_000])
def test_a_long_recording_is_that_of_the_whole(method, rate):
    """Windows begin where frames begin, whatever the input's rate."""
    method.window = 2**15
    wave = 0.1 * drawn(1, 1, 3 * rate)
    pieces = torch.cat(list(method.enhance(Recording.of(wave, rate))), dim=-1)
    method.window = None
    whole = method(Signal.of(wave, rate)).wave
    assert pieces.shape == whole.shape
    torch.testing.assert_close(pieces, whole, rtol=0, atol=1e-5)


# ---------------------------------------------------------------- what it measures


def test_the_authors_formula_rewards_an_imaginary_part():
    """|sum of (a + ib)^2| is a^2 - b^2 where these are not correlated."""
    reference = drawn(1, 4000)
    a, b = 0.1 * drawn(1, 4000, seed=1), 0.08 * drawn(1, 4000, seed=2)
    inside = slice(16, -16)
    for estimate, error in (
        (torch.complex(reference - a, torch.zeros_like(a)), a[:, inside].square().sum()),
        (torch.complex(reference - a, -b), torch.complex(a, b)[:, inside].square().sum().abs()),
    ):
        expected = 10 * (reference[:, inside].square().sum() / error).log10()
        assert authors_snr(estimate, reference).item() == pytest.approx(expected.item(), abs=1e-4)
    assert authors_snr(estimate, reference) > 22.5  # where the first error alone gives 20


@pytest.mark.parametrize("ends", [True, False])
def test_measures_do_not_depend_on_the_batch(ends):
    method = QistaNetAudio(16_000, *stages(), ends=ends).requires_grad_(False)
    high = 0.1 * drawn(2, 1, 6000)
    high[1, :, 4200:] = 0
    both = method.measured(pair_of(high, lengths=[6000, 4200]))
    assert set(both) == {"SNR_authors", "magnitude_SNR"}
    alone = method.measured(pair_of(high[1:, :, :4200]))
    for name, values in alone.items():
        torch.testing.assert_close(both[name][1:], values, rtol=0, atol=1e-5)


def test_the_magnitude_is_scored_as_it_was_recovered():
    n, m = stages()
    high = 0.1 * drawn(1, 1, 4096)
    ends = pad(high[:, 0], (128, 128))
    X, Y = analyse(ends, BINS), analyse(ends[:, ::2], BINS // 2)
    pair = pair_of(high)
    with torch.no_grad():
        by_n = torch.linalg.vector_norm(n.net(image(Y[0])), dim=1)
        for magnitude, recovered in (("m", m.net(Y[0].abs())), ("n", by_n)):
            found = QistaNetAudio(16_000, n, m, magnitude=magnitude).measured(pair)["magnitude_SNR"]
            error = (X[0].abs() - recovered).square().sum()
            assert found.item() == pytest.approx(
                10 * (X.abs().square().sum() / error).log10().item(), abs=1e-3
            )
    oracle = QistaNetAudio(16_000, n, magnitude="reference")
    assert set(oracle.measured(pair)) == {"SNR_authors"}
