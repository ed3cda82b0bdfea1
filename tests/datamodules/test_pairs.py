"""Pairs through real loaders: the same for (seed, step), however they are batched, loaded or resumed."""

from itertools import chain
from pathlib import Path
from types import SimpleNamespace

import lightning
import numpy as np
import pytest
import torch
from torch.nn.functional import one_hot

from datamodules.degradations import degradation
from datamodules.pairs import Mixture, PairDataModule, Windows, at_peak, crop, cut, item_seed
from datamodules.store import Store
from signals.types import Pair, Signal

RATE = 16_000
WINDOW = 2048


def noise(samples: int, seed: int) -> np.ndarray:
    return (0.1 * np.random.default_rng(seed).standard_normal(samples)).astype(np.float32)


def store_of(name: str, *lengths: int) -> Store:
    ids = [f"{name}{i}" for i in range(len(lengths))]
    waves = [noise(length, seed) for seed, length in enumerate(lengths)]
    return Store(Path(), RATE, ids, ids, [8000.0] * len(ids), ids, waves)


SPEECH = store_of("speech", 9000, 1500, 4000)
MUSIC = store_of("music", 12_000)


def data(name: str = "random_lowpass", **options) -> PairDataModule:
    mixture = Mixture({"speech": (SPEECH, 3), "music": (MUSIC, 1)})
    chosen = {"random_lowpass": {"cutoff": (1000, 4000), "margin": 512}, "polyphase": {"cutoff": 4000}}
    chosen |= {"stft_hard": {"cutoff": 2000}, "none": {}}
    parts = {"train": mixture, "window": WINDOW, "steps": 5, "held_out": SPEECH, "test": SPEECH, "batch": 2}
    return PairDataModule(degradation(name, **chosen[name]), rate=RATE, **parts | options)


def pairs(module: PairDataModule, loader) -> list[Pair]:
    return [module.on_after_batch_transfer(batch, 0) for batch in loader]


def same(ours: Pair, theirs: Pair) -> None:
    assert ours.ids == theirs.ids
    assert ours.seeds.tolist() == theirs.seeds.tolist()
    torch.testing.assert_close(ours.high.wave, theirs.high.wave, rtol=0, atol=0)
    torch.testing.assert_close(ours.low.wave, theirs.low.wave, rtol=0, atol=0)


def windows(**options) -> Windows:
    mixture = Mixture({"speech": (SPEECH, 3), "music": (MUSIC, 1)})
    return Windows(mixture, **{"length": WINDOW, "margin": 64, "seed": 0} | options)


def test_a_window_follows_from_seed_and_number():
    forwards = [windows()[k] for k in range(20)]
    again = windows()
    backwards = [again[k] for k in reversed(range(20))][::-1]
    for (ours, *tail), (theirs, *their_tail) in zip(forwards, backwards, strict=True):
        np.testing.assert_array_equal(ours, theirs)
        assert tail == their_tail
    assert len({seed for *_, seed in forwards}) == 20
    assert [item[1:] for item in forwards] != [windows(seed=1)[k][1:] for k in range(20)]


def test_where_a_training_window_lies_does_not_change():
    """Or runs that are resumed would go on with other windows."""
    ours = windows()
    for k in range(20):
        rng = np.random.default_rng(item_seed(0, "window", k))
        store, row, start = ours.mixture.draw(rng, WINDOW)
        window, _, id_, seed = ours[k]
        assert (id_, seed) == (store.ids[row], item_seed(0, "train", k))
        np.testing.assert_array_equal(window, cut(store.waves[row], start, WINDOW, 64))


def test_windows_are_pieces_of_their_recording():
    recordings = dict(zip(SPEECH.ids + MUSIC.ids, SPEECH.waves + MUSIC.waves, strict=True))
    for k in range(50):
        window, length, id_, _ = windows(margin=0)[k]
        wave = recordings[id_]
        assert (len(window), length) == (WINDOW, min(WINDOW, len(wave)))
        starts = np.flatnonzero(wave[: len(wave) - length + 1] == window[0])
        assert any(np.array_equal(wave[start : start + length], window[:length]) for start in starts)
        assert not window[length:].any()


def test_windows_come_by_weight_and_length():
    ids = [windows()[k][2] for k in range(4000)]
    total = SPEECH.lengths.sum()
    expected = {id_: 3 / 4 * n / total for id_, n in zip(SPEECH.ids, SPEECH.lengths, strict=True)}
    expected["music0"] = 1 / 4
    for id_, share in expected.items():
        assert ids.count(id_) / 4000 == pytest.approx(share, abs=0.03)


