"""Degradations: how a low-resolution input is made from a full-band recording.

A degradation is called with the full-band batch and one seed per item, on the device, and gives the
low-resolution signal at its own rate (never interpolated back) with its true band edge. Whatever it draws
comes from the item's seed alone. `margin(rate)` samples on each side of a window at `rate` Hz are read for it
and cropped after: as many as are heard inside, on the grid of every rate on its way.
"""

import io
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from math import ceil, inf, lcm
from typing import ClassVar

import numpy as np
import scipy.fft
import soundfile
import torch
import torchaudio.functional
from torch import Tensor

from signals.errors import UserError
from signals.filters import Lowpass, boxcar, chebyshev, lowpass, resampler, stft_hard
from signals.resampling import hann_sinc, ratio, resample, resampled_length
from signals.types import Rate, Signal, silence_padding

MARGIN = 3528  # samples: longer than resamplers, STFT frames and codecs reach
HIGHEST_ORDER = 16  # of a random filter: an elliptic one of order 20 would ring for 12 s
FULL_BAND = 0.95  # of half the rate: from there on, a random filter of NU-Wave 2's is none


class Identity:
    """Full band in, full band out: for stages that learn from recordings alone. cutoff: Hz, where known."""

    def __init__(self, cutoff: float | None = None):
        self.cutoff = cutoff

    def margin(self, rate: int) -> int:
        return 0

    def __call__(self, high: Signal, seeds: Tensor) -> tuple[Signal, Tensor]:
        return high, edges(high, self.cutoff or high.rate / 2)


RANDOM_KINDS = ("chebyshev", "elliptic", "butterworth", "boxcar")


class RandomLowpass:
    """AudioSR's training simulation (Liu et al. 2023, Section 3.1): a random low-pass at the full rate.

    cutoff: range in Hz, uniform, or one. order: range, uniform. kinds: equally likely. The paper says no
    more; ours: filters run zero-phase (as in NVSR, which the paper follows), so the low band stays aligned,
    and `boxcar` is the ideal rectangular response. margin: samples (None: until the slowest filter is below
    -120 dB; a boxcar never is). Raises UserError for what cannot be drawn from.
    """

    name = "random_lowpass"

    def __init__(
        self,
        cutoff: tuple[float, float] | float = (2000, 16000),
        order: tuple[int, int] = (2, 10),
        kinds: tuple[str, ...] = RANDOM_KINDS,
        margin: int | None = None,
    ):
        self.cutoff = (cutoff, cutoff) if isinstance(cutoff, int | float) else tuple(cutoff)
        self.order, self.kinds, self.given = tuple(order), tuple(kinds), margin
        if len(self.cutoff) != 2 or not 0 < self.cutoff[0] <= self.cutoff[1]:
            raise UserError(f"degradation {self.name}: cutoff={cutoff}: one in Hz, or [lowest, highest].")
        orders = range(1, HIGHEST_ORDER + 1)
        if len(self.order) != 2 or not set(self.order) <= set(orders) or self.order[0] > self.order[1]:
            raise UserError(
                f"degradation {self.name}: order={order}: [lowest, highest], whole, 1 to {HIGHEST_ORDER}."
            )
        if not self.kinds or not set(self.kinds) <= set(RANDOM_KINDS):
            raise UserError(
                f"degradation random_lowpass: kinds={kinds}: a list of some of {', '.join(RANDOM_KINDS)}."
            )

    def margin(self, rate: int) -> int:
        if self.given is not None:
            return self.given
        orders, rings = (
            range(self.order[0], self.order[1] + 1),
            [kind for kind in self.kinds if kind != "boxcar"],
        )
        slowest = (Lowpass(kind, order, self.cutoff[0]) for kind in rings for order in orders)
        return max((each.settling(rate) for each in slowest), default=MARGIN)

    def draw(self, seed: int) -> Lowpass:
        """The filter of the item with this seed."""
        rng = np.random.default_rng(seed)
        kind = self.kinds[rng.integers(len(self.kinds))]
        order = int(rng.integers(self.order[0], self.order[1] + 1))
        return Lowpass(kind, order, float(rng.uniform(*self.cutoff)))

    def __call__(self, high: Signal, seeds: Tensor) -> tuple[Signal, Tensor]:
        drawn = [self.draw(seed) for seed in seeds.tolist()]
        cutoff = torch.tensor([each.cutoff for each in drawn], device=high.wave.device)
        ideal = [row for row, each in enumerate(drawn) if each.kind == "boxcar"]
        iir = [row for row, each in enumerate(drawn) if each.kind != "boxcar"]
        low = torch.empty_like(high.wave)
        if ideal:
            low[ideal] = boxcar(high.wave[ideal], cutoff[ideal], high.rate)
        if iir:
            filters = [drawn[row] for row in iir]
            low[iir] = lowpass(high.wave[iir], filters, high.rate, zero_phase=True)
        return Signal(silence_padding(low, high.lengths), high.rate, high.lengths), cutoff


