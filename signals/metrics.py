"""Scores of estimates against references, one per item of a batch; padding never counts.

A metric takes the estimate, the reference and where the input's band ended (cutoff [B] in Hz, or None). It
gives scores [B] by what follows its name in a table: "" for the metric itself, "-LF" and "-HF" for a
log-spectral distance (LSD) below and above the cut-off. A score that cannot be had is nan. Every metric
raises ValueError if rates or lengths differ.

LSDs differ by STFT, logarithm, floor and order of the averages; a number means nothing without them. Where a
band of the estimate is empty they measure their floor, or the rounding of the estimate's samples. -LF has the
bins below int(F * cutoff / (rate / 2)) of F, -HF the rest (nan where there are none).
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from math import ceil
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import avg_pool1d, max_pool1d, pad
from torchmetrics.functional.audio import scale_invariant_signal_distortion_ratio

from signals.types import Signal, aligned, valid

Metric = Callable[[Signal, Signal, Tensor | None], dict[str, Tensor]]

SAMPLES_AT_ONCE = {"cpu": 2**18}  # in all frames at work: what fits a CPU's cache
ELSEWHERE = 2**24


class Frames(NamedTuple):
    """How signals are cut into frames for the Fourier transform.

    outside: what lies beyond a signal's ends. `zeros` and `mirror`: frame n is centred on sample n * hop, as
    librosa's; `whole`: the same, with zeros until every sample is in two frames, as SciPy's, but without its
    last frame where that holds zeros only (one sample more than whole hops); `none`: frames begin at the
    first sample, and what does not fill one is left out. hann: with a periodic Hann window.
    double: transformed in double precision. The rounding of single is above the floor of a metric that has
    almost none: an empty band at 48 kHz scored up to 0.5 less than by librosa, which transforms in double.
    """

    n_fft: int
    hop: int
    outside: str
    hann: bool = True
    double: bool = False


def lsd_ssr_eval(estimate: Signal, reference: Signal, cutoff: Tensor | None = None) -> dict[str, Tensor]:
    """LSD as ssr_eval, NVSR and AudioSR have it: frames of int(2048 * rate / 44100) samples every 10 ms.

    Zeros outside (as librosa >= 0.10). With R and E the magnitudes of reference and estimate, the mean over
    frames of sqrt(mean over bins of log10(R^2 / (E + 1e-12)^2 + 1e-12)^2).
    """
    frames = Frames(int(2048 * reference.rate / 44100), int(reference.rate / 100), "zeros", double=True)

    def log_ratio(E: Tensor, R: Tensor) -> Tensor:  # of powers
        return (R / (E.sqrt() + 1e-12).square() + 1e-12).log10()

    return _lsd(estimate, reference, cutoff, frames, log_ratio)


def lsd_nuwave(estimate: Signal, reference: Signal, cutoff: Tensor | None = None) -> dict[str, Tensor]:
    """LSD as NU-Wave, NU-Wave 2, AERO and AP-BWE have it: frames of 2048 every 512, mirrored outside.

    The mean over frames of the RMS over bins of the difference of log10 powers, which are at least 1e-8.
    """
    return _lsd(estimate, reference, cutoff, Frames(2048, 512, "mirror"), _clamped(1e-8))


def lsd_universr(estimate: Signal, reference: Signal, cutoff: Tensor | None = None) -> dict[str, Tensor]:
    """LSD as UniverSR has it: as `lsd_nuwave`, with frames of 1024 every 256 and powers of at least 1e-6."""
    return _lsd(estimate, reference, cutoff, Frames(1024, 256, "mirror"), _clamped(1e-6))


def lsd_kuleshov(estimate: Signal, reference: Signal, cutoff: Tensor | None = None) -> dict[str, Tensor]:
    """LSD as the code of Kuleshov et al. has it: of NATURAL logarithms, over time before bins, at most 10.

    Frames of 2048 every 512, mirrored outside (as librosa 0.8.1). The mean over bins of the RMS over frames
    of the difference of ln(power + 1e-8).
    """

    def log_ratio(E: Tensor, R: Tensor) -> Tensor:
        return ((R + 1e-8) / (E + 1e-8)).log()

    scores = _lsd(estimate, reference, cutoff, Frames(2048, 512, "mirror"), log_ratio, time_first=True)
    return {band: score.clamp(max=10) for band, score in scores.items()}


def lsd_tfnet(
    estimate: Signal, reference: Signal, cutoff: Tensor | None = None, block: int | None = 8192
) -> dict[str, Tensor]:
    """LSD as TFNet's code has it: one Fourier transform without window of each block of samples.

    The mean over blocks of the RMS over bins of the difference of log10 powers. The code has no floor; here
    powers are at least 1e-12, or an empty band would give what the hardware makes of zero. What does not fill
    a block is left out, so a signal shorter than one has no score. block: samples (None: the whole signal).
    """
    if block is None:
        return _one_by_one(lsd_tfnet, estimate, reference, cutoff)
    return _lsd(
        estimate, reference, cutoff, Frames(block, block, "none", hann=False, double=True), _clamped(1e-12)
    )


def lsd_king(estimate: Signal, reference: Signal, cutoff: Tensor | None = None) -> dict[str, Tensor]:
    """LSD as the code of AudioEDSR (King et al.) has it, with the axes of its Eq. 2 swapped.

    The mean over bins of the RMS over time of log10 of the ratio of powers, in scipy.signal.stft's default
    frames (256 samples every 128). It has no floor: digital silence gives nan or inf, as it comes.
    """

    def log_ratio(E: Tensor, R: Tensor) -> Tensor:
        return (R / E).log10()

    return _lsd(
        estimate, reference, cutoff, Frames(256, 128, "whole", double=True), log_ratio, time_first=True
    )


def lsd_eq2(estimate: Signal, reference: Signal, cutoff: Tensor | None = None) -> dict[str, Tensor]:
    """LSD as AudioEDSR's Eq. 2 prints it: the mean over frames of the RMS over bins, frames as `lsd_king`.

    The paper states no floor; here powers are at least 1e-14 (-140 dB) as SciPy scales them.
    """
    scale = 128**2  # SciPy divides by the sum of the window
    return _lsd(estimate, reference, cutoff, Frames(256, 128, "whole", double=True), _clamped(1e-14 * scale))


def snr(estimate: Signal, reference: Signal, cutoff: Tensor | None = None) -> dict[str, Tensor]:
    """Signal-to-noise ratio in dB of the sums over all samples; nan where the reference is silent."""
    estimated, referred = aligned(estimate, reference)
    return {"": _ratio(referred, referred - estimated)}


def snr_patch(
    estimate: Signal, reference: Signal, cutoff: Tensor | None = None, block: int | None = 8192
) -> dict[str, Tensor]:
    """SNR in dB as the code of Kuleshov et al. and of TFNet has it: the mean over blocks of samples.

    1e-6 is added to a block's mean squared error, which limits what a quiet block can score. What does not
    fill a block is left out, and so are blocks where the reference is silent; nan where no block is left.
    block: samples (None: the whole signal).
    """
    if block is None:
        return _one_by_one(snr_patch, estimate, reference, cutoff)
    framing = Frames(block, block, "none")
    estimated, referred = aligned(estimate, reference)
    (E, counts), (R, _) = (
        _framed(wave[:, 0].double(), reference.lengths, framing) for wave in (estimated, referred)
    )
    power, error = R.square().mean(-1), (R - E).square().mean(-1)
    counted = valid(counts, R.shape[1]) & (power > 0)
    return {"": _mean(10 * (power / (error + 1e-6)).log10(), counted)}


def snr_aligned(
    estimate: Signal, reference: Signal, cutoff: Tensor | None = None, reach: int = 64
) -> dict[str, Tensor]:
    """SNR in dB after the estimate was moved by up to `reach` samples to where it correlates best.

    Over the samples that both then have. Beside `snr` it tells a delay from an error. nan for silence.
    """
    estimated, referred = (wave[:, 0].double() for wave in aligned(estimate, reference))
    size = estimated.shape[-1]
    spectra = (torch.fft.rfft(wave, size + reach) for wave in (estimated, referred))  # silence for all lags
    E, R = spectra
    correlation = torch.fft.irfft(E * R.conj(), size + reach)
    lags = torch.arange(-reach, reach + 1, device=E.device)
    lag = lags[correlation[:, lags].argmax(1)]

    at = torch.arange(size, device=E.device) + lag[:, None]
    both = (at >= 0) & (at < reference.lengths[:, None]) & valid(reference.lengths, size)
    moved = estimated.gather(1, at.clamp(0, size - 1))
    ratio = _ratio(referred * both, (referred - moved) * both)
    return {"": ratio.where(_sounds(estimated), torch.nan)}


def si_sdr(estimate: Signal, reference: Signal, cutoff: Tensor | None = None) -> dict[str, Tensor]:
    """Scale-invariant signal-to-distortion ratio in dB; nan where either is silent: silence has no scale."""
    estimated, referred = aligned(estimate, reference)
    ratio = scale_invariant_signal_distortion_ratio(estimated.double(), referred.double())[:, 0]
    return {"": ratio.where(_sounds(referred) & _sounds(estimated), torch.nan)}


def l1(estimate: Signal, reference: Signal, cutoff: Tensor | None = None) -> dict[str, Tensor]:
    """Mean absolute error of the samples, where full scale is 1."""
    estimated, referred = aligned(estimate, reference)
    return {"": (estimated - referred).abs().sum((1, 2)) / reference.lengths}


def mse(estimate: Signal, reference: Signal, cutoff: Tensor | None = None) -> dict[str, Tensor]:
    """Mean squared error of the samples, where full scale is 1."""
    estimated, referred = aligned(estimate, reference)
    return {"": (estimated - referred).square().sum((1, 2)) / reference.lengths}


def l1_aligned(estimate: Signal, reference: Signal, cutoff: Tensor | None = None) -> dict[str, Tensor]:
    """`l1` of the estimate or of its negative, whichever is less: losses of magnitudes know no sign."""
    return _either_sign(l1, estimate, reference)


def mse_aligned(estimate: Signal, reference: Signal, cutoff: Tensor | None = None) -> dict[str, Tensor]:
    """`mse` of the estimate or of its negative, whichever is less."""
    return _either_sign(mse, estimate, reference)


def _either_sign(metric: Metric, estimate: Signal, reference: Signal) -> dict[str, Tensor]:
    flipped = estimate._replace(wave=-estimate.wave)
    return {"": torch.minimum(metric(estimate, reference)[""], metric(flipped, reference)[""])}


def polarity(estimate: Signal, reference: Signal, cutoff: Tensor | None = None) -> dict[str, Tensor]:
    """1 where the estimate correlates negatively with the reference, else 0; nan where either is silent.

    The mean of it is the share of recordings that came out flipped.
    """
    estimated, referred = aligned(estimate, reference)
    flipped = (estimated.double() * referred).sum((1, 2)) < 0
    return {"": flipped.double().where(_sounds(estimated) & _sounds(referred), torch.nan)}


HALVES = ("-flipped", "-upright")  # of recordings: a score that each has for its half only


def by_polarity(metric: Metric) -> Metric:
    """`metric`, and again `-flipped` where the estimate correlates negatively with the reference, `-upright`
    where it does not; each is nan for the others.
    """

    def scores(estimate: Signal, reference: Signal, cutoff: Tensor | None = None) -> dict[str, Tensor]:
        values, flipped = metric(estimate, reference)[""], polarity(estimate, reference)[""]
        upright = values.where(flipped == 0, torch.nan)
        return {"": values, "-flipped": values.where(flipped == 1, torch.nan), "-upright": upright}

    return scores


def mr_stft(
    estimate: Signal,
    reference: Signal,
    cutoff: Tensor | None = None,
    resolutions: Sequence[tuple[int, int]] = ((1024, 120), (2048, 240), (512, 50)),
) -> dict[str, Tensor]:
    """Multi-resolution STFT distance as Cukaj and Corsi test with: spectral convergence and magnitudes.

    The mean over resolutions (frame and hop in samples, Hann, mirrored outside) of
    ||R - E|| / ||R|| + mean |R - E|, with linear magnitudes R and E. Per item, where their code takes the
    norms over a batch. nan where the reference is silent.
    """
    distances = [_stft_distance(estimate, reference, Frames(*sizes, "mirror")) for sizes in resolutions]
    return {"": torch.stack(distances).mean(0)}


def _stft_distance(estimate: Signal, reference: Signal, frames: Frames) -> Tensor:
    """Spectral convergence plus mean difference of magnitudes [B] (Yamamoto et al. 2020, eq. 6 and 7)."""
    error = norm = difference = 0
    for E, R, counted in _powers(estimate, reference, frames):
        distance = (R.sqrt() - E.sqrt()) * counted[..., None]
        error = error + distance.square().sum((1, 2))
        norm = norm + (R * counted[..., None]).sum((1, 2))
        difference = difference + distance.abs().sum((1, 2))
    bins = frames.n_fft // 2 + 1
    convergence = (error / norm).sqrt().where(norm > 0, torch.nan)
    return convergence + difference / (bins * _counts(reference.lengths, frames))


def seam(
    estimate: Signal, reference: Signal, cutoff: Tensor | None = None, width: float = 500.0
) -> dict[str, Tensor]:
    """How far the step in level at the cut-off is from the reference's, in dB.

    The step is the mean power of the bins up to `width` Hz above the cut-off over that of the bins up to
    `width` Hz below it, each plus 1e-8, in frames of 2048 samples every 512. The two bins next to the cut-off
    on either side are left out: the window spreads the louder band into them. nan for silence, and where
    there is no cut-off below half the rate.
    """
    frames = Frames(2048, 512, "mirror")
    if cutoff is None:
        aligned(estimate, reference)
        return {"": torch.full((len(reference.wave),), torch.nan, device=reference.wave.device)}
    spacing = reference.rate / 2048
    above = torch.arange(1025, device=cutoff.device) * spacing - cutoff.double()[:, None]
    bands = [(side * above > 2 * spacing) & (side * above <= width) for side in (1, -1)]
    sums = [0, 0]
    for *powers, counted in _powers(estimate, reference, frames):
        sums = [sum_ + (power * counted[..., None]).sum(1) for sum_, power in zip(sums, powers, strict=True)]
    counts = _counts(reference.lengths, frames)[:, None]
    steps = []
    for total in sums:
        over, under = (_mean((total / counts).double(), band) + 1e-8 for band in bands)
        steps.append(10 * (over / under).log10())
    sounds = torch.stack([total.sum(1) > 0 for total in sums]).all(0)
    return {"": (steps[0] - steps[1]).abs().where(sounds & (cutoff < reference.rate / 2), torch.nan)}


def block_seam(
    estimate: Signal, reference: Signal, cutoff: Tensor | None = None, block: int = 8192
) -> dict[str, Tensor]:
    """How much larger the jumps of the error are at the borders of blocks than around them, in dB.

    With the error e = estimate - reference, its jumps d[n] = e[n] - e[n - 1] and D = 10 log10(d^2 + 1e-12),
    it is the mean over n = block, 2 block, ... of D[n] minus the mean of D within SEAM_AROUND samples of n.
    (Of logarithms and of neighbours, since jumps are heavy-tailed and follow the sound.) 0 dB: blocks that
    were made one by one join as if they were one. nan where there is no border or no error. block: samples.
    A recording has few borders, so a single score is rough, by some dB.
    """
    estimated, referred = (wave[:, 0].double() for wave in aligned(estimate, reference))
    error = estimated - referred
    inside = valid(reference.lengths - 1, error.shape[-1] - 1)
    jumps = 10 * (error.diff().square() + 1e-12).log10() * inside  # of n = 1, 2, ...
    around = (_around(jumps) - jumps) / (_around(inside.double()) - 1).clamp(min=1)
    borders = torch.arange(1, error.shape[-1], device=error.device) % block == 0
    return {"": _mean(jumps - around, inside & borders).where(_sounds(error), torch.nan)}


SEAM_AROUND = 128  # samples


def _around(values: Tensor) -> Tensor:
    """Sums of `values` [B, T] from SEAM_AROUND before to as many after each [B, T]."""
    size = 2 * SEAM_AROUND + 1
    return size * avg_pool1d(values[:, None], size, 1, SEAM_AROUND)[:, 0]


CLICK_WINDOW = 10.0  # ms: how long a moment is, of which a usual bend is taken
CLICK_USUAL = 0.9  # the quantile of a moment's bends that is usual
CLICK_OUTLIER = 8.0  # times the usual bend; of normal noise, 13 standard deviations
CLICK_LEAST = 0.005  # times the estimate's RMS: the least that is usual, in pauses
CLICK_NEW = 2.0  # times the reference's largest bend nearby
CLICK_NEAR = 1.0  # ms: what is nearby


def clicks(estimate: Signal, reference: Signal, cutoff: Tensor | None = None) -> dict[str, Tensor]:
    """Pops per second that the reference does not have.

    They are found as in restoration (Godsill and Rayner 1998, chapter 5): as outliers of a residual, against
    a robust scale of the moment. The residual is the bend |x[n - 1] - 2 x[n] + x[n + 1]|, where impulses and
    steps stand out. Its scale is the 0.9 quantile of the bends in windows of 10 ms: the largest of the window
    about n and of the two beside it (so an onset is no outlier), and at least 0.005 of the estimate's RMS.
    A sample clicks where the estimate's bend is more than 8 times that scale, and more than twice any bend
    that the reference, brought to the estimate's RMS, has within 1 ms. Clicks up to 2 ms apart are one.
    Neither a gain nor a low-pass makes clicks, and what the recording masks does not count; a delay of more
    than 1 ms does make the recording's own clicks new. nan where the estimate is not finite.
    """
    waves = [wave[:, 0] for wave in aligned(estimate, reference)]
    size, rate = waves[0].shape[-1], reference.rate
    near, window = round(CLICK_NEAR / 1000 * rate), round(CLICK_WINDOW / 1000 * rate)
    inside = valid(reference.lengths - 1, size)  # samples with a neighbour on either side
    bend, bend_ref = (pad(wave.diff(n=2).abs(), (1, 1)) * inside for wave in waves)
    rms, rms_ref = ((wave.square().sum(-1) / reference.lengths).sqrt() for wave in waves)

    framed, counts = _framed(bend, reference.lengths, Frames(window, window, "mirror"))
    usual = framed.kthvalue(ceil(CLICK_USUAL * window), dim=-1).values  # of window n, about n * window
    usual = _widest(pad(usual * valid(counts, usual.shape[-1]), (0, 1)), 1)
    nearest = (torch.arange(size, device=bend.device) + window // 2) // window
    scale = torch.maximum(usual, CLICK_LEAST * rms[:, None])[:, nearest]

    gain = rms / rms_ref.clamp(min=torch.finfo(rms.dtype).eps)
    known = gain[:, None] * _widest(bend_ref, near)
    clicking = (bend > CLICK_OUTLIER * scale) & (bend > CLICK_NEW * known)
    starts = pad(_widest(clicking.to(bend), near), (1, 0)).diff() > 0
    return {"": (starts.sum(1) * rate / reference.lengths).where(rms.isfinite(), torch.nan)}


def _widest(values: Tensor, reach: int) -> Tensor:
    """The largest of `values` [B, T] from `reach` before to `reach` after each [B, T]."""
    return max_pool1d(values[:, None], 2 * reach + 1, 1, reach)[:, 0]


def tones(
    estimate: Signal, reference: Signal, cutoff: Tensor | None = None, period: int = 32
) -> dict[str, Tensor]:
    """Level of the loudest tone that repeats every `period` samples, in dB of a full-scale sine.

    Upsampling by shuffles leaves such tones, of period 2^n after n shuffles by 2; they are heard where the
    input is empty (King et al. 2021, Figure 5). The median over frames of 1024 samples every 512 (a tone is
    there all the time, what networks do at their ends is not) of the power at the multiples of rate / period
    above 0, half the rate included; at least -240 dB. The reference is not looked at.
    """
    framing = Frames(1024, 512, "mirror", double=True)
    at = torch.arange(1024 // period, 513, 1024 // period, device=estimate.wave.device)
    powers = [
        power[..., at].where(counted[..., None], torch.nan)
        for power, _, counted in _powers(estimate, reference, framing)
    ]
    median = torch.cat(powers, dim=1).nanmedian(dim=1).values
    # Of amplitude 1 under a Hann window; at half the rate a tone is its own mirror image.
    full_scale = torch.where(at < 512, 1024 / 4, 1024 / 2).square()
    return {"": 10 * (median / full_scale).amax(1).clamp(min=1e-24).log10()}


def _perceptual(name: str) -> Metric:
    """A metric of `signals.perceptual`, whose packages are only needed by who scores with them."""

    def metric(estimate: Signal, reference: Signal, cutoff: Tensor | None = None) -> dict[str, Tensor]:
        from signals import perceptual

        return getattr(perceptual, name)(estimate, reference, cutoff)

    return metric


METRICS: dict[str, Metric] = {
    "lsd_ssr_eval": lsd_ssr_eval,
    "lsd_nuwave": lsd_nuwave,
    "lsd_universr": lsd_universr,
    "lsd_kuleshov": lsd_kuleshov,
    "lsd_tfnet": lsd_tfnet,
    "lsd_king": lsd_king,
    "lsd_eq2": lsd_eq2,
    "snr": snr,
    "snr_patch": snr_patch,
    "snr_aligned": snr_aligned,
    "si_sdr": si_sdr,
    "l1": l1,
    "mse": mse,
    "l1_aligned": l1_aligned,
    "mse_aligned": mse_aligned,
    "l1_by_polarity": by_polarity(l1),
    "mse_by_polarity": by_polarity(mse),
    "flipped": polarity,
    "mr_stft": mr_stft,
    "seam": seam,
    **{f"block_seam_{block}": partial(block_seam, block=block) for block in (8192, 57344, 65536)},
    "clicks": clicks,
    "tones": tones,
    **{name: _perceptual(name) for name in ("pesq_wb", "pesq_nb", "stoi", "visqol", "nisqa")},
}


def _clamped(floor: float) -> Callable[[Tensor, Tensor], Tensor]:
    """log10 of the ratio of two powers that are at least `floor`."""
    return lambda E, R: (R.clamp(min=floor) / E.clamp(min=floor)).log10()


def _lsd(
    estimate: Signal,
    reference: Signal,
    cutoff: Tensor | None,
    frames: Frames,
    log_ratio: Callable[[Tensor, Tensor], Tensor],
    time_first: bool = False,
) -> dict[str, Tensor]:
    """The mean over frames of the RMS over bins of `log_ratio` of the powers, or with the axes swapped."""
    bins = torch.arange(frames.n_fft // 2 + 1, device=reference.wave.device)
    bands = {"": torch.ones_like(bins, dtype=torch.bool)[None]}
    if cutoff is not None:
        edge = (len(bins) * cutoff.double() / (reference.rate / 2)).long()[:, None]
        bands |= {"-LF": bins < edge, "-HF": bins >= edge}

    sums = dict.fromkeys(bands, 0)  # over frames, of what is below the root
    for E, R, counted in _powers(estimate, reference, frames):
        squared = log_ratio(E, R).square()
        for name, band in bands.items():
            if time_first:
                sums[name] = sums[name] + squared.where(counted[..., None], 0).sum(1)
            else:
                rms = _mean(squared, band[:, None]).sqrt()
                sums[name] = sums[name] + rms.where(counted, 0).sum(1)
    counts = _counts(reference.lengths, frames)
    if time_first:
        return {name: _mean((sums[name] / counts[:, None]).sqrt(), band) for name, band in bands.items()}
    return {name: total / counts for name, total in sums.items()}


def _powers(estimate: Signal, reference: Signal, frames: Frames) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Power spectra of both [B, n, F] and which of the n frames count [B, n], a few frames at a time.

    What is made of a frame is much larger than the signal: so it stays in the cache, and memory is bounded.
    """
    waves = torch.cat(aligned(estimate, reference))[:, 0]
    framed, counts = _framed(waves, reference.lengths.repeat(2), frames)
    window = torch.hann_window(frames.n_fft, dtype=torch.float64) if frames.hann else torch.ones(frames.n_fft)
    window = window.to(waves.device, torch.float64 if frames.double else waves.dtype)
    at_once = max(1, SAMPLES_AT_ONCE.get(waves.device.type, ELSEWHERE) // (len(waves) * frames.n_fft))
    for first in range(0, framed.shape[1], at_once):
        spectrum = torch.fft.rfft(framed[:, first : first + at_once] * window)
        squares = torch.view_as_real(spectrum).square()  # much faster than real and imaginary parts apart
        power = (squares[..., 0] + squares[..., 1]).to(waves.dtype)
        counted = valid(counts - first, power.shape[1])
        yield *power.chunk(2), counted.chunk(2)[0]


def _framed(wave: Tensor, lengths: Tensor, frames: Frames) -> tuple[Tensor, Tensor]:
    """[B, T] -> its frames [B, N, n_fft], a view, and how many of them each item has [B]."""
    margin = frames.n_fft // 2
    if frames.outside == "mirror":
        wave = _mirrored(wave, lengths, margin)
    elif frames.outside == "none":
        wave = pad(wave, (0, frames.n_fft))
    else:
        wave = pad(wave, (margin, margin + frames.hop))
    counts = _counts(lengths, frames)
    return wave.unfold(-1, frames.n_fft, frames.hop)[:, : int(counts.max())], counts


def _counts(lengths: Tensor, frames: Frames) -> Tensor:
    """[B] how many frames signals of `lengths` [B] have."""
    if frames.outside == "none":
        return (lengths - frames.n_fft) // frames.hop + 1
    if frames.outside == "whole":
        return 1 - (1 - lengths) // frames.hop
    return 1 + (lengths - frames.n_fft % 2) // frames.hop


def _mirrored(wave: Tensor, lengths: Tensor, margin: int) -> Tensor:
    """[B, T] -> [B, margin + T + margin]: each item goes on as its own mirror image, before and after it."""
    last = lengths[:, None] - 1
    at = torch.arange(-margin, wave.shape[-1] + margin, device=wave.device) % (2 * last).clamp(min=1)
    return wave.gather(1, (last - (last - at).abs()))


def _mean(values: Tensor, counted: Tensor) -> Tensor:
    """The mean of `values` over the last axis where `counted`, which broadcasts; nan where nothing counts."""
    if counted.all():
        return values.mean(-1)
    return values.where(counted, 0).sum(-1) / counted.sum(-1)


def _one_by_one(
    metric: Callable, estimate: Signal, reference: Signal, cutoff: Tensor | None
) -> dict[str, Tensor]:
    """`metric` with each item whole as its block: transforms of so many lengths are no batch."""
    waves, scores = aligned(estimate, reference), []
    for row, length in enumerate(reference.lengths.tolist()):
        pair = (Signal.of(wave[row : row + 1, :, :length], reference.rate) for wave in waves)
        scores.append(metric(*pair, None if cutoff is None else cutoff[row : row + 1], block=length))
    return {name: torch.cat([score[name] for score in scores]) for name in scores[0]}


def _ratio(signal: Tensor, error: Tensor) -> Tensor:
    """[B] dB of energies, summed in double precision; nan where `signal` [B, ..., T] is silent."""
    least = torch.finfo(torch.float64).eps  # as torchmetrics has it: no error is finite
    S, N = (wave.flatten(1).square().sum(-1, dtype=torch.float64) for wave in (signal, error))
    return (10 * ((S + least) / (N + least)).log10()).where(S > 0, torch.nan)


def _sounds(wave: Tensor) -> Tensor:
    """[B] whether there is anything but zeros in `wave` [B, ..., T]."""
    return wave.flatten(1).abs().amax(1) > 0
