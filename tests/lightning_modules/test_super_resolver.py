"""SuperResolver: any length and rate in, windows that leave no trace, and the test step."""

from fractions import Fraction
from typing import ClassVar

import lightning
import pytest
import torch
from torch.utils.data import DataLoader

from lightning_modules import build_method
from lightning_modules.super_resolver import SuperResolver
from signals.errors import UserError
from signals.interpolation import hold
from signals.resampling import resample
from signals.types import Pair, Rate, Signal, silence_padding

RATE = 48000
RATES = [Fraction(8000, 3), 8000, 16000, 24000, 32000, 44100, 48000]


def noise_of(batch: int, samples: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(batch, 1, samples, generator=torch.Generator().manual_seed(seed))


class Same(SuperResolver):
    """Gives back what it gets, and keeps what that was."""

    def __init__(self, window: int | None = None, overlap: int = 0, rate: int = RATE, **attributes):
        super().__init__(rate)
        self.window, self.overlap, self.calls = window, overlap, []
        for name, value in attributes.items():
            setattr(self, name, value)

    def resolve(self, low, cutoff, seeds, reference):
        self.calls.append((low, cutoff, seeds, reference))
        return low.wave


class Centred(Same):
    """Depends on all samples, so on padding too if it saw any."""

    def resolve(self, low, cutoff, seeds, reference):
        return low.wave - low.wave.mean(dim=-1, keepdim=True) + seeds[:, None, None] % 1000


class Held(Same):
    """Raises the rate itself, every sample from one sample of the input."""

    upsample = "none"

    def resolve(self, low, cutoff, seeds, reference):
        self.calls.append((low, cutoff, seeds, reference))
        return hold(low.wave, low.rate, self.rate, low.wave.shape[-1] * self.rate // low.rate)


@pytest.mark.parametrize("window", [None, 4000])
@pytest.mark.parametrize("upsample", ["polyphase", "sinc", "spline", "cubic"])
@pytest.mark.parametrize("rate", RATES)
def test_a_sine_keeps_its_place(rate, upsample, window):
    samples = 2 * rate // 10 + 1
    total = int(-(-samples * RATE // rate))
    out = Same(window, overlap=500, upsample=upsample)(Signal.of(sine(samples, rate), rate))
    assert out.rate == RATE
    assert out.wave.shape == (1, 1, total)
    assert out.lengths.tolist() == [total]
    inside = slice(RATE // 50, -RATE // 50)
    error = (out.wave - sine(total, RATE))[..., inside].abs().max()
    assert error < 5e-3


def sine(samples: int, rate: Rate) -> torch.Tensor:
    time = torch.arange(samples, dtype=torch.float64) / float(rate)
    return torch.sin(2 * torch.pi * 200 * time).float()[None, None]


@pytest.mark.parametrize("rate", RATES)
def test_an_impulse_comes_out_where_it_went_in(rate):
    wave = torch.zeros(1, 1, rate // 10 + 500)
    at = 441  # where every one of the rates has a sample
    wave[..., at] = 1
    out = Same(2048, overlap=512)(Signal.of(wave, rate)).wave
    assert abs(int(out.argmax()) - at * RATE / rate) <= 0.5


@pytest.mark.parametrize("overlap", [0, 1, 100, 400, 700, 900])
@pytest.mark.parametrize("total", [999, 1000, 1001, 1700, 12345])
def test_windows_of_an_identity_leave_no_trace(total, overlap):
    wave = noise_of(2, total)
    model = Same(window=1000, overlap=overlap, windows_at_once=64)
    out = model(Signal.of(wave, RATE))
    torch.testing.assert_close(out.wave, wave, rtol=0, atol=1e-6)
    assert all(low.wave.shape[-1] <= 1000 for low, *_ in model.calls)


def test_windows_come_a_few_at_once():
    model = Same(window=1000, overlap=100, windows_at_once=3)
    model(Signal.of(noise_of(1, 10_000), RATE))
    assert [len(low.wave) for low, *_ in model.calls] == [3, 3, 3, 2]
    seeds = torch.cat([seeds for _, _, seeds, _ in model.calls])
    assert len(seeds.unique()) == 11


def test_seeds_of_windows_are_no_other_items():
    model = Same(window=100, windows_at_once=1000)
    model(Signal.of(noise_of(20, 2000), RATE))
    seeds = torch.cat([seeds for _, _, seeds, _ in model.calls])
    assert len(seeds.unique()) == len(seeds) == 400


@pytest.mark.parametrize("rate", [Fraction(8000, 3), 16000, 32000, 44100])
def test_a_method_may_raise_the_rate_itself_in_windows(rate):
    """Windows of 1000 samples are not on the grid of 32 to 48 or 44.1 to 48 kHz: they are made so."""
    low = Signal.of(noise_of(2, rate // 5), rate)
    whole = Held()(low).wave
    model = Held(window=1000, overlap=90)
    windowed = model(low).wave
    assert len(model.calls) > 1
    assert whole.shape[-1] == -(-(rate // 5) * RATE // rate)
    torch.testing.assert_close(windowed, whole, rtol=0, atol=1e-6)


def test_a_window_below_the_grid_is_an_error():
    with pytest.raises(UserError, match="too short"):
        Held(window=150, overlap=0)(Signal.of(noise_of(1, 1000), 44100))


def test_a_higher_rate_comes_down_without_aliases():
    time = torch.arange(9600, dtype=torch.float64) / 96000
    wave = (torch.sin(2 * torch.pi * 1000 * time) + torch.sin(2 * torch.pi * 30000 * time)).float()
    for upsample in ("spline", "none"):
        out = Same(upsample=upsample)(Signal.of(wave[None, None], 96000)).wave
        expected = torch.sin(2 * torch.pi * 1000 * torch.arange(4800, dtype=torch.float64) / RATE).float()
        assert out.shape[-1] == 4800
        assert (out[0, 0] - expected)[200:-200].abs().max() < 0.02


@pytest.mark.parametrize("window", [None, 1000])
@pytest.mark.parametrize("upsample", ["polyphase", "spline"])
def test_an_item_does_not_depend_on_its_batch(upsample, window):
    lengths = torch.tensor([700, 333, 701, 333])
    wave = 1 + noise_of(4, 800)  # what is beyond the lengths is not silent: it must not be heard
    model = Centred(window, overlap=100, upsample=upsample)
    seeds, cutoff = torch.tensor([5, 6, 7, 8]), torch.full((4,), 8000.0)
    together = model(Signal(wave, 16000, lengths), cutoff=cutoff, seeds=seeds)
    assert together.lengths.tolist() == [2100, 999, 2103, 999]
    for row, (length, out) in enumerate(zip(lengths.tolist(), together.lengths.tolist(), strict=True)):
        alone = model(Signal.of(wave[row : row + 1, :, :length], 16000), seeds=seeds[row : row + 1])
        torch.testing.assert_close(together.wave[row, :, :out], alone.wave[0])
        assert not together.wave[row, :, out:].any()


def test_what_is_not_given():
    model = Same()
    model(Signal.of(noise_of(2, 100), 16000))
    _, cutoff, seeds, reference = model.calls[0]
    assert cutoff.tolist() == [8000, 8000]
    assert seeds.tolist() == [0, 1]
    assert reference is None
    blind = Same(blind=True)
    blind(Signal.of(noise_of(2, 100), 16000))
    assert blind.calls[0][1] is None


class Oracle(Same):
    oracle = True

    def resolve(self, low, cutoff, seeds, reference):
        return reference


def test_an_oracle_needs_the_reference():
    with pytest.raises(UserError, match="Oracle"):
        Oracle()(Signal.of(noise_of(1, 100), 16000))


@pytest.mark.parametrize("window", [None, 1000])
def test_an_oracle_gets_the_reference_in_its_windows(window):
    lengths = torch.tensor([2401, 1500])
    high = Signal(silence_padding(noise_of(2, 2401), lengths), RATE, lengths)
    low = Signal(resample(high.wave, RATE, 16000), 16000, torch.tensor([801, 500]))
    out = Oracle(window, overlap=100)(low, reference=high)
    assert out.lengths.tolist() == [2401, 1500]
    torch.testing.assert_close(out.wave, high.wave, rtol=0, atol=1e-6)


class Outputs(lightning.Callback):
    def __init__(self):
        self.seen: list[Signal] = []

    def on_test_batch_end(self, trainer, module, outputs, batch, batch_idx, dataloader_idx=0):
        self.seen.append(outputs)


@pytest.mark.filterwarnings("ignore:.*does not have many workers")
@pytest.mark.parametrize("blind", [False, True])
def test_the_test_step_gives_estimates_as_long_as_their_references(blind):
    high = Signal.of(noise_of(2, 4801), RATE)
    low = Signal.of(resample(high.wave, RATE, 16000), 16000)
    pair = Pair(low, high, torch.tensor([5000.0, 6000.0]), ["a", "b"], torch.tensor([3, 2**60]))
    outputs, model = Outputs(), Same(blind=blind)
    trainer = lightning.Trainer(
        accelerator="cpu",
        logger=False,
        callbacks=[outputs],
        enable_progress_bar=False,
        enable_checkpointing=False,
        enable_model_summary=False,
    )
    trainer.test(model, DataLoader([pair], batch_size=None), verbose=False)
    estimate = outputs.seen[0]
    assert estimate.lengths.tolist() == [4801, 4801]
    assert estimate.wave.shape == high.wave.shape
    _, cutoff, seeds, _ = model.calls[0]
    assert seeds.tolist() == [3, 2**60]
    assert cutoff is None if blind else cutoff.tolist() == [5000, 6000]


class Tunable(Same):
    use: ClassVar = {"loud": 1.0, "overlap": 3}


def test_settings_of_use_are_set_and_set_back():
    model = Tunable()
    assert (model.loud, model.overlap) == (1.0, 0)  # the constructor's own, after
    assert build_method("mine", RATE, {"itself": model}, {"loud": 2.0, "variant": "code"}) is model
    assert (model.loud, model.overlap) == (2.0, 3)
    build_method("mine", RATE, {"itself": model}, {})
    assert (model.loud, model.overlap) == (1.0, 3)
    with pytest.raises(UserError, match=r"Tunable has no setting soft of its use \(it has: loud, overlap\)"):
        build_method("mine", RATE, {"itself": model}, {"soft": 1})
