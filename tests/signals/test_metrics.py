"""Metrics against loops over files with librosa and SciPy, closed forms, goldens, and published scores."""

import csv
from collections.abc import Callable
from functools import cache
from pathlib import Path

import librosa
import numpy as np
import pytest
import scipy.signal
import torch
from torch.nn.functional import pad
from torchmetrics.functional.audio import signal_noise_ratio

from datamodules.demo_corpus import Voice, utterance
from signals.filters import boxcar, stft_hard
from signals.metrics import METRICS, l1, lsd_tfnet, mr_stft, mse, seam, snr, snr_aligned, snr_patch
from signals.resampling import resample
from signals.types import Signal

TESTS = Path(__file__).parents[1]
GOLDEN = TESTS / "goldens" / "released.npz"
PUBLISHED = TESTS / "published" / "ssr_eval_unprocessed_per_file.csv"
VCTK = TESTS.parents[1] / "shared" / "corpora" / "VCTK-Corpus-0.92" / "wav48_silence_trimmed"

LSDS = [name for name in METRICS if name.startswith("lsd") and name != "lsd_ssr_eval_44100"]
PERCEPTUAL = {"pesq_wb", "pesq_nb", "stoi", "visqol", "nisqa"}
OURS = {name: metric for name, metric in METRICS.items() if name not in PERCEPTUAL}


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def batch(lengths: list[int], rate: int) -> tuple[Signal, Signal]:
    """Estimates and references of several lengths; what pads the estimates is not even silent."""
    reference = noise(len(lengths), 1, max(lengths), seed=1)
    for wave, length in zip(reference, lengths, strict=True):
        wave[:, length:] = 0
    estimate = 0.5 * reference + 0.1 * noise(*reference.shape, seed=2)
    return Signal(estimate, rate, torch.tensor(lengths)), Signal(reference, rate, torch.tensor(lengths))


def item(signal: Signal, i: int) -> Signal:
    return Signal.of(signal.wave[i : i + 1, :, : signal.lengths[i]], signal.rate)


# ---------------------------------------------------------------- each definition again, for one file


def rms(values: np.ndarray, axis: int) -> np.ndarray:
    return np.sqrt((values**2).mean(axis))


def bins_first(difference: np.ndarray) -> float:
    return float(rms(difference, 0).mean())


def time_first(difference: np.ndarray) -> float:
    return float(rms(difference, 1).mean())


def by_librosa(n_fft: int, hop: int, pad_mode: str) -> Callable:
    return lambda wave, _: np.abs(librosa.stft(wave, n_fft=n_fft, hop_length=hop, pad_mode=pad_mode)) ** 2


def by_scipy(wave: np.ndarray, rate: int) -> np.ndarray:
    power = np.abs(scipy.signal.stft(wave, rate)[2]) ** 2
    return power[:, power.any(0)]


def by_tenth(wave: np.ndarray, rate: int) -> np.ndarray:
    return np.abs(librosa.stft(wave, n_fft=int(2048 * rate / 44100), hop_length=int(rate / 100))) ** 2