class RandomNuWave2(RandomLowpass):
    """NU-Wave 2's training simulation (Han and Lee 2022), at the full rate: a random Chebyshev-I filter,
    zero-phase, then to twice its edge and back by scipy.signal.resample_poly.

    cutoff: range of the edge in Hz, uniform, or one. order: range, uniform. ripples: dB, equally likely.
    Ours: one frequency response for all three, which is equal to SciPy but for what folds at the cut-off on
    the way down and is mirrored there on the way up; and no filter above 0.95 of half the rate (theirs: at
    half the rate), where filters ring longest. margin: samples (None: until the sharpest filters at
    both ends of the range are below -120 dB). Raises UserError for what cannot be drawn from.
    """

    name = "random_nuwave2"

    def __init__(
        self,
        cutoff: tuple[float, float] | float = (3000, 24000),
        order: tuple[int, int] = (1, 11),
        ripples: tuple[float, ...] = (1e-9, 1e-6, 1e-3, 1.0, 5.0),
        margin: int | None = None,
    ):
        super().__init__(cutoff, order, ("chebyshev",), margin)
        self.ripples = tuple(ripples)
        if not self.ripples or not all(0 < ripple < inf for ripple in self.ripples):
            raise UserError(f"degradation {self.name}: ripples={ripples}: a list of dB above 0.")

    def margin(self, rate: int) -> int:
        return self.settling(rate) if self.given is None else self.given

    def settling(self, rate: int) -> int:
        ends = [min(hertz, FULL_BAND * rate / 2) for hertz in self.cutoff]
        sharpest = [Lowpass("chebyshev", self.order[1], hertz, max(self.ripples)) for hertz in ends]
        return max(MARGIN, *(each.settling(rate) for each in sharpest))

    def draw(self, seed: int) -> Lowpass:
        rng = np.random.default_rng(seed)
        ripple = float(self.ripples[rng.integers(len(self.ripples))])
        order = int(rng.integers(self.order[0], self.order[1] + 1))
        return Lowpass("chebyshev", order, float(rng.uniform(*self.cutoff)), ripple)

    def __call__(self, high: Signal, seeds: Tensor) -> tuple[Signal, Tensor]:
        drawn, half = [self.draw(seed) for seed in seeds.tolist()], high.rate / 2
        cutoff = torch.tensor([each.cutoff for each in drawn], device=high.wave.device)
        cutoff = cutoff.where(cutoff < FULL_BAND * half, half)
        narrow = cutoff < half
        low = high.wave.clone()
        if narrow.any():
            filters = [each for each, is_narrow in zip(drawn, narrow.tolist(), strict=True) if is_narrow]
            low[narrow] = self.filtered(high.wave[narrow], filters, high.rate)
        return high._replace(wave=silence_padding(low, high.lengths)), cutoff

    def filtered(self, wave: Tensor, filters: Sequence[Lowpass], rate: int) -> Tensor:
        """[B, 1, T], each by its filter, with silence around, in which what is heard of it settles."""
        samples = wave.shape[-1]
        size = scipy.fft.next_fast_len(samples + self.settling(rate), real=True)
        orders, edges, ripples = (
            torch.tensor(column, dtype=torch.float64, device=wave.device)[:, None]
            for column in zip(*((each.order, each.cutoff, each.ripple) for each in filters), strict=True)
        )
        hertz = torch.arange(size // 2 + 1, dtype=torch.float64, device=wave.device) * rate / size
        response = chebyshev(hertz, edges, orders, ripples, rate) * resampler(hertz / edges).square()
        spectrum = torch.fft.rfft(wave, size)
        spectrum *= response[:, None].to(wave.dtype)
        return torch.fft.irfft(spectrum, size)[..., :samples]


class _At:
    """A degradation to one cut-off in Hz.

    rate: Hz, what the recording is brought to first (None: its own). margin: samples of the recording on each
    side of a window, at least (None: enough to hear nothing of the cut).
    """

    needs = MARGIN
    decimate = True  # to twice the cut-off
    filter: Lowpass | None = None  # the one that rings longest

    def __init__(self, cutoff: float, rate: int | None = None, margin: int | None = None):
        self.cutoff, self.rate, self.given = cutoff, rate, margin

    def margin(self, rate: int) -> int:
        between = self.rate or rate
        rings = self.filter.settling(between) * rate / between if self.filter else 0
        reach = self.needs if between == rate else MARGIN
        least = max(reach, ceil(rings)) if self.given is None else self.given
        step = lcm(*(ratio(rate, grid)[1] for grid in (between, self.grid(between))))
        return -(-least // step) * step

    def grid(self, rate: int) -> Rate:
        """Hz that a recording at `rate` Hz is brought to, in the end or on its way."""
        return twice(self.cutoff) if self.decimate else rate

    def __call__(self, high: Signal, seeds: Tensor) -> tuple[Signal, Tensor]:
        low = self.lowered(resampled(high, self.rate or high.rate))
        return low._replace(wave=silence_padding(low.wave, low.lengths)), edges(low, self.cutoff)

    def lowered(self, high: Signal) -> Signal:
        raise NotImplementedError


class StftHard(_At):
    """STFT bins from the cut-off up are zeroed.

    As given, ssr_eval's recommended input, at the full rate. With n_fft=1024, hop=256 and `decimate`, which
    keeps every r-th sample, NU-Wave's (Lee and Han 2021, as their code has it).
    """

    def __init__(self, cutoff: float, n_fft: int = 2048, hop: int = 441, decimate: bool = False, **options):
        super().__init__(cutoff, **options)
        self.n_fft, self.hop, self.decimate = n_fft, hop, decimate

    def lowered(self, high: Signal) -> Signal:
        edge = edges(high, self.cutoff)
        low = high._replace(wave=stft_hard(high.wave, edge, high.rate, self.n_fft, self.hop))
        return every(low, self.cutoff) if self.decimate else low


class Butterworth(_At):
    """A Butterworth filter with its edge at the cut-off (-3 dB, zero-phase -6 dB), then every r-th sample.

    Causal, King et al.'s input, which lags behind by the filter's delay; zero-phase, the same without it.
    decimate: whether the rate becomes twice the cut-off, or stays.
    """

    def __init__(self, cutoff: float, order: int = 8, causal: bool = False, decimate: bool = True, **options):
        super().__init__(cutoff, **options)
        self.causal, self.decimate = causal, decimate
        self.filter = Lowpass("butterworth", order, cutoff)

    def lowered(self, high: Signal) -> Signal:
        low = filtered(high, self.filter, not self.causal)
        return every(low, self.cutoff) if self.decimate else low


class Decimate(_At):
    """scipy.signal.decimate: Chebyshev-I of order 8, 0.05 dB, edge at 0.8 of the cut-off; every r-th sample.

    Zero-phase, Kuleshov et al.'s and TFNet's input. (Of Kuleshov's published recordings, those of one speaker
    are `causal`, and those of several speakers are `subsample`.)
    """

    def __init__(self, cutoff: float, causal: bool = False, **options):
        super().__init__(cutoff, **options)
        self.causal = causal
        self.filter = Lowpass("chebyshev", 8, 0.8 * cutoff, ripple=0.05)

    def lowered(self, high: Signal) -> Signal:
        return every(filtered(high, self.filter, not self.causal), self.cutoff)


class Subsample(_At):
    """Every r-th sample, unfiltered: what is above the cut-off folds into the band. QISTA-Net's input."""

    needs = 0

    def lowered(self, high: Signal) -> Signal:
        return every(high, self.cutoff)


class FmaBiquad(_At):
    """Cukaj and Corsi's input, at the full rate: to twice the cut-off and back, then a biquad at 0.6 of it.

    Resampled by torchaudio's defaults, filtered once by `lowpass_biquad` (Q = 0.707), which lags by two
    samples and clamps to [-1, 1].
    """

    def __init__(self, cutoff: float = 8000, **options):
        super().__init__(cutoff, **options)

    def lowered(self, high: Signal) -> Signal:
        narrow = resampled(high, twice(self.cutoff), hann_sinc)
        wave = hann_sinc(narrow.wave, narrow.rate, high.rate)[..., : high.wave.shape[-1]]
        biquad = torchaudio.functional.lowpass_biquad(wave, high.rate, 0.6 * self.cutoff, Q=0.707)
        return high._replace(wave=biquad)


class Sinc(_At):
    """Resampled to twice the cut-off by torchaudio's defaults: AP-BWE's input."""

    def lowered(self, high: Signal) -> Signal:
        return resampled(high, twice(self.cutoff), hann_sinc)


class Polyphase(_At):
    """Resampled to twice the cut-off by a polyphase FIR filter: what a low-rate recording is."""

    def lowered(self, high: Signal) -> Signal:
        return resampled(high, twice(self.cutoff))


class NuWave2(_At):
    """NU-Wave 2's test input: Chebyshev-I of order 8 and 0.05 dB, zero-phase, then `polyphase`."""

    def __init__(self, cutoff: float, **options):
        super().__init__(cutoff, **options)
        self.filter = Lowpass("chebyshev", 8, cutoff, ripple=0.05)

    def lowered(self, high: Signal) -> Signal:
        return resampled(filtered(high, self.filter, zero_phase=True), twice(self.cutoff))


class Silence(_At):
    """Zeros at twice the cut-off, as long as the recording: what comes out, a network adds by itself."""

    needs = 0

    def lowered(self, high: Signal) -> Signal:
        rate = twice(self.cutoff)
        lengths = resampled_length(high.lengths, high.rate, rate)
        return Signal(high.wave.new_zeros(len(high.wave), 1, int(lengths.max())), rate, lengths)


class MuLaw(_At):
    """A telephone call: 8 kHz, 300 Hz to the cut-off, 8-bit mu-law (ITU-T G.711's curve, by torchaudio).

    The band is cut zero-phase by Butterworth filters of `order`.
    """

    def __init__(self, cutoff: float = 3400, order: int = 8, **options):
        if not 300 < cutoff < 4000:
            raise UserError(f"degradation mu_law: cutoff={cutoff:g} Hz; between 300 and 4000 is needed.")
        super().__init__(cutoff, **options)
        self.order, self.filter = order, Lowpass("butterworth", order, 300)

    def lowered(self, high: Signal) -> Signal:
        # In double precision, or the noise of an FFT's length would move samples by a step of the quantiser.
        call = resampled(high._replace(wave=high.wave.double()), 8000)
        call = filtered(call, Lowpass("butterworth", self.order, self.cutoff), zero_phase=True)
        # 1 - 1 / (1 + W^2n) = W^2n / (1 + W^2n): zero-phase, what a low-pass takes away is a high-pass.
        wave = call.wave - filtered(call, self.filter, zero_phase=True).wave
        codes = torchaudio.functional.mu_law_encoding(wave.clamp(-1, 1), 256)
        decoded = torchaudio.functional.mu_law_decoding(codes, 256)
        return call._replace(wave=decoded.to(high.wave.dtype))

    def grid(self, rate: int) -> int:
        return 8000


class _Codec(_At):
    """Encoded and decoded in memory by libsndfile, at the full rate; one recording after another, on the CPU.

    kbps: of a mono stream. cutoff: Hz, the band edge to report (None: half the rate, as the encoder chooses).
    """

    format: tuple[str, str]  # container and codec, as soundfile names them
    rates: tuple[int, ...]  # Hz; what comes at another is coded at the first
    settings: Mapping[str, str] = {}
    delay = 0  # samples, of a stream whose frames have no room to state it

    def __init__(self, cutoff: float | None = None, kbps: float = 64, **options):
        super().__init__(cutoff, **options)
        self.kbps = kbps
        if not soundfile.check_format(*self.format):
            raise UserError(
                f"this libsndfile cannot write {' '.join(self.format)}: install a newer soundfile."
            )

    def range(self, rate: int) -> tuple[float, float]:
        """kbit/s at compression level 1 and 0 of libsndfile, which is linear between them."""
        raise NotImplementedError

    def grid(self, rate: int) -> int:
        return rate if rate in self.rates else self.rates[0]

    def lowered(self, high: Signal) -> Signal:
        known = resampled(high, self.grid(high.rate))
        waves = known.wave[:, 0].cpu().numpy().copy()
        for wave, length in zip(waves, known.lengths.tolist(), strict=True):
            wave[:length] = self.coded(wave[:length], known.rate)
        wave = resampled(known._replace(wave=torch.from_numpy(waves)[:, None].to(high.wave)), high.rate).wave
        return high._replace(wave=wave[..., : high.wave.shape[-1]])

    def coded(self, wave: np.ndarray, rate: int) -> np.ndarray:
        """`wave` [T] through the codec, in its place."""
        low, high = self.range(rate)
        if not low <= self.kbps <= high:
            raise UserError(f"{self.kbps:g} kbit/s at {rate} Hz: {low:g} to {high:g} can be had.")
        container, codec = self.format
        level = min(0.999, (high - self.kbps) / (high - low))  # 1 itself is refused
        stream = io.BytesIO()
        soundfile.write(stream, wave, rate, codec, format=container, compression_level=level, **self.settings)
        stream.seek(0)
        decoded, _ = soundfile.read(stream, dtype="float32")
        first = self.delay if len(decoded) > len(wave) else 0
        return decoded[first : first + len(wave)]


class Mp3(_Codec):
    """MPEG-1 and 2 layer III by lame, at a constant bit rate."""

    format = ("MP3", "MPEG_LAYER_III")
    rates = (48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8000)
    settings: ClassVar = {"bitrate_mode": "CONSTANT"}
    delay = 576 + 529  # of lame's encoder and of any decoder

    def range(self, rate: int) -> tuple[float, float]:
        return (32, 320) if rate >= 32_000 else (8, 160) if rate >= 16_000 else (8, 64)


class Opus(_Codec):
    """Opus by libopus, at a variable bit rate."""

    format = ("OGG", "OPUS")
    rates = (48_000, 24_000, 16_000, 12_000, 8000)

    def range(self, rate: int) -> tuple[float, float]:
        return 6, 256


def edges(signal: Signal, cutoff: float | None) -> Tensor:
    """[B] Hz: `cutoff`, or half the rate where it is None."""
    return torch.full((len(signal.wave),), float(cutoff or signal.rate / 2), device=signal.wave.device)


def resampled(
    signal: Signal, rate: Rate, resampler: Callable[[Tensor, Rate, Rate], Tensor] = resample
) -> Signal:
    """`signal` at `rate` Hz, without what the filter rings beyond its end."""
    if signal.rate == rate:
        return signal
    lengths = resampled_length(signal.lengths, signal.rate, rate)
    return Signal(silence_padding(resampler(signal.wave, signal.rate, rate), lengths), rate, lengths)


def filtered(signal: Signal, filter: Lowpass, zero_phase: bool) -> Signal:
    """`signal` low-passed, without what the filter rings beyond its end."""
    wave = lowpass(signal.wave, filter, signal.rate, zero_phase)
    return signal._replace(wave=silence_padding(wave, signal.lengths))


def twice(cutoff: float) -> Rate:
    """The rate in Hz at which `cutoff` Hz is the highest frequency.

    Raises UserError if that is neither whole nor a simple fraction (twelfths at the finest).
    """
    rate = Fraction(2 * cutoff).limit_denominator(12)
    if abs(rate - 2 * cutoff) > 1e-6 * cutoff:
        raise UserError(f"a cut-off of {cutoff:g} Hz: twice that must be a whole rate, or a simple fraction.")
    return int(rate) if rate.denominator == 1 else rate


def every(signal: Signal, cutoff: float) -> Signal:
    """The samples of `signal` at twice `cutoff` Hz. Raises UserError if that is not every r-th."""
    rate = twice(cutoff)
    up, down = ratio(signal.rate, rate)
    if up != 1:
        raise UserError(
            f"a cut-off of {cutoff:g} Hz: {signal.rate} Hz is not a whole multiple of twice that."
        )
    return Signal(signal.wave[..., ::down], rate, resampled_length(signal.lengths, signal.rate, rate))


DEGRADATIONS: dict[str, Callable] = {
    "none": Identity,
    "random_lowpass": RandomLowpass,
    "stft_hard": StftHard,
    "butterworth": Butterworth,
    "decimate": Decimate,
    "subsample": Subsample,
    "polyphase": Polyphase,
    "sinc": Sinc,
    "nuwave2": NuWave2,
    "random_nuwave2": RandomNuWave2,
    "fma_biquad": FmaBiquad,
    "silence": Silence,
    "mu_law": MuLaw,
    "mp3": Mp3,
    "opus": Opus,
}


def degradation(name: str, **options) -> Callable[[Signal, Tensor], tuple[Signal, Tensor]]:
    """Raises UserError where the name or an option is unknown."""
    if name not in DEGRADATIONS:
        raise UserError(f"unknown degradation {name}: one of {', '.join(DEGRADATIONS)}.")
    try:
        return DEGRADATIONS[name](**options)
    except TypeError as error:
        raise UserError(f"degradation {name}: {error}.") from None