def test_the_degradation_tells_nothing_about_the_part():
    """One random stream for both would give speech the low orders and music the high ones."""
    degrade = degradation("random_lowpass")
    drawn = [windows()[k][2:] for k in range(2000)]
    for part in ("speech", "music"):
        orders = [degrade.draw(seed)[1] for id_, seed in drawn if id_.startswith(part)]
        assert np.mean(orders) == pytest.approx(6, abs=0.5)


def test_a_pool_recurs():
    few = windows(pool=3)
    assert [few[k][1:] for k in range(3)] * 2 == [few[k][1:] for k in range(6)]
    np.testing.assert_array_equal(few[4][0], few[1][0])
    np.testing.assert_array_equal(few[1][0], windows()[1][0])


@pytest.mark.parametrize("length", [1, 100, 150])
@pytest.mark.parametrize("start", [0, 90])
@pytest.mark.parametrize("margin", [0, 7, 200])
def test_cut_is_silent_outside(start, length, margin):
    wave = np.arange(1, 101, dtype=np.float32)
    expected = np.concatenate([np.zeros(400), wave, np.zeros(400)])
    expected = expected[400 + start - margin : 400 + start + length + margin]
    np.testing.assert_array_equal(cut(wave, start, length, margin), expected)


@pytest.mark.parametrize("loaders", [0, 2])
@pytest.mark.parametrize(("seen", "end"), [(0, 5), (3, 5), (5, 10), (9, 10), (10, 15)])
def test_an_epoch_goes_on_from_the_batches_seen_to_its_end(loaders, seen, end):
    stage = SimpleNamespace(batches_seen=torch.tensor(0))
    module = data(loaders=loaders)
    module.trainer = SimpleNamespace(lightning_module=stage, global_rank=0, world_size=1)
    loader = module.train_dataloader()
    stage.batches_seen += seen
    seeds = [seed for pair in pairs(module, loader) for seed in pair.seeds.tolist()]
    assert len(loader) == 5  # of a whole epoch, which Lightning counts from its start
    assert seeds == [item_seed(0, "train", k) for k in range(2 * seen, 2 * end)]