def by_block(wave: np.ndarray, _: int) -> np.ndarray:
    blocks = wave[: len(wave) // 8192 * 8192].reshape(-1, 8192)
    return np.abs(np.fft.rfft(blocks)).T ** 2


def clamped(floor: float) -> Callable:
    return lambda E, R: np.log10(np.maximum(R, floor)) - np.log10(np.maximum(E, floor))


ORACLES = {  # powers [F, N], what is squared, the order of the averages
    "lsd_ssr_eval": (by_tenth, lambda E, R: np.log10(R / (np.sqrt(E) + 1e-12) ** 2 + 1e-12), bins_first),
    "lsd_nuwave": (by_librosa(2048, 512, "reflect"), clamped(1e-8), bins_first),
    "lsd_universr": (by_librosa(1024, 256, "reflect"), clamped(1e-6), bins_first),
    "lsd_kuleshov": (
        by_librosa(2048, 512, "reflect"),
        lambda E, R: np.log(R + 1e-8) - np.log(E + 1e-8),
        time_first,
    ),
    "lsd_tfnet": (by_block, clamped(1e-12), bins_first),
    "lsd_king": (by_scipy, lambda E, R: np.log10(R / E), time_first),
    "lsd_eq2": (by_scipy, clamped(1e-14), bins_first),
}


@pytest.mark.parametrize("rate", [16000, 44100, 48000])
@pytest.mark.parametrize("name", LSDS)
def test_an_lsd_of_a_batch_equals_the_loop_over_files(name, rate):
    hop = rate // 100
    estimate, reference = batch([20 * hop + 8192, 20 * hop + 8193, 37 * hop + 8191, 72 * 128 + 1], rate)
    cutoff = torch.tensor([0.1, 0.2, 0.25, 0.4]) * rate / 2
    scores = METRICS[name](estimate, reference, cutoff)
    power, log_ratio, average = ORACLES[name]
    for i, fc in enumerate(cutoff.tolist()):
        waves = (item(signal, i).wave[0, 0].double().numpy() for signal in (estimate, reference))
        difference = log_ratio(*(power(wave, rate) for wave in waves))
        edge = int(len(difference) * fc / (rate / 2))
        assert average(difference) > 0.1
        assert scores[""][i].item() == pytest.approx(average(difference), abs=1e-4)
        assert scores["-LF"][i].item() == pytest.approx(average(difference[:edge]), abs=1e-4)
        assert scores["-HF"][i].item() == pytest.approx(average(difference[edge:]), abs=1e-4)


def test_at_44100_nothing_above_22050_hertz_counts():
    """What lacks only that is empty there at 48 kHz, and whole at 44.1."""
    reference = Signal.of(torch.randn(1, 1, 96000, generator=torch.Generator().manual_seed(0)), 48000)
    narrow = reference._replace(wave=boxcar(reference.wave, torch.tensor([22100.0]), 48000))
    at_48k, at_44k = (
        METRICS[name](narrow, reference)[""].item() for name in ("lsd_ssr_eval", "lsd_ssr_eval_44100")
    )
    assert at_48k > 2
    assert at_44k < 0.3  # the resampler's last hertz


def test_at_44100_it_is_the_metric_there():
    estimate, reference = batch([30000, 44100], 44100)
    one, other = (METRICS[name](estimate, reference) for name in ("lsd_ssr_eval", "lsd_ssr_eval_44100"))
    assert all(torch.equal(one[band], other[band]) for band in ("", "-LF", "-HF") if band in one)


@pytest.mark.parametrize("rate", [16000, 44100, 48000])
def test_metrics_equal_what_released_code_gave(rate):
    goldens = np.load(GOLDEN)
    estimate, reference = (
        Signal.of(torch.from_numpy(goldens[f"signals.{rate}.{name}"])[None, None], rate)
        for name in ("est", "ref")
    )
    cutoff = torch.tensor([4000.0])
    ours = {
        "ssr_eval.lsd.pad_constant": METRICS["lsd_ssr_eval"](estimate, reference)[""],
        "nuwave.lsd": METRICS["lsd_nuwave"](estimate, reference)[""],
        "nuwave2.lsd_lf": METRICS["lsd_nuwave"](estimate, reference, cutoff)["-LF"],
        "nuwave2.lsd_hf": METRICS["lsd_nuwave"](estimate, reference, cutoff)["-HF"],
        "kuleshov.lsd.pad_reflect": METRICS["lsd_kuleshov"](estimate, reference)[""],
        "tfnet.lsd_numpy": lsd_tfnet(estimate, reference, block=None)[""],
        "king.lsd_code": METRICS["lsd_king"](estimate, reference)[""],
        "king.lsd_eq2_stft256": METRICS["lsd_eq2"](estimate, reference)[""],
        "nuwave2.snr": snr(estimate, reference)[""],
        "king.snr_code": snr(estimate, reference)[""],
        "king.snr_args_swapped": snr(reference, estimate)[""],
        "kuleshov.snr": snr_patch(estimate, reference, block=None)[""],
        "tfnet.snr_numpy": snr_patch(estimate, reference, block=None)[""],
    }
    golden = {name: float(goldens[f"metrics.{rate}.{name}"]) for name in ours}
    assert {name: score.item() for name, score in ours.items()} == pytest.approx(golden, abs=1e-4)


def test_distances_equal_what_cukaj_and_corsis_code_gave():
    """Their losses are of a batch: of L1 and MSE that is the mean of the items, of the STFT it is not."""
    goldens = np.load(GOLDEN)
    estimate, reference = (
        Signal.of(torch.from_numpy(goldens[f"cukaj.input.{name}"])[:, None], 44100) for name in ("est", "ref")
    )
    training = mr_stft(estimate, reference, resolutions=[(n, n // 4) for n in (512, 1024, 2048, 4096)])[""]
    items = [float(goldens[f"cukaj.train_stft_loss_item{i}"]) for i in (0, 1)]
    assert training.tolist() == pytest.approx(items, abs=1e-5)
    assert l1(estimate, reference)[""].mean().item() == pytest.approx(float(goldens["cukaj.test_l1_loss"]))
    assert mse(estimate, reference)[""].mean().item() == pytest.approx(float(goldens["cukaj.test_mse_loss"]))
    tested = mr_stft(estimate, reference)[""].mean().item()
    assert tested == pytest.approx(float(goldens["cukaj.test_stft_loss"]), abs=1e-2)


# ---------------------------------------------------------------- closed forms


@pytest.mark.parametrize("name", LSDS)
def test_an_lsd_of_a_scaled_signal_is_the_scale(name):
    """The logarithm of the ratio of powers is the same in every bin: 2 |log c|, and Kuleshov's is natural."""
    reference = Signal.of(noise(2, 1, 24576), 48000)
    estimate = Signal.of(0.1 * reference.wave, 48000)
    scores = METRICS[name](estimate, reference, torch.tensor([4000, 8000]))
    assert set(scores) == {"", "-LF", "-HF"}
    expected = 2 * np.log(10) if name == "lsd_kuleshov" else 2
    for score in scores.values():
        torch.testing.assert_close(score, torch.full((2,), expected, dtype=score.dtype), atol=1e-3, rtol=0)


@pytest.mark.parametrize(
    "name", [*LSDS, "l1", "mse", "mr_stft", "seam", "l1_aligned", "mse_aligned", "clicks"]
)
def test_a_distance_to_itself_is_zero(name):
    signal = Signal.of(noise(2, 1, 20000), 48000)
    assert METRICS[name](signal, signal, torch.tensor([4000.0, 8000.0]))[""].tolist() == pytest.approx(
        [0, 0], abs=1e-6
    )


def test_the_order_of_the_averages_matters():
    """Loud in half of the frames only: the RMS over time sees it in every bin, the RMS over bins in half."""
    reference = Signal.of(noise(1, 1, 2**17), 48000)
    gain = torch.ones(2**17)
    gain[2**16 :] = 0.1
    estimate = Signal.of(reference.wave * gain, 48000)
    assert METRICS["lsd_king"](estimate, reference)[""].item() == pytest.approx(2 * 0.5**0.5, abs=0.01)
    assert METRICS["lsd_eq2"](estimate, reference)[""].item() == pytest.approx(2 * 0.5, abs=0.01)


def test_kuleshovs_lsd_is_capped():
    reference = Signal.of(noise(1, 1, 24000), 48000)
    silence = Signal.of(torch.zeros(1, 1, 24000), 48000)
    assert METRICS["lsd_kuleshov"](silence, reference)[""].item() == 10
    assert METRICS["lsd_nuwave"](silence, reference)[""].item() > 10


@pytest.mark.parametrize(("name", "floor"), [("lsd_ssr_eval", 12), ("lsd_nuwave", 0), ("lsd_universr", 0)])
def test_a_silent_reference_scores_the_floor(name, floor):
    """ssr_eval's is the 1e-12 below the logarithm, whatever the estimate; clamped powers are both theirs."""
    silence = Signal.of(torch.zeros(1, 1, 24000), 48000)
    sound = Signal.of(noise(1, 1, 24000) if floor else torch.full((1, 1, 24000), 1e-9), 48000)
    assert METRICS[name](sound, silence)[""].item() == pytest.approx(floor)


def test_the_lsd_of_a_silent_estimate_is_its_floor():
    """(E + 1e-12)^2 survives in single precision: log10(1 / 1e-24) of a click, whose spectrum is 1."""
    click = torch.zeros(1, 1, 480)
    click[..., 0] = 1
    silence = Signal.of(torch.zeros_like(click), 48000)
    assert METRICS["lsd_ssr_eval"](silence, Signal.of(click, 48000))[""].item() == pytest.approx(24)


@pytest.mark.parametrize("name", LSDS)
def test_an_lsd_has_no_high_band_above_half_the_rate(name):
    signal = Signal.of(noise(1, 1, 24000), 48000)
    scores = METRICS[name](signal, signal, torch.tensor([24000.0]))
    assert scores["-HF"].isnan().all()
    assert scores[""].item() == scores["-LF"].item() == pytest.approx(0, abs=1e-6)


def test_kings_lsd_has_no_floor():
    reference = Signal.of(noise(1, 1, 4800), 48000)
    silence = Signal.of(torch.zeros(1, 1, 4800), 48000)
    assert METRICS["lsd_king"](silence, reference)[""].isinf().all()
    assert METRICS["lsd_king"](silence, silence)[""].isnan().all()


def test_an_empty_band_scores_as_by_librosa():
    """Single precision would not do: its rounding is what an empty band would measure."""
    reference = noise(1, 1, 48000)
    low = torch.fft.rfft(reference.double())
    low[..., 8000:] = 0
    estimate = torch.fft.irfft(low).float()
    powers = [by_tenth(wave[0, 0].double().numpy(), 48000) for wave in (estimate, reference)]
    expected = bins_first(np.log10(powers[1] / (np.sqrt(powers[0]) + 1e-12) ** 2 + 1e-12))
    score = METRICS["lsd_ssr_eval"](Signal.of(estimate, 48000), Signal.of(reference, 48000))[""]
    assert expected > 8
    assert score.item() == pytest.approx(expected, abs=1e-4)


def test_a_shift_costs_snr_and_no_lsd():
    reference = torch.from_numpy(scipy.signal.lfilter([1], [1, -0.95], noise(1, 1, 48000).numpy())).float()
    delay = 3
    delayed = pad(reference, (delay, -delay))
    estimate, reference = Signal.of(delayed, 48000), Signal.of(reference, 48000)
    assert snr(estimate, reference)[""].item() < 10
    assert snr_aligned(estimate, reference)[""].item() > 100
    assert snr_aligned(reference, estimate)[""].item() > 100
    assert METRICS["lsd_nuwave"](estimate, reference)[""].item() < 0.2


def test_snr_aligned_reaches_so_far_and_no_further():
    reference = Signal.of(noise(1, 1, 4800), 48000)
    estimate = Signal.of(pad(reference.wave, (64, -64)), 48000)
    assert snr_aligned(estimate, reference)[""].item() > 100
    assert snr_aligned(estimate, reference, reach=63)[""].item() < 3


def test_ratios_are_their_definitions():
    """Over an orthogonal error: SNR counts the lost half of the reference, SI-SDR does not."""
    t = torch.arange(4800) / 48000
    tone, error = torch.sin(2 * torch.pi * 100 * t), torch.cos(2 * torch.pi * 100 * t)
    reference = Signal.of(tone[None, None], 48000)
    estimate = Signal.of((0.5 * tone + 0.1 * error)[None, None], 48000)
    assert snr(estimate, reference)[""].item() == pytest.approx(10 * np.log10(1 / 0.26), abs=1e-4)
    si_sdr = METRICS["si_sdr"](estimate, reference)[""].item()
    assert si_sdr == pytest.approx(10 * np.log10(0.25 / 0.01), abs=1e-4)


def test_snr_equals_torchmetrics():
    estimate, reference = (Signal.of(noise(3, 1, 5000, seed=seed), 48000) for seed in (1, 2))
    expected = signal_noise_ratio(estimate.wave.double(), reference.wave.double())[:, 0]
    torch.testing.assert_close(snr(estimate, reference)[""], expected, atol=1e-5, rtol=0)


def test_snr_by_blocks_is_the_mean_of_the_blocks_that_sound():
    """Errors of 0.1, 0.01 and 0 of the first three blocks; the fourth is silent, the fifth not whole."""
    wave = noise(1, 1, 4 * 8192 + 100)
    wave[..., 3 * 8192 : 4 * 8192] = 0
    gain = torch.ones(wave.shape[-1])
    gain[:8192], gain[8192 : 2 * 8192], gain[4 * 8192 :] = 1.1, 1.01, 0
    score = snr_patch(Signal.of(wave * gain, 16000), Signal.of(wave, 16000))[""].item()
    powers = wave[0, 0, : 3 * 8192].double().unflatten(0, (3, 8192)).square().mean(1)
    errors = powers * torch.tensor([0.1, 0.01, 0]) ** 2 + 1e-6
    assert score == pytest.approx((10 * (powers / errors).log10()).mean().item(), abs=1e-3)


@pytest.mark.parametrize("metric", [snr_patch, lsd_tfnet])
def test_what_fills_no_block_has_no_score(metric):
    estimate, reference = batch([8191, 8192], 16000)
    assert metric(estimate, reference)[""].isnan().tolist() == [True, False]
    assert metric(item(estimate, 0), item(reference, 0))[""].isnan().all()
    assert metric(estimate, reference, block=None)[""].isfinite().all()


@pytest.mark.parametrize("gain", [0.1, 0.5, 2.0])
def test_a_seam_is_the_step_at_the_cut_off(gain):
    """White noise, scaled above the cut-off: |20 log10 g| dB, whatever the level of all."""
    reference = noise(2, 1, 48000)
    spectrum = torch.fft.rfft(reference)
    cutoff = torch.tensor([6000.0, 12000.0])
    spectrum[torch.arange(24001) >= cutoff[:, None, None]] *= gain
    estimate = 0.3 * torch.fft.irfft(spectrum)
    steps = seam(Signal.of(estimate, 48000), Signal.of(reference, 48000), cutoff)[""]
    assert steps.tolist() == pytest.approx([abs(20 * np.log10(gain))] * 2, abs=0.2)


def test_a_seam_needs_a_cut_off_below_half_the_rate():
    sound = Signal.of(noise(2, 1, 9600), 48000)
    silence = Signal.of(torch.zeros(2, 1, 9600), 48000)
    cutoff = torch.tensor([6000.0, 24000.0])
    assert seam(sound, sound)[""].isnan().all()
    assert seam(sound, sound, cutoff)[""].isnan().tolist() == [False, True]
    assert seam(silence, sound, cutoff)[""].isnan().all()


@pytest.mark.parametrize("name", ["snr", "snr_patch", "snr_aligned", "si_sdr", "mr_stft"])
def test_a_silent_reference_has_no_ratio(name):
    sound, silence = noise(1, 1, 9000), torch.zeros(1, 1, 9000)
    estimate = Signal.of(torch.cat([sound, silence, sound]), 48000)
    reference = Signal.of(torch.cat([silence, sound, 2 * sound]), 48000)
    missing = METRICS[name](estimate, reference)[""].isnan().tolist()
    assert missing == [True, name in {"si_sdr", "snr_aligned"}, False]


def test_tones_are_those_of_the_period():
    """-60 dB at 3 kHz is found among the multiples of 375 Hz, -20 dB between two of them is not."""
    t = torch.arange(24_000) / 12_000
    tone, between = 1e-3 * (2 * torch.pi * 3000 * t).sin(), 0.1 * (2 * torch.pi * 3187.5 * t).sin()
    highest = 1e-2 * (torch.pi * torch.arange(24_000)).cos()
    waves = torch.stack([tone, tone + between, tone + highest, 0 * t])[:, None]
    waves[:, :, :300] = 1  # what happens at an end does not count
    estimate = Signal.of(waves, 12_000)
    levels = METRICS["tones"](estimate, Signal.of(torch.zeros_like(waves), 12_000))[""]
    assert levels.tolist() == pytest.approx([-60, -60, -40, -240], abs=0.01)


@pytest.mark.parametrize("block", [8192, 57344, 65536])
@pytest.mark.parametrize("gain", [1.0, 10.0])
def test_a_block_seam_is_the_jump_at_the_borders(block, gain):
    """Jumps of +-1 everywhere and of +-gain at the borders: 20 log10 gain dB, whatever the level."""
    jumps = noise(2, 1, 3 * block + 5).sign()
    jumps[:, :, block::block] *= gain
    reference = Signal.of(noise(2, 1, 3 * block + 5, seed=1).double(), 48000)
    estimate = reference._replace(wave=reference.wave + 1e-3 * jumps.double().cumsum(-1))
    seams = METRICS[f"block_seam_{block}"](estimate, reference)[""]
    assert seams.tolist() == pytest.approx([20 * np.log10(gain)] * 2, abs=1e-2)
    other = METRICS["block_seam_8192"](estimate, reference)[""]  # of 3, 21 or 24 borders, 3 are the block's
    expected = 8192 / block * 20 * np.log10(gain)
    assert other.tolist() == pytest.approx([expected] * 2, abs=1e-2)


def test_a_block_seam_of_no_blocks_is_near_nothing():
    """On average, though a recording of 3 s has but five borders."""
    reference = Signal.of(noise(200, 1, 48_000), 16_000)
    error = noise(200, 1, 48_000, seed=1) * noise(200, 1, 48_000, seed=2)  # heavy-tailed
    seams = METRICS["block_seam_8192"](reference._replace(wave=reference.wave + error), reference)[""]
    assert abs(seams.mean()) < 3 * seams.std() / 200**0.5 < 1.5


def test_a_block_seam_needs_a_border_and_an_error():
    reference = Signal(noise(3, 1, 8200), 48000, torch.tensor([8200, 8192, 8193]))
    estimate = reference._replace(wave=reference.wave * torch.tensor([1.0, 0.5, 0.5])[:, None, None])
    assert METRICS["block_seam_8192"](estimate, reference)[""].isnan().tolist() == [True, True, False]
    offset = reference._replace(wave=reference.wave.double() + 0.5)  # an error that never jumps
    seams = METRICS["block_seam_8192"](offset, reference._replace(wave=reference.wave.double()))[""]
    assert seams[2].item() == pytest.approx(0, abs=1e-6)


@cache
def clean(rate: int) -> dict[str, torch.Tensor]:
    """Signals [T] of 1 s without clicks; a chirp up to half the rate, bursts that begin within a sample."""
    t = np.arange(rate) / rate
    voice = utterance(np.random.default_rng(0), 1.0, Voice.of("p225", 0))
    sounds = {
        "sine": np.sin(2 * np.pi * 440 * t),
        "chirp": scipy.signal.chirp(t, 20, 1, rate / 2),
        "noise": noise(rate).numpy(),
        "bursts": np.exp(-30 * (t % 0.25)) * noise(rate, seed=3).numpy(),
        "tones": sum(np.sin(2 * np.pi * f * t) * np.exp(-3 * (t % 0.5)) for f in (220, 277, 330)),
        "speech": scipy.signal.resample_poly(voice, rate // 100, 480),
    }
    return {name: torch.from_numpy(0.5 * wave / np.abs(wave).max()).float() for name, wave in sounds.items()}


def muffled(wave: torch.Tensor, zero_phase: bool = True) -> torch.Tensor:
    low = scipy.signal.cheby1(8, 0.05, 0.2, output="sos")
    filtered = scipy.signal.sosfiltfilt if zero_phase else scipy.signal.sosfilt
    return torch.from_numpy(filtered(low, wave.numpy()).copy()).float()


def click_count(estimate: torch.Tensor, reference: torch.Tensor, rate: int) -> list[float]:
    """Of [B, rate]: in a second."""
    return METRICS["clicks"](*(Signal.of(wave[:, None], rate) for wave in (estimate, reference)))[""].tolist()


@pytest.mark.parametrize("rate", [16000, 44100])
def test_what_is_no_click_is_not_counted(rate):
    reference = torch.stack(list(clean(rate).values()))
    silence, low = torch.zeros_like(reference), muffled(reference)
    held = low[:, ::4].repeat_interleave(4, 1)[:, :rate]
    hissing = low + 0.05 * noise(*reference.shape)
    estimates = [reference, 4 * reference, -reference, low, muffled(reference, False), held, hissing, silence]
    for estimate in estimates:
        assert click_count(estimate, reference, rate) == [0] * 6
    assert click_count(reference[:3], silence[:3], rate) == [0] * 3  # nor by chance, with nothing to compare


@pytest.mark.parametrize("rate", [16000, 44100])
@pytest.mark.parametrize("what", ["impulses", "steps"])
def test_a_click_is_counted_once(rate, what):
    """Three, as high as the signal at its peaks, which has no highs; and none if they belong there."""
    sounds = clean(rate)
    names = ["sine", "chirp", "tones", "speech"]
    reference = muffled(torch.stack([*(sounds[name] for name in names), torch.zeros(rate)]))
    clicking = torch.zeros(rate)
    clicking[[rate // 4 + 7, rate // 3, 4 * rate // 5 + 3]] = 0.5 * torch.tensor([1.0, -1.0, 1.0])
    if what == "steps":
        clicking = clicking.cumsum(0)
    assert click_count(reference + clicking, reference, rate) == [3] * 5
    assert click_count(0.5 * (reference + clicking), reference + clicking, rate) == [0] * 5
    assert click_count(reference, reference + clicking, rate) == [0] * 5


def test_clicks_are_per_second_and_padding_clicks_not():
    wave = torch.zeros(3, 1, 16000)
    wave[:, :, [2000, 4000, 4008, 9000]] = 0.5  # 0.5 ms apart is one
    reference = Signal(torch.zeros_like(wave), 8000, torch.tensor([16000, 8000, 3000]))
    estimate = reference._replace(wave=wave)
    assert METRICS["clicks"](estimate, reference)[""].tolist() == pytest.approx([1.5, 2, 1 / 0.375])
    wave[1, 0, 5] = torch.nan
    assert METRICS["clicks"](estimate, reference)[""].isnan().tolist() == [False, True, False]


def test_polarity_tells_what_came_out_flipped():
    estimate, reference = batch([8000, 9000], 44100)
    flipped = estimate._replace(wave=-3 * estimate.wave)
    silence = reference._replace(wave=0 * reference.wave)
    polarity = METRICS["flipped"]
    assert polarity(estimate, reference)[""].tolist() == [0, 0]
    assert polarity(flipped, reference)[""].tolist() == [1, 1]
    assert polarity(silence, reference)[""].isnan().all() and polarity(estimate, silence)[""].isnan().all()


def test_scores_by_polarity_are_those_of_one_half():
    estimate, reference = batch([8000, 9000], 44100)
    sign = torch.tensor([1.0, -1.0])[:, None, None]
    scores = METRICS["l1_by_polarity"](estimate._replace(wave=sign * estimate.wave), reference)
    upright, flipped = scores[""].tolist()
    assert flipped > 2 * upright
    assert scores["-upright"].tolist() == pytest.approx([upright, torch.nan], nan_ok=True)
    assert scores["-flipped"].tolist() == pytest.approx([torch.nan, flipped], nan_ok=True)


def test_what_came_out_flipped_is_aligned():
    """Cukaj and Corsi's L1 and MSE of a flipped estimate are about 2 and 4 times those of silence."""
    estimate, reference = batch([8000, 9000], 44100)
    flipped = estimate._replace(wave=-estimate.wave)
    for name, metric in (("l1", l1), ("mse", mse)):
        score = metric(estimate, reference)[""]
        assert (metric(flipped, reference)[""] > 2 * score).all()
        for each in (estimate, flipped):
            assert METRICS[f"{name}_aligned"](each, reference)[""].tolist() == score.tolist()


# ---------------------------------------------------------------- batches


@pytest.mark.parametrize("metric", OURS.values(), ids=OURS)
def test_an_item_does_not_depend_on_its_batch(metric):
    """Of lengths far apart, and shorter than a frame."""
    estimate, reference = batch([8192, 300, 9001, 30001], 48000)
    cutoff = torch.tensor([4000.0, 6000.0, 8000.0, 12000.0])
    together = metric(estimate, reference, cutoff)
    for i in range(4):
        for name, score in metric(item(estimate, i), item(reference, i), cutoff[i : i + 1]).items():
            torch.testing.assert_close(together[name][i : i + 1], score, atol=1e-5, rtol=1e-5, equal_nan=True)


@pytest.mark.parametrize("metric", OURS.values(), ids=OURS)
def test_padding_may_differ_between_estimate_and_reference(metric):
    estimate, reference = batch([4800, 9001], 48000)
    cutoff = torch.tensor([4000.0, 6000.0])
    wider = reference._replace(wave=pad(reference.wave, (0, 500), value=1.0))
    for name, score in metric(estimate, reference, cutoff).items():
        torch.testing.assert_close(metric(estimate, wider, cutoff)[name], score, equal_nan=True)


@pytest.mark.parametrize("metric", OURS.values(), ids=OURS)
def test_signals_that_do_not_match_are_refused(metric):
    reference = Signal.of(noise(1, 1, 1000), 48000)
    with pytest.raises(ValueError, match=r"44100 Hz.*48000 Hz"):
        metric(reference._replace(rate=44100), reference)
    with pytest.raises(ValueError, match=r"\[999\].*\[1000\]"):
        metric(reference._replace(lengths=torch.tensor([999])), reference)


@pytest.mark.skipif(not VCTK.is_dir(), reason=f"no recordings at {VCTK}")
def test_degradation_and_lsd_equal_the_scores_that_ssr_eval_published():
    """Unprocessed input at a cut-off of 12 kHz, per file of VCTK, as one padded batch."""
    soundfile = pytest.importorskip("soundfile")
    with PUBLISHED.open() as lines:
        rows = [row for row in csv.DictReader(lines) if row["verbatim"] == "yes"]
    files = [VCTK / row["file"].split("_")[0] / row["file"] for row in rows]
    waves = [torch.from_numpy(soundfile.read(file, dtype="float32")[0]) for file in files]
    lengths = torch.tensor([len(wave) for wave in waves])
    high = torch.nn.utils.rnn.pad_sequence(waves, batch_first=True)[:, None]

    low = stft_hard(resample(high, 48000, 44100), torch.full((len(rows),), 12000), 44100)
    estimate = resample(low, 44100, 48000)[..., : high.shape[-1]]
    scores = METRICS["lsd_ssr_eval"](Signal(estimate, 48000, lengths), Signal(high, 48000, lengths))[""]

    assert len(rows) == 4
    assert scores.tolist() == pytest.approx([float(row["published_lsd"]) for row in rows], abs=0.03)
