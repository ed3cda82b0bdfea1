"""A method that is one training, and methods in files of one's own."""

from fractions import Fraction

import pytest
import torch
from audiosr_tiny import OPTIMIZER

import lightning_modules
from lightning_modules import build_method, find_method, find_stage, own_source, trust
from lightning_modules.single_stage import SingleStage
from lightning_modules.super_resolver import SuperResolver
from signals.errors import UserError
from signals.types import Pair, Signal, silence_padding

RATE = 48000


class Gain(SingleStage):
    """One parameter: the best gain."""

    upsample = "linear"

    def __init__(self, start: float = 0.0, **base):
        super().__init__(**base)
        self.gain = torch.nn.Parameter(torch.tensor(start))

    def resolve(self, low, cutoff, seeds, reference):
        return self.gain * low.wave

    def losses(self, pair):
        estimate = self.resolve(self.heard(pair), pair.cutoff, pair.seeds, None)
        return {"l2": (estimate - pair.high.wave).square().mean()}


def gain(start: float = 0.0) -> Gain:
    return Gain(weights={"l2": 1.0}, optimizer=OPTIMIZER, rate=RATE, start=start)


def pair_of(lengths: list[int]) -> Pair:
    """Full-band signals that hold their value for three samples, and every third of these."""
    lengths = torch.tensor(lengths)
    low = torch.randn(len(lengths), 1, int(lengths.max()) // 3, generator=torch.Generator().manual_seed(0))
    low = silence_padding(low, lengths // 3)
    high = Signal(2 * low.repeat_interleave(3, dim=-1), RATE, lengths)
    ids = [str(row) for row in range(len(lengths))]
    return Pair(Signal(low, RATE // 3, lengths // 3), high, torch.full((len(ids),), 8000.0), ids, lengths)


def test_it_is_a_stage_and_a_method():
    model = gain()
    assert model.rate == RATE
    assert model.network is model
    assert int(model.batches_seen) == 0
    assert build_method("anything", 1, {"itself": model}, {}) is model


def test_what_is_heard_is_at_the_rate():
    pair = pair_of([300])
    assert gain().heard(pair).wave.shape == (1, 1, 300)
    raising = gain()
    raising.upsample = "none"
    assert raising.heard(pair) is pair.low


def test_what_is_heard_is_as_long_as_the_reference():
    """Six samples of the rate for one of the low: the last of these reaches beyond."""
    pair = pair_of([300])
    low = Signal.of(torch.randn(1, 1, 50 + 1), Fraction(RATE, 6))
    heard = gain().heard(pair._replace(low=low))
    assert (heard.wave.shape[-1], heard.lengths.tolist()) == (300, [300])


def test_held_out_is_the_mean_squared_error_of_each_item():
    pair = pair_of([600, 300])
    silent, same = (gain(start).held_out(pair) for start in (0.0, 1.0))
    expected = [2 * 2 * pair.low.wave[0].square().mean(), 2 * 2 * pair.low.wave[1, :, :100].square().mean()]
    torch.testing.assert_close(silent["constant"], torch.stack(expected))
    torch.testing.assert_close(silent["model"], silent["constant"])
    assert (same["model"] < silent["model"]).all()


MINE = """
from lightning_modules.super_resolver import SuperResolver

class Twice(SuperResolver):
    def resolve(self, low, cutoff, seeds, reference):
        return {factor} * low.wave
"""


@pytest.fixture
def mine(workplace, monkeypatch):
    monkeypatch.setattr(lightning_modules, "_named", set())
    (workplace / "mine.py").write_text(MINE.format(factor=2))
    trust("mine.py:Twice")
    return workplace / "mine.py"


def test_a_method_in_a_file_of_ones_own(mine):
    found = find_method("mine.py:Twice")
    assert issubclass(found, SuperResolver)
    assert find_stage("mine.py:Twice") is found
    out = found(rate=RATE)(Signal.of(torch.ones(1, 1, 10), RATE))
    assert out.wave.tolist() == [[[2.0] * 10]]


def test_a_changed_file_is_another_method(mine):
    before, source = find_method("mine.py:Twice"), own_source("mine.py:Twice")
    mine.write_text(MINE.format(factor=3))
    assert own_source("mine.py:Twice") != source
    assert find_method("mine.py:Twice") is not before
    assert own_source("spline") is None


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("there.py:Net", None, "no file there.py"),
        ("mine.py:Net", None, "no class Net"),
        ("mine.py:Twice", "import nothing_like_it", "cannot be imported: ModuleNotFoundError"),
        ("mine.py:Twice", "class Twice(", "cannot be imported: SyntaxError"),
        ("mine.py:Twice", "raise SystemExit", "cannot be imported: SystemExit"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(mine, name, text, message):
    if text:
        mine.write_text(text)
    with pytest.raises(UserError, match=message):
        find_method(name)
