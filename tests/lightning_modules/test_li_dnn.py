"""Li and Lee's DNN: splits and counts, the imaged phase in closed form, statistics, pieces, trainings."""

from itertools import pairwise

import numpy as np
import pytest
import scipy.signal
import torch
from audiosr_tiny import OPTIMIZER, one_thread, random_wave  # noqa: F401
from test_audioedsr import RATE, loader, pair_of, trainer_for
from torch import nn
from torch.utils.data import DataLoader

from callbacks.checkpoints import Checkpoints, StepSeeds
from lightning_modules import find_stage
from lightning_modules.li_dnn import FLOOR, LiDNN, imaged, log_power, overlapped, perceptron, spectra
from lightning_modules.super_resolver import raise_rate
from signals.errors import UserError
from signals.filters import boxcar
from signals.types import Pair, Recording, Signal

TINY = {"scale": 2, "hidden": 8, "layers": 2}
SPLITS = {2: (129, 128), 4: (65, 192), 6: (43, 214), 8: (33, 224)}
COUNTS = {2: (11_034_752, 11.03), 4: (9_986_240, 9.99), 6: (9_625_814, 9.63), 8: (9_461_984, 9.46)}

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*does not have many workers",
    "ignore:.*`val_dataloader`",
    "ignore:You are trying to",
    "ignore:Found .* in eval mode",
)


def dnn(seed: int = 0, rate: int = RATE, **options) -> LiDNN:
    torch.manual_seed(seed)
    return LiDNN({"mse": 1.0}, OPTIMIZER, rate, **TINY | options)


def swelling_pair(*seeds: int, samples: int = 4096, scale: int = 2) -> Pair:
    """Noise that swells, and below 1 / scale of its band the same, at the full rate: an ideal filter."""
    high = torch.cat([random_wave(1, samples, seed) for seed in seeds])
    high = high * (1.1 + torch.sin(torch.arange(samples) / 300))
    cutoff = torch.full((len(seeds),), RATE / 2 / scale)
    names = [str(seed) for seed in seeds]
    low = Signal.of(boxcar(high, cutoff, RATE), RATE)
    return Pair(low, Signal.of(high, RATE), cutoff, names, torch.tensor(seeds))


def fitted(stage: LiDNN, *pairs: Pair) -> LiDNN:
    """With the statistics of pairs, as training gathers them, and weights that are heard."""
    stage.log_dict = lambda *_, **__: None
    for pair in pairs:
        stage.training_step(pair, 0)
    for name, p in stage.net.named_parameters():
        if name.endswith("bias"):
            nn.init.normal_(p, std=0.3)
    return stage.eval()


class Knowing(nn.Module):
    """Gives what it was told, whatever it hears."""

    def __init__(self, answer: torch.Tensor):
        super().__init__()
        self.answer = answer

    def forward(self, heard: torch.Tensor) -> torch.Tensor:
        assert self.answer.shape[-1] == heard.shape[-1]
        return self.answer


# ---------------------------------------------------------------- spectra and phases