@pytest.mark.parametrize("ranks", [2, 4])
def test_several_processes_share_the_batches_of_one(ranks):
    """What they see together of a step, of held-out and of test recordings is what one alone would."""

    def seen(kind: str, rank: int, ranks: int) -> list[list[int]]:
        module = data(batch=4, share=(rank, ranks))
        stage = SimpleNamespace(batches_seen=torch.tensor(3))
        module.trainer = SimpleNamespace(lightning_module=stage, global_rank=rank, world_size=ranks)
        return [pair.seeds.tolist() for pair in pairs(module, getattr(module, kind)())]

    def joined(lists) -> list[int]:
        return sorted(chain.from_iterable(lists))

    parts = [seen("train_dataloader", rank, ranks) for rank in range(ranks)]
    steps = [joined([step]) for step in seen("train_dataloader", 0, 1)]
    assert [joined(step) for step in zip(*parts, strict=True)] == steps
    assert {len(step) for part in parts for step in part} == {4 // ranks}
    for kind in ("val_dataloader", "test_dataloader"):
        whole = joined(seen(kind, 0, 1))
        shares = [joined(seen(kind, rank, ranks)) for rank in range(ranks)]
        if kind == "val_dataloader" and len(whole) < ranks:  # nobody is left without one
            assert shares == [whole] * ranks
        else:
            assert joined(shares) == whole


class Watcher(lightning.LightningModule):
    """Learns nothing and notes what it is given."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.register_buffer("batches_seen", torch.tensor(0))
        self.seen = []

    def training_step(self, pair: Pair, index: int) -> torch.Tensor:
        self.seen.append(pair)
        self.batches_seen += 1
        return (self.weight * pair.low.wave).sum()

    def validation_step(self, pair: Pair, index: int) -> None:
        pass

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.0)


def fit(folder: Path, max_steps: int, resume: bool = False, **options) -> list[Pair]:
    watcher, checkpoint = Watcher(), folder / "last.ckpt"
    trainer = lightning.Trainer(
        max_steps=max_steps,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    path = checkpoint if resume else None
    trainer.fit(watcher, datamodule=data(**options), ckpt_path=path, weights_only=False)
    trainer.save_checkpoint(checkpoint)
    return watcher.seen


@pytest.mark.parametrize(("stop", "loaders"), [(3, 0), (5, 0), (7, 2)])
def test_a_resumed_run_sees_what_it_would_have_seen(tmp_path, stop, loaders):
    through = fit(tmp_path, 12)
    resumed = fit(tmp_path, stop, loaders=loaders) + fit(tmp_path, 12, resume=True, loaders=loaders)
    assert len(resumed) == len(through) == 12
    for ours, theirs in zip(resumed, through, strict=True):
        same(ours, theirs)


@pytest.mark.parametrize("name", ["random_lowpass", "stft_hard", "polyphase"])
@pytest.mark.parametrize("which", ["train_dataloader", "val_dataloader", "test_dataloader"])
def test_an_item_does_not_depend_on_its_batch(name, which):
    alone, batched = data(name, batch=1, steps=12), data(name, batch=3, steps=4)
    singles = {}
    for pair in pairs(alone, getattr(alone, which)()):
        singles[pair.ids[0], pair.seeds.item()] = pair
    seen = 0
    for pair in pairs(batched, getattr(batched, which)()):
        for i, key in enumerate(zip(pair.ids, pair.seeds.tolist(), strict=True)):
            single = singles[key]
            assert pair.cutoff[i] == single.cutoff[0]
            for ours, theirs in ((pair.low, single.low), (pair.high, single.high)):
                size = int(theirs.lengths[0])
                assert (ours.rate, ours.lengths[i]) == (theirs.rate, size)
                torch.testing.assert_close(
                    ours.wave[i, :, :size], theirs.wave[0, :, :size], rtol=0, atol=1e-6
                )
                assert not ours.wave[i, :, size:].any()
                assert not theirs.wave[0, :, size:].any()
            seen += 1
    assert seen == len(singles)


def test_test_pairs_are_whole_recordings_longest_first():
    module = data("polyphase")
    first, second = pairs(module, module.test_dataloader())
    assert (first.ids, second.ids) == (["speech0", "speech2"], ["speech1"])
    assert (first.low.rate, first.high.rate) == (8000, RATE)
    assert first.high.lengths.tolist() == [9000, 4000]
    assert first.low.lengths.tolist() == [4500, 2000]
    assert first.cutoff.tolist() == [4000, 4000]
    assert (first.high.wave.shape, first.low.wave.shape) == ((2, 1, 9000), (2, 1, 4500))
    for i, row in enumerate((0, 2)):
        wave = SPEECH.waves[row]
        np.testing.assert_array_equal(first.high.wave[i, 0, : len(wave)], wave)
        assert not first.high.wave[i, 0, len(wave) :].any()


def test_test_pairs_may_be_the_middles_of_recordings():
    """Degraded with what lies around them."""
    whole, middle = data("stft_hard"), data("stft_hard", crop=1000)
    (first, _), (cropped, short) = (pairs(module, module.test_dataloader()) for module in (whole, middle))
    assert cropped.high.lengths.tolist() == [1000, 1000] and short.high.lengths.tolist() == [1000]
    for row, length in enumerate((9000, 4000)):
        inside = slice((length - 1000) // 2, (length - 1000) // 2 + 1000)
        torch.testing.assert_close(cropped.high.wave[row], first.high.wave[row, :, inside], rtol=0, atol=0)
        torch.testing.assert_close(cropped.low.wave[row], first.low.wave[row, :, inside], rtol=0, atol=1e-4)


def test_peaks_are_those_of_each_signal_alone():
    plain, level = (data("stft_hard", peaks=peaks) for peaks in (False, True))
    for ours, theirs in zip(
        pairs(plain, plain.test_dataloader()), pairs(level, level.test_dataloader()), strict=True
    ):
        for before, after in ((ours.low.wave, theirs.low.wave), (ours.high.wave, theirs.high.wave)):
            peak = before.abs().amax(-1, keepdim=True)
            torch.testing.assert_close(after, before / peak)
    silence = Signal.of(torch.zeros(1, 1, 8), RATE)
    assert not at_peak(silence).wave.any()


def test_held_out_pairs_are_the_middles_of_recordings():
    module = data("none", batch=3)
    (pair,) = pairs(module, module.val_dataloader())
    assert pair.high.lengths.tolist() == [WINDOW, 1500, WINDOW]
    start = (9000 - WINDOW) // 2
    np.testing.assert_array_equal(pair.high.wave[0, 0], SPEECH.waves[0][start : start + WINDOW])
    np.testing.assert_array_equal(pair.high.wave[1, 0, :1500], SPEECH.waves[1])


def test_held_out_windows_follow_from_seed_and_number():
    few, many = data("none", held_out_windows=5), data("none", held_out_windows=400, batch=3)
    alike = {"train": None, "steps": 1, "pool": 2}  # what is trained on has no say
    first, again = (
        pairs(module, module.val_dataloader()) for module in (few, data("none", held_out_windows=5, **alike))
    )
    assert [len(pair.ids) for pair in first] == [2, 2, 1]
    for ours, theirs in zip(first, again, strict=True):
        same(ours, theirs)
    drawn = pairs(many, many.val_dataloader())
    assert [seed for pair in drawn for seed in pair.seeds.tolist()] == [
        item_seed(0, "validation", k) for k in range(400)
    ]
    np.testing.assert_array_equal(drawn[0].high.wave[:2], first[0].high.wave)
    ids = [id_ for pair in drawn for id_ in pair.ids]
    for id_, length in zip(SPEECH.ids, SPEECH.lengths, strict=True):
        assert ids.count(id_) / 400 == pytest.approx(length / SPEECH.lengths.sum(), abs=0.08)


def test_held_out_windows_lie_elsewhere_than_those_of_training_and_of_another_seed():
    speech = Mixture({"speech": (SPEECH, 1)})
    options = {"mixture": speech, "length": WINDOW, "margin": 0}
    train, held_out, other = (
        [Windows(**options, seed=seed, split=split)[k][0] for k in range(20)]
        for seed, split in [(0, "train"), (0, "validation"), (1, "validation")]
    )
    for theirs in (train, other):
        assert sum(np.array_equal(a, b) for a, b in zip(held_out, theirs, strict=True)) < 10


def test_splits_and_runs_have_their_own_seeds():
    numbers = [item_seed(*key) for key in [(0, "train", 1), (0, "test", 1), (1, "train", 1), (0, "train", 2)]]
    assert len(set(numbers)) == 4
    assert all(0 <= number < 2**63 for number in numbers)
    assert item_seed(0, "train", 1) == numbers[0]


def test_a_window_is_degraded_as_its_recording_would_be():
    """The margin shows the filter what surrounds a window: there is no seam at its ends."""
    kinds = ("butterworth", "chebyshev", "elliptic")
    degrade = degradation("random_lowpass", kinds=kinds, cutoff=(1000, 4000))
    module = PairDataModule(degrade, rate=RATE, batch=3, window=WINDOW, held_out=SPEECH)
    (pair,) = pairs(module, module.val_dataloader())
    for i, wave in enumerate(SPEECH.waves):
        whole, _ = degrade(Signal.of(torch.tensor(wave)[None, None], RATE), pair.seeds[i : i + 1])
        start, length = max(0, (len(wave) - WINDOW) // 2), int(pair.low.lengths[i])
        expected = whole.wave[0, :, start : start + length]
        torch.testing.assert_close(pair.low.wave[i, :, :length], expected, rtol=0, atol=1e-5)


def test_a_window_has_the_margin_of_its_degradation_at_its_rate():
    module = data("polyphase")
    (batch, *_) = module.val_dataloader()
    assert batch.margin == module.degradation.margin(RATE) > 0
    assert batch.high.wave.shape[-1] == WINDOW + 2 * batch.margin


def test_crop_stays_aligned_and_silences_the_padding():
    low = Signal(1 + one_hot(torch.tensor([[[60]]]), 200)[0].float(), 8000, torch.tensor([190]))
    found = crop(low, 40, RATE, torch.tensor([101]))
    assert found.wave.shape == (1, 1, 160)
    assert found.wave.argmax() == 60 - 20
    assert found.lengths.tolist() == [51]
    assert not found.wave[..., 51:].any()
    assert found.wave[..., :51].all()


def test_a_margin_off_the_grid_is_an_error():
    with pytest.raises(ValueError, match="off the grid of 8000 Hz"):
        crop(Signal.of(torch.zeros(1, 1, 100), 8000), 41, RATE, torch.tensor([100]))


def test_mixtures_are_told_apart_by_recordings_and_weights():
    def fingerprint(*weights: float) -> list:
        return Mixture(dict(zip("ab", zip((SPEECH, MUSIC), weights, strict=True), strict=True))).fingerprint

    assert fingerprint(1, 3) == fingerprint(2, 6)
    assert fingerprint(1, 3) != fingerprint(3, 1)
