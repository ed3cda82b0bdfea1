"""The demo corpus: sixteen minutes of synthetic, full-band audio in the layouts of the real corpora.

For those who have no audio at hand. Everything is drawn from one seed: speech by a source-filter model
(Rosenberg's glottal pulses through moving formants, with fricatives and plosives), music by plucked strings
(Karplus and Strong, 1983), damped modes and a drum kit, effects by moving filters, modes, chirps and pulse
trains. As in recordings, the band above 8 kHz follows from the band below it, and reaches beyond 20 kHz.

Shapes: `T` samples at 48 kHz, `N` control frames of 5 ms, `F` frequency bins, `K` modes or resonances.
"""

import json
import multiprocessing
import os
import zlib
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile
from filelock import FileLock
from numpy.lib.stride_tricks import sliding_window_view
from numpy.random import Generator
from rich.progress import track
from scipy.ndimage import convolve1d
from scipy.signal import fftconvolve, lfilter, resample_poly

DEMO_VERSION = 3
MADE_BY = "wideband demo corpus"
PARTS = (
    *("VCTK-Corpus-0.92", "speech", "music", "effects", "ESC-50", "VoiceBank"),
    *("fma_small", "fma_metadata", "beethoven", "musdb18hq"),
)

RATE = 48_000  # Hz
HOP = 240  # samples: a control frame of 5 ms
FFT = 8 * HOP
FREQUENCY = np.fft.rfftfreq(FFT, 1 / RATE)  # [F] in Hz
WINDOW = np.hanning(2 * HOP + 1)[:-1]  # sums to one at half overlap


# --- Tools: moving controls, moving filters, damped modes ---------------------------------------------------


def smooth(steps: np.ndarray, seconds: float) -> np.ndarray:
    """Controls [N, ...] cross-faded over `seconds` by a Hann kernel."""
    kernel = np.hanning(2 * round(seconds * RATE / HOP / 2) + 3)
    return convolve1d(steps, kernel / kernel.sum(), axis=0, mode="nearest")


def drift(rng: Generator, frames: int, seconds: float) -> np.ndarray:
    """A slow random control [N] of zero mean and unit variance that turns about every `seconds`."""
    control = smooth(rng.normal(size=frames), seconds)
    return (control - control.mean()) / control.std()


def frames_of(seconds: float) -> int:
    """Frames that cover all samples, N: the cross-fade needs one on either side of each sample."""
    return int(seconds * RATE) // HOP + 2


def sampled(control: np.ndarray, samples: int, rate: int = RATE) -> np.ndarray:
    """A control [N] at the sampling rate: [T]."""
    return np.interp(np.arange(samples) * (RATE / rate / HOP), np.arange(len(control)), control)