@pytest.mark.parametrize("samples", [512, 2048, 2100])
def test_spectra_are_scipys(samples):
    """Frames around every 256th sample, periodic Hamming, silence outside."""
    wave = random_wave(2, samples)[:, 0]
    window = scipy.signal.get_window("hamming", 512)
    filled = np.pad(wave.numpy(), ((0, 0), (256, 256 + -samples % 256)))
    frames = np.lib.stride_tricks.sliding_window_view(filled, 512, axis=-1)[:, ::256]
    expected = np.fft.rfft(frames * window).swapaxes(1, 2)
    np.testing.assert_allclose(spectra(wave, 512), expected, atol=1e-5)
    restored = overlapped(spectra(wave, 512), 512)
    torch.testing.assert_close(restored[:, :samples], wave, atol=1e-6, rtol=0)
    assert restored.shape[-1] == -(-samples // 256) * 256


def test_log_power_is_finite_on_silence():
    assert log_power(torch.zeros(1, 1, 1, dtype=torch.complex64)).item() == pytest.approx(2 * np.log(FLOOR))
    assert log_power(torch.tensor([-3 + 4j])).item() == pytest.approx(np.log(25))


def test_the_imaged_phase_is_mirrored_at_the_cut_off_again_and_again():
    phase = torch.tensor([0.0, 0.1, 0.2, 0.3, 0.4])[None, :, None]  # bins 0 to 4
    expected = [-0.3, -0.2, -0.1, 0.0, 0.1, 0.2, 0.3, 0.4, -0.3, -0.2]
    torch.testing.assert_close(imaged(phase, 10)[0, :, 0], torch.tensor(expected))


@pytest.mark.parametrize("scale", [2, 4, 8])
def test_the_imaged_phase_is_that_of_samples_between_zeros(scale):
    wave = torch.zeros(1, 4096, dtype=torch.double)
    wave[:, ::scale] = random_wave(1, 4096 // scale)[0].double()
    window = torch.hamming_window(512, dtype=torch.double)
    X = torch.stft(wave, 512, 256, window=window, pad_mode="constant", return_complex=True)
    low, high = SPLITS[scale]
    turned = torch.polar(torch.ones(1, high, X.shape[-1]).double(), imaged(X[:, :low].angle(), high))
    torch.testing.assert_close(turned * X[:, low:].abs(), X[:, low:], atol=1e-5, rtol=0)


# ---------------------------------------------------------------- the network


@pytest.mark.parametrize("scale", list(SPLITS))
def test_splits_and_counts_are_the_published(scale):
    with torch.device("meta"):
        net = perceptron(*SPLITS[scale], hidden=2048, layers=3, context=9)
    low, high = SPLITS[scale]
    widths = [9 * low, 2048, 2048, 2048, high]
    expected = sum((i + 1) * o for i, o in pairwise(widths))
    count, millions = COUNTS[scale]
    assert sum(p.numel() for p in net.parameters()) == expected == count
    assert round(count / 1e6, 2) == millions
    stage = dnn(scale=scale, rate=16000)
    assert (stage.low, stage.high) == (low, high)
    pair = pair_of(1, scale=1)  # 12 kHz: its bins are the same shares of its band
    stage = dnn(scale=scale)
    assert stage.features(pair._replace(cutoff=torch.tensor([RATE / 2 / scale])))[0].shape[1] == 257


@torch.no_grad()
def test_the_convolutions_are_dense_layers_on_nine_frames():
    torch.manual_seed(0)
    net, x = perceptron(5, 3, hidden=7, layers=3, context=9), torch.randn(2, 5, 20)
    frames = torch.nn.functional.pad(x, (4, 4)).unfold(-1, 9, 1)  # [B, low, N, 9]
    heard = frames.permute(0, 2, 1, 3).flatten(2)
    layers = [layer for layer in net if isinstance(layer, nn.Conv1d)]
    for place, layer in enumerate(layers):
        nn.init.normal_(layer.bias)
        heard = heard @ layer.weight.flatten(1).T + layer.bias
        heard = heard.relu() if place < 3 else heard
    torch.testing.assert_close(net(x), heard.mT)
    limit = (6 / (5 * 9 + 7)) ** 0.5  # Glorot's, of a dense layer of 45 inputs
    assert 0.9 * limit < layers[0].weight.abs().max() <= limit


# ---------------------------------------------------------------- statistics


def test_statistics_are_numpys_over_all_frames_and_survive_saving():
    pairs = [swelling_pair(1, 2), swelling_pair(3), swelling_pair(4, 5, samples=1000)]
    stage = fitted(dnn(), *pairs)
    frames = [stage.features(pair)[0].permute(0, 2, 1).reshape(-1, 257) for pair in pairs]
    assert [len(each) for each in frames] == [2 * 17, 17, 2 * 5]
    together = torch.cat(frames).double().numpy()
    mean, deviation = stage.statistics()
    np.testing.assert_allclose(mean[:, 0], together.mean(0), rtol=1e-5)
    np.testing.assert_allclose(deviation[:, 0], together.std(0), rtol=1e-4)
    other = dnn(seed=1)
    other.load_state_dict(stage.state_dict())
    assert torch.equal(other.statistics()[0], mean)
    assert torch.equal(other.statistics()[1], deviation)
    assert int(other.frames) == len(together)


def test_features_are_the_inputs_below_and_the_references_above():
    pair, stage = swelling_pair(1, 2, scale=4), dnn(scale=4)
    pair = pair._replace(low=pair.low._replace(wave=0.5 * pair.low.wave))
    found, inside = stage.features(pair)
    assert inside.all()
    for bins, wave in ((slice(65), pair.low.wave), (slice(65, None), pair.high.wave)):
        expected = log_power(spectra(wave[:, 0], 512))[:, bins]
        torch.testing.assert_close(found[:, bins], expected)


def test_padding_is_neither_learnt_nor_counted():
    """A short item in a batch is what it is alone; silence inside counts."""
    pair = swelling_pair(1, 2)
    wave = pair.high.wave.clone()
    wave[1, :, 1000:] = 0
    low = pair.low.wave.clone()
    low[1, :, 1000:] = 0
    lengths = torch.tensor([4096, 1000])
    batch = pair._replace(low=Signal(low, RATE, lengths), high=Signal(wave, RATE, lengths))
    items = [
        Pair(
            Signal.of(low[row : row + 1, :, :length], RATE),
            Signal.of(wave[row : row + 1, :, :length], RATE),
            pair.cutoff[row : row + 1],
            pair.ids[row : row + 1],
            pair.seeds[row : row + 1],
        )
        for row, length in enumerate(lengths.tolist())
    ]
    together, apart = fitted(dnn(), batch), fitted(dnn(), *items)
    for name in ("frames", "total", "squares"):
        torch.testing.assert_close(getattr(together, name), getattr(apart, name))
    with torch.no_grad():
        found = together.held_out(batch)
        for row, item in enumerate(items):
            alone = together.held_out(item)
            for name, value in alone.items():
                torch.testing.assert_close(found[name][row : row + 1], value, atol=1e-4, rtol=1e-4)
        assert together.losses(batch)["mse"] == pytest.approx(
            (17 * found["model"][0] + 5 * found["model"][1]).item() / 22, rel=1e-4
        )


def test_held_out_is_judged_by_normalised_log_power():
    """On what it was fitted to, the constant is 1: the mean squared deviation of each bin."""
    pair = swelling_pair(1, 2)
    stage = fitted(dnn(), pair)
    with torch.no_grad():
        scores = stage.held_out(pair)
        assert scores["constant"].mean().item() == pytest.approx(1, rel=1e-3)
        found, _ = stage.features(pair)
        mean, deviation = stage.statistics()
        normalised = (found - mean) / deviation
        made = stage.net(normalised[:, : stage.low])
        expected = (made - normalised[:, stage.low :]).square().mean((1, 2))
        torch.testing.assert_close(scores["model"], expected)
        stage.net = Knowing(normalised[:, stage.low :])
        assert stage.held_out(pair)["model"].tolist() == [0, 0]


# ---------------------------------------------------------------- in use


@pytest.mark.parametrize(("scale", "samples"), [(2, 4096), (4, 4096), (6, 4000)])
@torch.no_grad()
def test_who_knows_the_spectrum_gives_back_the_recording(scale, samples):
    """The true log-power above and the true phase; with the imaged one, the magnitudes are no longer kept."""
    pair = swelling_pair(1, 2, samples=samples, scale=scale)
    pair = pair._replace(low=pair.high)  # its low bins are the reference's: no filter is ideal bin by bin
    stage = fitted(dnn(scale=scale), pair)
    stage.used(phase="reference")
    whole = torch.nn.functional.pad(pair.high.wave, (stage.margin, stage.margin + -samples % 256))
    mean, deviation = stage.statistics()
    above = slice(stage.low, None)
    X = spectra(whole[:, 0], 512)[:, above]
    stage.net = Knowing((log_power(X) - mean[above]) / deviation[above])
    out = stage(pair.low, cutoff=pair.cutoff, reference=pair.high)
    torch.testing.assert_close(out.wave, pair.high.wave, atol=1e-4, rtol=0)
    stage.used()
    assert not stage.oracle
    guessed = stage(pair.low, cutoff=pair.cutoff).wave
    assert (guessed - pair.high.wave).norm() > 0.1 * pair.high.wave.norm()


@torch.no_grad()
def test_the_spectrum_that_is_added_up_is_low_band_magnitude_and_phase():
    pair = swelling_pair(1, 2)
    stage, seen = fitted(dnn(), pair), []
    given = pair.low.wave[:, 0]
    inside = torch.ones(2, 17, dtype=torch.bool)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lightning_modules.li_dnn.overlapped", lambda X, _: seen.append(X) or X.real)
        known = torch.tensor([129, 129])
        stage.estimate(given, inside, known, None)
        stage.used(phase="reference")
        stage.estimate(given, inside, known, pair.high.wave[:, 0])
    Y, X = spectra(given, 512), spectra(pair.high.wave[:, 0], 512)
    mean, deviation = stage.statistics()
    made = stage.net((log_power(Y[:, :129]) - mean[:129]) / deviation[:129])
    magnitude = ((made * deviation[129:] + mean[129:]) / 2).exp()
    for found, phase in zip(seen, (imaged(Y[:, :129].angle(), 128), X[:, 129:].angle()), strict=True):
        assert torch.equal(found[:, :129], Y[:, :129])
        torch.testing.assert_close(found[:, 129:], torch.polar(magnitude, phase), atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_no_bin_is_louder_than_full_scale_can_be():
    stage = fitted(dnn(), swelling_pair(1))
    stage.net = Knowing(torch.full((1, 128, 27), 1e4))
    wave = stage(Signal.of(random_wave(1, 4096), RATE)).wave
    assert wave.isfinite().all()
    ones = np.ones(512) * scipy.signal.get_window("hamming", 512)
    assert stage.loudest == pytest.approx(2 * np.log(ones.sum()), rel=1e-5)
    assert log_power(spectra(wave[:, 0], 512)).max() < stage.loudest + 2


@torch.no_grad()
def test_any_length_and_rate_in_the_same_time_out():
    stage = fitted(dnn(), swelling_pair(1, 2))
    for rate in (RATE // 2, RATE, 44100):
        for samples in (1, 333, 501):
            lengths = torch.tensor([samples, -(-samples // 2)])
            low = Signal(random_wave(2, samples), rate, lengths)
            out = stage(low)
            assert out.lengths.tolist() == [-(-length * RATE // rate) for length in lengths.tolist()]
            assert out.wave.isfinite().all()
            alone = stage(Signal.of(low.wave[1:, :, : lengths[1]], rate)).wave
            torch.testing.assert_close(alone, out.wave[1:, :, : out.lengths[1]], atol=1e-6, rtol=1e-4)


@torch.no_grad()
def test_what_the_input_has_stays_and_what_it_lacks_is_an_error():
    stage = fitted(dnn(), swelling_pair(1, 2))
    wide = Signal.of(random_wave(1, 6000), RATE)
    same = stage(wide, cutoff=torch.tensor([RATE / 2])).wave
    torch.testing.assert_close(same, wide.wave, atol=1e-5, rtol=0)
    made = stage(wide, cutoff=torch.tensor([RATE / 3])).wave  # 171 bins
    change = (spectra(made[:, 0], 512) - spectra(wide.wave[:, 0], 512)).abs()
    assert change[:, :160].mean() < 0.05 * change[:, 171:].mean()
    with pytest.raises(
        UserError, match="LiDNN of scale 2 hears bands up to 3000 Hz, and this one ends at 2400"
    ):
        stage(Signal.of(random_wave(1, 600), 4800))


def test_silence_is_finite():
    """In use, before and after training, and as a whole batch to learn from."""
    stage, silence = fitted(dnn(), swelling_pair(1, 2)), Signal.of(torch.zeros(2, 1, 3000), RATE)
    with torch.no_grad():
        for wave in (dnn().eval()(silence).wave, stage(silence).wave):
            assert wave.isfinite().all()
    pair = swelling_pair(1, 2)._replace(low=silence, high=silence)
    for trained in (dnn(), stage):
        fitted(trained).train().zero_grad()
        trained.training_step(pair, 0).backward()
        assert all(p.grad.isfinite().all() for p in trained.parameters())


@pytest.mark.parametrize(("rate", "atol"), [(RATE, 1e-5), (RATE // 2, 1e-2)])
@torch.no_grad()
def test_in_pieces_it_is_what_it_is_as_a_whole(rate, atol):
    """But for rounding where the input is at the full rate; raised by FFT, each piece repeats itself, which
    is heard a little at its ends.
    """
    stage = fitted(dnn(), swelling_pair(1, 2))
    wave = random_wave(2, 20_001 * rate // RATE)
    low = Signal.of(wave, rate)
    whole = stage(low, cutoff=torch.full((len(wave),), RATE / 4)).wave
    added = whole - raise_rate(low, stage.rate, stage.upsample).wave
    stage.window = 5000
    pieces = list(stage.enhance(Recording.of(wave, rate), cutoff=RATE / 4))
    assert max(piece.shape[-1] for piece in pieces) <= 5000
    assert (torch.cat(pieces, dim=-1) - whole).abs().max() < atol * added.abs().max()


def test_the_phase_is_of_use_and_the_true_one_an_oracles():
    stage = dnn()
    assert stage.phase == "imaged"
    assert not stage.oracle
    stage.used(phase="reference")
    with pytest.raises(UserError, match="LiDNN is an oracle"):
        stage.enhance(Recording.of(random_wave(1, 100), RATE))
    with pytest.raises(UserError, match="phase=true: imaged or reference"):
        stage.used(phase="true")


# ---------------------------------------------------------------- trainings


def test_a_gradient_reaches_every_parameter():
    stage = fitted(dnn(), swelling_pair(1, 2)).train()
    stage.zero_grad()
    stage.losses(swelling_pair(3, 4))["mse"].backward()
    assert [name for name, p in stage.named_parameters() if not p.grad.any()] == []


def test_it_learns_a_pair():
    stage, pair = dnn(hidden=64), swelling_pair(1, 2)
    stage.optimizer |= {"decay": 1.0, "lr": 3e-3}
    trainer_for(1, StepSeeds(0)).fit(stage, DataLoader([pair] * 60, batch_size=None))
    with torch.no_grad():
        scores = stage.eval().held_out(pair)
    print(scores)
    assert (scores["model"] < 0.5 * scores["constant"]).all()


@torch.no_grad()
def test_its_network_takes_its_example():
    stage = dnn().eval()
    assert stage.network(*stage.example(3, 8192)).shape == (3, 128, 33)
    assert sum(p.numel() for p in stage.network.parameters()) == sum(p.numel() for p in stage.parameters())
    assert find_stage("li_dnn") is LiDNN


def test_a_resumed_run_is_the_same_to_the_bit(tmp_path):
    def trained(epochs: int, name: str, resume: str | None = None, seed: int = 0) -> dict:
        stage = dnn(seed)
        trainer = trainer_for(epochs, StepSeeds(0), Checkpoints(tmp_path / name))
        trainer.fit(stage, loader(2), ckpt_path=resume, weights_only=True if resume else None)
        return stage.state_dict()

    straight, first = trained(2, "straight.ckpt"), trained(1, "first.ckpt")
    resumed = trained(2, "second.ckpt", str(tmp_path / "first.ckpt"), seed=5)
    assert [name for name in straight if not torch.equal(straight[name], resumed[name])] == []
    assert [name for name in straight if torch.equal(straight[name], first[name])] == []


def test_bf16_mixed_works():
    stage = dnn()
    trainer_for(1, precision="bf16-mixed").fit(stage, loader(1))
    assert all(p.isfinite().all() and p.dtype == torch.float32 for p in stage.parameters())
    assert stage.total.isfinite().all()


def test_what_does_not_fit_is_said():
    with pytest.raises(UserError, match="up to 1500 Hz, not up to 3000 Hz: set its scale to 2"):
        dnn(scale=4).losses(pair_of(1, scale=2))
    for options, message in (
        ({"scale": 1}, "scale=1, n_fft=512: from 2"),
        ({"n_fft": 511}, "n_fft=511: .* even"),
        ({"context": 8}, "context=8, layers=2: an odd number"),
        ({"layers": 0}, "context=9, layers=0: an odd number, and at least one"),
    ):
        with pytest.raises(UserError, match=message):
            dnn(**options)