def shaped(source: np.ndarray, response: np.ndarray) -> np.ndarray:
    """The source [T] through a moving filter, of response [n, F] about sample n·HOP, for n < N -> [T]."""
    count = len(response)
    padded = np.pad(source, (HOP, (count + 1) * HOP - source.size))
    frames = sliding_window_view(padded, 2 * HOP)[::HOP][:count] * WINDOW
    pieces = np.fft.irfft(np.fft.rfft(frames, FFT) * response, FFT).reshape(count, -1, HOP)
    blocks = np.zeros((count + FFT // HOP, HOP))
    for late in range(FFT // HOP):
        blocks[late : late + count] += pieces[:, late]
    return blocks.ravel()[HOP : HOP + source.size]


def resonance(centre: np.ndarray, width: np.ndarray) -> np.ndarray:
    """Klatt's two-pole resonator, of unit gain at 0 Hz; centre and width [...] in Hz -> response [..., F]."""
    pole = np.exp((-np.pi * width + 2j * np.pi * centre) / RATE)[..., None]
    delay = np.exp(-2j * np.pi * FREQUENCY / RATE)
    gain = np.abs(1 - pole) ** 2
    return gain / (1 - (2 * pole.real) * delay + np.abs(pole) ** 2 * delay**2)


def band(centre: np.ndarray | float, q: np.ndarray | float) -> np.ndarray:
    """A band-pass with skirts of 6 dB/octave and unit gain at its centre [...] in Hz -> response [..., F]."""
    ratio = np.maximum(FREQUENCY, 1.0) / np.asarray(centre)[..., None]
    return 1 / (1 + 1j * np.asarray(q)[..., None] * (ratio - 1 / ratio))


def one_pole(cutoff: float) -> tuple[list[float], list[float]]:
    """Coefficients (b, a) of a low-pass of 6 dB/octave above `cutoff` in Hz."""
    pole = np.exp(-2 * np.pi * cutoff / RATE)
    return [1 - pole], [1, -pole]


def modes(frequency: np.ndarray, decay: np.ndarray, amplitude: np.ndarray, seconds: float) -> np.ndarray:
    """Damped sines of frequencies [K] in Hz, decays [K] in 1/s and amplitudes [K], struck together -> [T]."""
    pole = (2j * np.pi * frequency - decay) / RATE
    # exp(p (256 m + b)) = exp(256 p m) exp(p b) makes the sum over modes one matrix product,
    # without BLAS, whose threads would compete with the other processes
    coarse = np.exp(np.outer(np.arange(0, seconds * RATE, 256), pole))
    fine = np.exp(np.outer(np.arange(256), pole)) * amplitude
    return np.einsum("mk,bk->mb", coarse, fine).imag.ravel()[: int(seconds * RATE)]


def pulses(f0: np.ndarray, samples: int, opening: float, closing: float) -> tuple[np.ndarray, np.ndarray]:
    """Rosenberg's pulses at the pitch f0 [N] in Hz, in parts of a period: flow [T] and its derivative [T]."""
    over = 2  # the jump at closure would alias at 48 kHz
    phase = np.cumsum(sampled(f0, over * samples, over * RATE)) / (over * RATE) % 1
    rise = 0.5 - 0.5 * np.cos(np.pi * phase / opening)
    fall = np.cos(np.pi / 2 * np.clip((phase - opening) / closing, 0, 1))
    flow = resample_poly(np.where(phase < opening, rise, fall), 1, over)
    return flow, np.diff(flow, prepend=flow[0]) * (RATE / f0.mean() / 10)


def mixed(seconds: float, events: Iterable[tuple[float, np.ndarray]]) -> np.ndarray:
    """Sounds [T'] laid down at their onsets in seconds, each faded out at its end: [T]."""
    out = np.zeros(int(seconds * RATE))
    for onset, sound in events:
        start = int(onset * RATE)
        sound = sound * np.minimum(np.arange(sound.size, 0, -1) / (0.02 * RATE), 1)
        out[start : start + sound.size] += sound[: max(out.size - start, 0)]
    return out


# --- Speech -------------------------------------------------------------------------------------------------

# seconds, voicing, F1, F2, F3 in Hz, noise of the constriction: gain, centre in Hz, q
PHONES = {
    **{
        vowel: (0.11, 1.0, *formants, 0.0, 4000, 1.0)
        for vowel, formants in {
            "i": (280, 2250, 2950), "I": (400, 1950, 2550), "e": (530, 1850, 2500), "A": (690, 1660, 2490),
            "a": (710, 1100, 2540), "o": (520, 860, 2410), "U": (440, 1020, 2240), "u": (310, 900, 2250),
            "@": (500, 1450, 2500), "V": (620, 1220, 2550),
        }.items()
    },
    "s": (0.10, 0.0, 330, 1600, 2600, 1.60, 7500, 1.5), "z": (0.07, 0.30, 300, 1600, 2600, 0.80, 7500, 1.5),
    "S": (0.10, 0.0, 330, 1850, 2500, 1.30, 4000, 1.5), "f": (0.08, 0.0, 340, 1100, 2200, 0.35, 8500, 0.4),
    "h": (0.04, 0.0, 500, 1500, 2500, 0.14, 1800, 0.6), "_": (0.20, 0.0, 480, 1500, 2500, 0.0, 4000, 1.0),
    "-": (0.05, 0.0, 300, 1500, 2500, 0.0, 4000, 1.0), "P": (0.01, 0.0, 300, 900, 2200, 0.7, 1200, 0.6),
    "T": (0.015, 0.0, 300, 1700, 2700, 1.2, 5500, 0.8), "K": (0.02, 0.0, 300, 1900, 2200, 1.0, 2300, 1.0),
    "m": (0.07, 0.40, 260, 1050, 2200, 0.0, 4000, 1.0), "n": (0.06, 0.40, 260, 1600, 2500, 0.0, 4000, 1.0),
    "l": (0.06, 0.55, 340, 1150, 2800, 0.0, 4000, 1.0), "r": (0.06, 0.55, 330, 1150, 1650, 0.0, 4000, 1.0),
    "w": (0.06, 0.55, 300, 700, 2200, 0.0, 4000, 1.0), "j": (0.05, 0.55, 270, 2200, 3000, 0.0, 4000, 1.0),
}  # fmt: skip
ONSETS = ["", "s", "S", "f", "z", "m", "n", "l", "r", "w", "j", "h", "-Ph", "-Th", "-Kh", "s-T", "fl"]
NUCLEI = ["i", "I", "e", "A", "a", "o", "U", "u", "@", "V", "aI", "eI", "oU"]
CODAS = ["", "", "", "s", "S", "n", "m", "l", "-T", "-K", "n-T", "-Ts", "f", "z"]


class Voice(NamedTuple):
    f0: float  # Hz
    stretch: float  # of all formants: the inverse of the vocal tract's length
    tilt: float  # Hz, above which the glottal source falls by 6 dB/octave more
    breath: float  # gain of the aspiration noise
    pace: float  # seconds a phone lasts, over those in PHONES

    @classmethod
    def of(cls, speaker: str, seed: int) -> "Voice":
        """A speaker sounds alike in all files; a low voice comes, mostly, with a long vocal tract."""
        rng = np.random.default_rng([seed, zlib.crc32(speaker.encode())])
        f0 = float(np.exp(rng.uniform(np.log(95), np.log(230))))
        stretch = 1 + 0.16 * np.log2(f0 / 110) + rng.normal(0, 0.03)
        return cls(f0, stretch, rng.uniform(4000, 8000), rng.uniform(0.05, 0.12), rng.uniform(0.9, 1.15))


def sentence(rng: Generator, seconds: float) -> str:
    """Made-up words of one to three syllables, in the letters of PHONES, with pauses between some."""
    text = "_"
    while sum(PHONES[phone][0] for phone in text) < seconds - 0.2:
        for _ in range(rng.integers(1, 4)):
            text += rng.choice(ONSETS) + rng.choice(NUCLEI) + rng.choice(CODAS)
        text += "_" * int(rng.random() < 0.35)
    return text.rstrip("_") + "_"


def utterance(rng: Generator, seconds: float, voice: Voice) -> np.ndarray:
    """Glottal source and aspiration through the vocal tract, and the noise of constrictions beside it [T]."""
    phones = np.array([PHONES[phone] for phone in sentence(rng, seconds / voice.pace)])
    spans = phones[:, 0] * rng.uniform(0.8, 1.25, len(phones))
    frames, samples = frames_of(seconds), int(seconds * RATE)
    phone = np.searchsorted(np.cumsum(spans) / spans.sum(), np.arange(frames) / frames)  # [N]
    steps = phones[phone]  # [N, 8]
    accents = rng.normal(0, 0.16, len(phones))[phone]
    loudness = rng.uniform(0.6, 1.0, len(phones))[phone]

    decline = np.linspace(0.15, -0.25, frames)  # octaves
    f0 = voice.f0 * 2 ** (decline + smooth(accents, 0.2) + rng.normal(0, 0.006, frames))
    formants = smooth(steps[:, 2:5], 0.08) * voice.stretch
    upper = np.arange(3500, 23_500, 1000) * voice.stretch
    upper = upper[upper < 23_500]
    # all the poles up to Nyquist, so that the tract is flat on average and the source alone sets the tilt
    tract = np.prod(resonance(upper, 60 + upper / 14), axis=0)  # [F]
    for k, width in enumerate((70, 90, 140)):
        tract = tract * resonance(formants[:, k], np.full(frames, width))  # [N, F]

    flow, glottal = pulses(f0, samples, 0.42, 0.14)
    breath = voice.breath * rng.normal(size=samples) * (0.2 + flow)
    source = lfilter(*one_pole(voice.tilt), glottal) + breath
    voicing = smooth(steps[:, 1] * loudness, 0.03)[:, None]
    hiss = smooth(steps[:, 5] * loudness, 0.02)[:, None] * band(steps[:, 6], steps[:, 7]) ** 2
    room = lfilter(*one_pole(500), 0.01 * rng.normal(size=samples))
    return shaped(source, voicing * tract) + shaped(0.3 * rng.normal(size=samples), hiss) + room


# --- Music --------------------------------------------------------------------------------------------------


def plucked(rng: Generator, f0: float, seconds: float, damping: float, pick: float) -> np.ndarray:
    """Karplus and Strong: a burst of noise below `pick` Hz goes round a delay line that averages [T]."""
    period, samples = round(RATE / f0 - damping), int(seconds * RATE)
    loss = 0.001 ** (1 / (4 * f0))  # -60 dB in 4 s
    line = np.zeros(1 + samples + period)
    line[1 : period + 1] = lfilter(*one_pole(pick), rng.uniform(-1, 1, period))
    for start in range(1 + period, samples, period):
        last = line[start - period - 1 : start]
        line[start : start + period] = loss * ((1 - damping) * last[1:] + damping * last[:-1])
    return line[1 : samples + 1]


def struck(rng: Generator, f0: float, seconds: float, power: float, ring: float) -> np.ndarray:
    """A stiff string (power 1) or a bar (up to 2): partials near f0·k^power, the high dying first [T]."""
    k = np.arange(1, 400)
    frequency = f0 * k**power * np.sqrt(1 + 2e-4 * k**2) * (1 + 0.002 * rng.normal(size=k.size))
    frequency = frequency[frequency < 23_000]
    k = k[: frequency.size]
    amplitude = 0.4 * np.abs(np.sin(np.pi * k / 7.3)) * (frequency / f0) ** -0.8
    return modes(frequency, (1 + frequency / 700) / ring, amplitude, seconds)


def drum(rng: Generator, name: str) -> np.ndarray:
    """One stroke on the kick, the snare or the hat [T]."""
    time = np.arange(RATE // 2) / RATE
    rattle = lfilter(*one_pole(6000), np.diff(rng.normal(size=time.size), prepend=0))
    if name == "kick":
        sweep = np.sin(2 * np.pi * (48 * time + 4 * (1 - np.exp(-35 * time))))
        return sweep * np.exp(-9 * time) + 0.6 * rattle * np.exp(-250 * time)
    if name == "snare":
        shell = modes(np.array([185.0, 331, 472]), np.array([20.0, 26, 35]), np.array([0.4, 0.3, 0.2]), 0.5)
        return shell + 0.6 * rattle * np.exp(-22 * time)
    decay = rng.choice([14, 60, 60])
    partials = rng.uniform([[4000], [0.7 * decay], [0]], [[22_500], [1.5 * decay], [0.03]], (3, 60))
    return modes(*partials, 0.5) + 0.1 * rattle * np.exp(-2 * decay * time)


def tune(rng: Generator, seconds: float, play: Callable[..., np.ndarray], lowest: float) -> np.ndarray:
    """A melody over broken pentatonic chords, on the instrument `play(rng, f0, seconds)` [T]."""
    beat = 60 / rng.uniform(180, 280)
    semitones = rng.integers(12) + np.add.outer([0, 12, 24], [0, 2, 4, 7, 9]).ravel()
    scale = lowest * 2 ** (semitones / 12)  # Hz
    events, step = [], 7
    for count, onset in enumerate(np.arange(0.05, seconds - 0.2, beat)):
        if count % 8 == 0:
            chord = rng.integers(0, 3) + np.array([0, 2, 4])
            events += [(onset + 0.02 * i, 0.6 * play(rng, scale[note], 2.5)) for i, note in enumerate(chord)]
        if rng.random() < 0.75:
            step = int(np.clip(step + rng.integers(-2, 3), 4, 14))
            events.append((onset, rng.uniform(0.4, 1) * play(rng, scale[step], rng.choice([0.8, 1.6]))))
    return mixed(seconds, events)


def drums(rng: Generator, seconds: float) -> np.ndarray:
    """A bar of kick, snare and hats, repeated with variations [T]."""
    step = 60 / rng.uniform(80, 130) / 4
    likely = {"kick": rng.random(16) ** 3, "snare": rng.random(16) ** 6, "hat": rng.choice([0.2, 0.9], 16)}
    likely["kick"][[0, 8]] = likely["snare"][[4, 12]] = likely["hat"][::4] = 1
    strokes = [
        (0.02 + n * step, rng.uniform(0.6, 1) * drum(rng, name))
        for n in range(int((seconds - 0.1) / step))
        for name in likely
        if rng.random() < likely[name][n % 16]
    ]
    return mixed(seconds, strokes)


guitar = partial(tune, play=partial(plucked, damping=0.1, pick=1000), lowest=82.4)
harpsichord = partial(tune, play=partial(plucked, damping=0.04, pick=4000), lowest=110.0)
piano = partial(tune, play=partial(struck, power=1.0, ring=1.5), lowest=98.0)
bells = partial(tune, play=partial(struck, power=1.7, ring=3.0), lowest=196.0)


def ensemble(rng: Generator, seconds: float) -> np.ndarray:
    """Two instruments and the drum kit [T]."""
    low, high = rng.choice([guitar, piano]), rng.choice([harpsichord, bells])
    return low(rng, seconds) + 0.6 * high(rng, seconds) + 1.2 * drums(rng, seconds)


# --- Effects ------------------------------------------------------------------------------------------------


def wind(rng: Generator, seconds: float) -> np.ndarray:
    """Noise through a band that rises with the gusts [T]."""
    gust = drift(rng, frames_of(seconds), 0.8)
    response = 2 ** (0.9 * gust)[:, None] * band(600 * 2 ** (0.5 * gust), 1.2)
    return shaped(rng.normal(size=int(seconds * RATE)), response)


def rain(rng: Generator, seconds: float) -> np.ndarray:
    """Drops in a light or a strong wind, each ringing a bubble of 1 to 9 kHz after its tick [T]."""
    drops = []
    for onset in np.cumsum(rng.exponential(1 / rng.uniform(100, 400), 2000)):
        if onset < seconds:
            bubble = modes(rng.uniform(1000, 9000, 1), rng.uniform(200, 900, 1), np.array([0.3]), 0.03)
            bubble[0] += 0.3  # the tick
            drops.append((onset, rng.lognormal() * bubble))
    return mixed(seconds, drops) + rng.choice([0.02, 0.2]) * wind(rng, seconds)


def impacts(rng: Generator, seconds: float) -> np.ndarray:
    """Knocks on a body of wood, glass or metal: always its modes, in other proportions at each place [T]."""
    lowest, ring = np.exp(rng.uniform(np.log([90, 0.04]), np.log([900, 0.6])))
    frequency = lowest * (23_000 / lowest) ** np.sort(rng.random(120))
    decay = (1 + frequency / 2500) / ring
    onsets = np.cumsum(rng.uniform(0.15, 0.8, 12)) - 0.1
    gains = (frequency / lowest) ** -0.5 * rng.normal(size=(12, 120)) * rng.uniform(0.3, 1, (12, 1))
    hits = ((onset, modes(frequency, decay, gain, 1.5)) for onset, gain in zip(onsets, gains, strict=True))
    return mixed(seconds, hits)


def birds(rng: Generator, seconds: float) -> np.ndarray:
    """Phrases of a chirp of 2 to 5.5 kHz with its overtones, before a breath of wind [T]."""
    out = 0.004 * wind(rng, seconds)
    onset = 0.1
    while onset < seconds - 0.3:
        length, low, sweep = rng.uniform(0.05, 0.16), rng.uniform(2500, 4500), rng.uniform(-900, 900)
        time = np.arange(int(length * RATE)) / length / RATE  # from 0 to 1
        trill = rng.uniform(0, 350) * np.sin(2 * np.pi * rng.uniform(1, 6) * time)
        phase = 2 * np.pi * np.cumsum(low + sweep * time + trill) / RATE
        chirp = np.sin(np.pi * time) ** 0.7 * sum(np.sin(k * phase) / k**2.5 for k in range(1, 5))
        repeats = rng.integers(2, 6)
        out += mixed(seconds, ((onset + i * 1.3 * length, chirp) for i in range(repeats)))
        onset += 1.3 * length * repeats + rng.uniform(0.1, 0.5)
    return out


def engine(rng: Generator, seconds: float) -> np.ndarray:
    """Firing strokes of a revving motor, and the air they drive, through a bank of resonances [T]."""
    samples, frames = int(seconds * RATE), frames_of(seconds)
    strokes = rng.uniform(25, 70) * 2 ** (0.25 * drift(rng, frames, 1.0) + rng.normal(0, 0.01, frames))
    flow, fire = pulses(strokes, samples, 0.15, 0.03)
    centres = np.geomspace(90, 16_000, 14) * rng.uniform(0.85, 1.15, 14)
    bank = (band(centres, 6.0) * (centres / 90)[:, None] ** -0.2).sum(0)
    return shaped(fire + 0.05 * flow * rng.normal(size=samples), np.broadcast_to(bank, (frames, bank.size)))


def scrape(rng: Generator, seconds: float) -> np.ndarray:
    """Metal drawn over metal: strokes of stick and slip that ring the same modes [T]."""
    samples, frames = int(seconds * RATE), frames_of(seconds)
    speed = np.clip(1.2 * drift(rng, frames, 0.5), 0.02, None)
    slips, _ = pulses(40 + rng.uniform(100, 300) * speed + rng.uniform(-20, 20, frames), samples, 0.05, 0.01)
    frequency = np.exp(rng.uniform(np.log(500), np.log(23_000), 80))
    body = modes(frequency, rng.uniform(20, 120, 80), rng.normal(size=80) * (frequency / 500) ** -0.3, 0.25)
    return fftconvolve(slips * rng.normal(size=samples) * sampled(speed, samples), body)[:samples]


# --- The corpus ---------------------------------------------------------------------------------------------

VCTK = dict.fromkeys(("p225", "p226", "p227", "p228", "p347", "p351"), 4)  # utterances; train and validation
VCTK |= dict.fromkeys(("p360", "p361", "p362", "p363"), 2)  # test
SPEAKERS = [f"s{number:02d}" for number in range(1, 9)]
MUSIC = {"guitar": guitar, "harpsichord": harpsichord, "piano": piano, "bells": bells, "drums": drums}
MUSIC |= {"ensemble": ensemble}
EFFECTS = {"weather": rain, "impacts": impacts, "birds": birds, "engines": engine, "metal": scrape}
ESC50 = [  # category, target, in ESC-10, sound
    ("rain", 10, True, rain),
    ("chirping_birds", 14, False, birds),
    ("wind", 16, False, wind),
    ("door_wood_knock", 30, False, impacts),
    ("engine", 44, False, engine),
    ("hand_saw", 49, False, scrape),
]
VOICEBANK = {  # speakers and utterances of each; p226 is for validation
    "clean_trainset_28spk_wav": (("p226", "p230", "p231", "p233", "p236"), 6),
    "clean_testset_wav": (("p232", "p257"), 4),
}
FMA = {"training": range(1, 7), "validation": range(7, 9), "test": range(9, 11)}  # artists of two tracks
MP3 = {"bitrate_mode": "CONSTANT", "compression_level": 2 / 3}  # from 320 kbit/s (0) to 32 (1): 128
BEETHOVEN = (0, 1, 2, 3, 3808, 3809, 4068, 4069)  # four clips for training, two for validation, two for test
MUSDB = {  # folder and track: who sings, and what the others are
    "train/Actions - One Minute Smile": ("p228", {"drums": drums, "bass": guitar, "other": harpsichord}),
    "train/The Demo - First Song": ("p225", {"drums": drums, "bass": guitar, "other": bells}),
    "test/The Demo - Last Song": ("p360", {"drums": drums, "bass": guitar, "other": harpsichord}),
}


class Item(NamedTuple):
    path: str  # below the root of the corpora
    sound: Callable[[Generator, float], np.ndarray]  # (rng, seconds) -> [T] or, of two channels, [T, 2]
    seconds: tuple[float, float]  # from, to
    rate: int = RATE  # Hz
    peak: tuple[float, float] = (0.3, 0.7)  # of full scale


def plan(seed: int) -> list[Item]:
    """Every file of the corpus, always in the same order: an item's place is part of its seed."""
    items = []
    for speaker, count in VCTK.items():
        folder = f"VCTK-Corpus-0.92/wav48_silence_trimmed/{speaker}"
        items += spoken(speaker, count, seed, folder, "_mic1.flac")
    for speaker in SPEAKERS:
        items += spoken(speaker, 6, seed, f"speech/{speaker}", ".flac")
    for name, play in MUSIC.items():
        items += [Item(f"music/{name}/{name}_{n}.flac", play, (5, 6)) for n in range(1, 5)]
    for name, make in EFFECTS.items():
        items += [Item(f"effects/{name}/{name}_{n}.flac", make, (2, 5)) for n in range(1, 7)]
    sounds = {category: sound for category, *_, sound in ESC50}
    items += [Item(f"ESC-50/audio/{row[0]}", sounds[row[3]], (5, 5), 44_100) for row in esc50_rows()]
    for folder, (speakers, count) in VOICEBANK.items():
        for speaker in speakers:
            items += spoken(speaker, count, seed, f"VoiceBank/{folder}", ".wav")
    plays = [play for play in MUSIC.values() if play is not piano]  # which is for Beethoven
    for number, artist, _ in fma_tracks():
        play = plays[artist % len(plays)]
        items.append(Item(f"fma_small/000/{number:06d}.mp3", play, (6, 7), 44_100))
    items += [Item(f"beethoven/{number}.wav", piano, (6, 8), 16_000) for number in BEETHOVEN]
    for folder, (singer, stems) in MUSDB.items():
        for stem, sound in {"vocals": partial(utterance, voice=Voice.of(singer, seed)), **stems}.items():
            wide = partial(panned, sound=sound)
            items.append(Item(f"musdb18hq/{folder}/{stem}.wav", wide, (6, 6), 44_100, (0.1, 0.24)))
    return items


def spoken(speaker: str, count: int, seed: int, folder: str, ending: str) -> list[Item]:
    """`count` utterances of a speaker, in files named as those of VCTK, from 001 on."""
    speak = partial(utterance, voice=Voice.of(speaker, seed))
    return [Item(f"{folder}/{speaker}_{n:03d}{ending}", speak, (2.5, 4)) for n in range(1, count + 1)]


def esc50_rows() -> list[tuple]:
    """The rows of meta/esc50.csv: a clip of each category in the folds 1 (train) and 5 (test)."""
    return [
        (f"{fold}-{clip}-A-{target}.wav", fold, target, category, esc10, clip, "A")
        for fold in (1, 5)
        for clip, (category, target, esc10, _) in enumerate(ESC50, 100_000 * fold)
    ]


def fma_tracks() -> list[tuple[int, int, str]]:
    """Number, artist and split of every track."""
    artists = [(artist, split) for split, theirs in FMA.items() for artist in theirs]
    return [(2 * artist + take, artist, split) for artist, split in artists for take in (0, 1)]


def panned(rng: Generator, seconds: float, sound: Callable[[Generator, float], np.ndarray]) -> np.ndarray:
    """A sound somewhere between left and right, of the same power wherever it is [T, 2]."""
    angle = rng.uniform(0.2, 0.8) * np.pi / 2
    return np.outer(sound(rng, seconds), [np.cos(angle), np.sin(angle)])


def render(item: Item, rng: Generator) -> np.ndarray:
    """The samples [T] or [T, 2] of one file as 16-bit integers."""
    wave = item.sound(rng, rng.uniform(*item.seconds))
    if item.rate != RATE:
        wave = resample_poly(wave, item.rate // 100, RATE // 100)
    wave *= rng.uniform(*item.peak) * 2**15 / np.abs(wave).max()
    # dither, without which the pauses would be digital silence, whose logarithm is not finite
    return np.round(wave + rng.triangular(-1, 0, 1, wave.shape)).astype(np.int16)


def write(root: Path, seed: int, index: int) -> None:
    """Draw the file at `index` of the plan and write it, whole or not at all."""
    item = plan(seed)[index]
    path = root / item.path
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(f".{os.getpid()}.part")  # the workers of a killed process may still be at it
    wave = render(item, np.random.default_rng([seed, index]))
    if path.suffix == ".mp3":
        soundfile.write(part, wave, item.rate, "MPEG_LAYER_III", format="MP3", **MP3)
    else:
        soundfile.write(part, wave, item.rate, "PCM_16", format=path.suffix[1:])
    os.replace(part, path)


def write_tables(root: Path) -> None:
    """ESC-50's meta/esc50.csv, and of FMA's tracks.csv, with its header of two levels, what tells splits."""
    columns = [("filename", "fold", "target", "category", "esc10", "src_file", "take")]
    write_table(root / "ESC-50/meta/esc50.csv", columns + esc50_rows())
    columns = [("", "artist", "set", "set"), ("", "id", "split", "subset"), ("track_id", "", "", "")]
    rows = [(*row, "small") for row in fma_tracks()]
    write_table(root / "fma_metadata/tracks.csv", columns + rows)


def write_table(path: Path, rows: list[tuple]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(",".join(map(str, row)) + "\n" for row in rows))


def write_mixtures(root: Path) -> None:
    """Of every track of MUSDB18-HQ, the sum of its stems."""
    for folder, (_, stems) in MUSDB.items():
        at = root / "musdb18hq" / folder
        waves = [soundfile.read(at / f"{stem}.wav", dtype="int16")[0] for stem in ("vocals", *stems)]
        soundfile.write(at / "mixture.wav", sum(waves), 44_100, "PCM_16")


def signs(root: Path) -> tuple[Path, Path]:
    """The file that says that `root` holds the demo corpus, and its name while the corpus is being made."""
    return root / "wideband-demo.json", root / "wideband-demo.json.part"


def is_demo(root: Path) -> bool:
    """Whether `root` holds the demo corpus, be it half made."""
    return any(sign.is_file() and MADE_BY in sign.read_text() for sign in signs(root))


def write_demo_corpus(root: Path, seed: int = 0, workers: int | None = None) -> None:
    """Make the demo corpus below `root`, unless it is there already; a half-made or another one is made anew.

    Raises FileExistsError rather than write among recordings that are not its own.
    """
    root.mkdir(parents=True, exist_ok=True)
    done, doing = signs(root)
    sign = json.dumps({"made_by": MADE_BY, "version": DEMO_VERSION, "seed": seed})
    with FileLock(root / ".wideband-demo.lock"):
        if done.is_file() and done.read_text() == sign:
            return
        theirs = [part for part in PARTS if (root / part).exists()]
        if theirs and not is_demo(root):
            raise FileExistsError(
                f"{root} has its own {', '.join(theirs)}: give the demo corpus another folder"
            )
        doing.write_text(sign)
        done.unlink(missing_ok=True)
        count = len(plan(seed))
        with ProcessPoolExecutor(workers or os.cpu_count(), multiprocessing.get_context("spawn")) as pool:
            files = pool.map(partial(write, root, seed), range(count))
            list(track(files, "making the demo corpus", count))
        for left in set(root.rglob("*.part")) - {doing}:
            left.unlink(missing_ok=True)
        write_mixtures(root)
        write_tables(root)
        os.replace(doing, done)
