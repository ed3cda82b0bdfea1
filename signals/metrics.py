"""Scores of estimates against references, one per item of a batch; padding never counts.

A metric takes the estimate, the reference and where the input's band ended (cutoff [B] in Hz, or None). It
gives scores [B] by what follows its name in a table: "" for the metric itself, "-LF" and "-HF" for a
log-spectral distance (LSD) below and above the cut-off. A score that cannot be had is nan. Every metric
raises ValueError if rates or lengths differ.

Those marked `by_stretches` take Recordings, too: a long one is never in memory as a whole. Others need the
whole, as does one of your own that is not marked.

LSDs differ by STFT, logarithm, floor and order of the averages; a number means nothing without them. Where a
band of the estimate is empty they measure their floor, or the rounding of the estimate's samples. -LF has the
bins below int(F * cutoff / (rate / 2)) of F, -HF the rest (nan where there are none).
"""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from signals.artefacts import block_seam, clicks, seam, tones
from signals.frames import Frames, counts_of, frames_of, mean_of, powers_of, sounds
from signals.stretches import (
    Sound,
    alike,
    by_stretches,
    correlation,
    resampled,
    side_by_side,
    summed_in,
    takes_stretches,
)
from signals.types import Recording, Signal, aligned

Metric = Callable[[Sound, Sound, Tensor | None], dict[str, Tensor]]


@by_stretches
def lsd_ssr_eval(estimate: Sound, reference: Sound, cutoff: Tensor | None = None) -> dict[str, Tensor]:
    """LSD as ssr_eval, NVSR and AudioSR have it: frames of int(2048 * rate / 44100) samples every 10 ms.

    Zeros outside (as librosa >= 0.10). With R and E the magnitudes of reference and estimate, the mean over
    frames of sqrt(mean over bins of log10(R^2 / (E + 1e-12)^2 + 1e-12)^2).
    """
    frames = Frames(int(2048 * reference.rate / 44100), int(reference.rate / 100), "zeros", double=True)

    def log_ratio(E: Tensor, R: Tensor) -> Tensor:  # of powers
        return (R / (E.sqrt() + 1e-12).square() + 1e-12).log10()

    return _lsd(estimate, reference, cutoff, frames, log_ratio)


@by_stretches
def lsd_ssr_eval_44100(estimate: Sound, reference: Sound, cutoff: Tensor | None = None) -> dict[str, Tensor]:
    """`lsd_ssr_eval` of both signals brought to 44.1 kHz, where NVSR works, and ssr_eval's own table is.

    (At 48 kHz, what such a system leaves empty above 22.05 kHz counts.)
    """

    return lsd_ssr_eval(*(resampled(sound, 44100) for sound in alike(estimate, reference)), cutoff)


@by_stretches
def lsd_nuwave(estimate: Sound, reference: Sound, cutoff: Tensor | None = None) -> dict[str, Tensor]:
    """LSD as NU-Wave, NU-Wave 2, AERO and AP-BWE have it: frames of 2048 every 512, mirrored outside.

    The mean over frames of the RMS over bins of the difference of log10 powers, which are at least 1e-8.
    """
    return _lsd(estimate, reference, cutoff, Frames(2048, 512, "mirror"), _clamped(1e-8))


@by_stretches
def lsd_universr(estimate: Sound, reference: Sound, cutoff: Tensor | None = None) -> dict[str, Tensor]:
    """LSD as UniverSR has it: as `lsd_nuwave`, with frames of 1024 every 256 and powers of at least 1e-6."""
    return _lsd(estimate, reference, cutoff, Frames(1024, 256, "mirror"), _clamped(1e-6))


@by_stretches
def lsd_kuleshov(estimate: Sound, reference: Sound, cutoff: Tensor | None = None) -> dict[str, Tensor]:
    """LSD as the code of Kuleshov et al. has it: of NATURAL logarithms, over time before bins, at most 10.

    Frames of 2048 every 512, mirrored outside (as librosa 0.8.1). The mean over bins of the RMS over frames
    of the difference of ln(power + 1e-8).
    """

    def log_ratio(E: Tensor, R: Tensor) -> Tensor:
        return ((R + 1e-8) / (E + 1e-8)).log()

    scores = _lsd(estimate, reference, cutoff, Frames(2048, 512, "mirror"), log_ratio, time_first=True)
    return {band: score.clamp(max=10) for band, score in scores.items()}


@by_stretches
def lsd_tfnet(
    estimate: Sound, reference: Sound, cutoff: Tensor | None = None, block: int | None = 8192
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


@by_stretches
def lsd_king(estimate: Sound, reference: Sound, cutoff: Tensor | None = None) -> dict[str, Tensor]:
    """LSD as the code of AudioEDSR (King et al.) has it, with the axes of its Eq. 2 swapped.

    The mean over bins of the RMS over time of log10 of the ratio of powers, in scipy.signal.stft's default
    frames (256 samples every 128). It has no floor: digital silence gives nan or inf, as it comes.
    """

    def log_ratio(E: Tensor, R: Tensor) -> Tensor:
        return (R / E).log10()

    return _lsd(
        estimate, reference, cutoff, Frames(256, 128, "whole", double=True), log_ratio, time_first=True
    )


@by_stretches
def lsd_eq2(estimate: Sound, reference: Sound, cutoff: Tensor | None = None) -> dict[str, Tensor]:
    """LSD as AudioEDSR's Eq. 2 prints it: the mean over frames of the RMS over bins, frames as `lsd_king`.

    The paper states no floor; here powers are at least 1e-14 (-140 dB) as SciPy scales them.
    """
    scale = 128**2  # SciPy divides by the sum of the window
    return _lsd(estimate, reference, cutoff, Frames(256, 128, "whole", double=True), _clamped(1e-14 * scale))


@by_stretches
def snr(estimate: Sound, reference: Sound, cutoff: Tensor | None = None) -> dict[str, Tensor]:
    """Signal-to-noise ratio in dB of the sums over all samples; nan where the reference is silent."""
    signal = error = 0
    for _, E, R in side_by_side(estimate, reference):
        signal, error = signal + _energy(R), error + _energy(R - E)
    return {"": _ratio(signal, error)}


@by_stretches
def snr_patch(
    estimate: Sound, reference: Sound, cutoff: Tensor | None = None, block: int | None = 8192
) -> dict[str, Tensor]:
    """SNR in dB as the code of Kuleshov et al. and of TFNet has it: the mean over blocks of samples.

    1e-6 is added to a block's mean squared error, which limits what a quiet block can score. What does not
    fill a block is left out, and so are blocks where the reference is silent; nan where no block is left.
    block: samples (None: the whole signal).
    """
    if block is None:
        return _one_by_one(snr_patch, estimate, reference, cutoff)
    nothing = reference.lengths.new_zeros(len(reference.lengths), 0)
    ratios, counts = [nothing.double()], [nothing.bool()]  # of blocks
    for framed, counted in frames_of(alike(estimate, reference), Frames(block, block, "none")):
        E, R = framed.double().chunk(2)
        power, error = R.square().mean(-1), (R - E).square().mean(-1)
        ratios.append(10 * (power / (error + 1e-6)).log10())
        counts.append(counted & (power > 0))
    return {"": mean_of(torch.cat(ratios, 1), torch.cat(counts, 1))}


@by_stretches
def snr_aligned(
    estimate: Sound, reference: Sound, cutoff: Tensor | None = None, reach: int = 64
) -> dict[str, Tensor]:
    """SNR in dB after the estimate was moved by up to `reach` samples to where it correlates best.

    Over the samples that both then have. Beside `snr` it tells a delay from an error. nan for silence.
    """
    lag = _best_lag(estimate, reference, reach)[:, None]
    signal = error = 0
    heard = False
    for first, E, R in side_by_side(estimate, reference, reach):
        E, R = E.double(), R[:, reach : R.shape[1] - reach].double()
        n = torch.arange(R.shape[1], device=R.device)
        at, length = first + n + lag, reference.lengths[:, None]
        both = (at >= 0) & (at < length) & (first + n < length)
        moved = E.gather(1, n + lag + reach)
        signal, error = signal + _energy(R * both), error + _energy((R - moved) * both)
        heard = heard | sounds(E)
    return {"": _ratio(signal, error).where(heard, torch.nan)}


def _best_lag(estimate: Sound, reference: Sound, reach: int) -> Tensor:
    """[B] samples by which the estimate is late, within +-`reach`: the peak of the cross-correlation."""
    if isinstance(reference, Recording):
        return correlation(estimate, reference, reach).argmax(1) - reach
    estimated, referred = (wave[:, 0].double() for wave in aligned(estimate, reference))
    size = estimated.shape[-1]
    spectra = (torch.fft.rfft(wave, size + reach) for wave in (estimated, referred))  # silence for all lags
    E, R = spectra
    lags = torch.arange(-reach, reach + 1, device=E.device)
    return lags[torch.fft.irfft(E * R.conj(), size + reach)[:, lags].argmax(1)]


@by_stretches
def si_sdr(estimate: Sound, reference: Sound, cutoff: Tensor | None = None) -> dict[str, Tensor]:
    """Scale-invariant signal-to-distortion ratio in dB; nan where either is silent: silence has no scale."""
    least = torch.finfo(torch.float64).eps  # as torchmetrics has it
    product = power = 0
    for _, E, R in side_by_side(estimate, reference):
        product = product + (E.double() * R.double()).sum(-1)
        power = power + _energy(R.double())
    scale = ((product + least) / (power + least))[:, None]
    target = noise = 0
    heard = [False, False]
    for _, E, R in side_by_side(estimate, reference):
        scaled = scale * R.double()
        target, noise = target + _energy(scaled), noise + _energy(scaled - E.double())
        heard = [before | sounds(wave) for before, wave in zip(heard, (E, R), strict=True)]
    ratio = 10 * ((target + least) / (noise + least)).log10()
    return {"": ratio.where(heard[0] & heard[1], torch.nan)}


@by_stretches
def l1(estimate: Sound, reference: Sound, cutoff: Tensor | None = None) -> dict[str, Tensor]:
    """Mean absolute error of the samples, where full scale is 1."""
    errors = ((E - R).abs() for _, E, R in side_by_side(estimate, reference))
    return {"": sum(error.sum(1, dtype=summed_in(reference)) for error in errors) / reference.lengths}


@by_stretches
def mse(estimate: Sound, reference: Sound, cutoff: Tensor | None = None) -> dict[str, Tensor]:
    """Mean squared error of the samples, where full scale is 1."""
    errors = ((E - R).square() for _, E, R in side_by_side(estimate, reference))
    return {"": sum(error.sum(1, dtype=summed_in(reference)) for error in errors) / reference.lengths}


@by_stretches
def l1_aligned(estimate: Sound, reference: Sound, cutoff: Tensor | None = None) -> dict[str, Tensor]:
    """`l1` of the estimate or of its negative, whichever is less: losses of magnitudes know no sign."""
    return _either_sign(l1, estimate, reference)


@by_stretches
def mse_aligned(estimate: Sound, reference: Sound, cutoff: Tensor | None = None) -> dict[str, Tensor]:
    """`mse` of the estimate or of its negative, whichever is less."""
    return _either_sign(mse, estimate, reference)


def _either_sign(metric: Metric, estimate: Sound, reference: Sound) -> dict[str, Tensor]:
    flipped = estimate.mapped(torch.neg)
    return {"": torch.minimum(metric(estimate, reference)[""], metric(flipped, reference)[""])}


@by_stretches
def polarity(estimate: Sound, reference: Sound, cutoff: Tensor | None = None) -> dict[str, Tensor]:
    """1 where the estimate correlates negatively with the reference, else 0; nan where either is silent.

    The mean of it is the share of recordings that came out flipped.
    """
    product = 0
    heard = [False, False]
    for _, E, R in side_by_side(estimate, reference):
        product = product + (E.double() * R).sum(1)
        heard = [before | sounds(wave) for before, wave in zip(heard, (E, R), strict=True)]
    return {"": (product < 0).double().where(heard[0] & heard[1], torch.nan)}


HALVES = ("-flipped", "-upright")  # of recordings: a score that each has for its half only


def by_polarity(metric: Metric) -> Metric:
    """`metric`, and again `-flipped` where the estimate correlates negatively with the reference, `-upright`
    where it does not; each is nan for the others.
    """

    def scores(estimate: Sound, reference: Sound, cutoff: Tensor | None = None) -> dict[str, Tensor]:
        values, flipped = metric(estimate, reference)[""], polarity(estimate, reference)[""]
        upright = values.where(flipped == 0, torch.nan)
        return {"": values, "-flipped": values.where(flipped == 1, torch.nan), "-upright": upright}

    return by_stretches(scores) if takes_stretches(metric) else scores


@by_stretches
def mr_stft(
    estimate: Sound,
    reference: Sound,
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


def _stft_distance(estimate: Sound, reference: Sound, frames: Frames) -> Tensor:
    """Spectral convergence plus mean difference of magnitudes [B] (Yamamoto et al. 2020, eq. 6 and 7)."""
    dtype, error, norm, difference = summed_in(reference), 0, 0, 0
    for E, R, counted in powers_of(estimate, reference, frames):
        distance = (R.sqrt() - E.sqrt()) * counted[..., None]
        error = error + distance.square().sum((1, 2), dtype=dtype)
        norm = norm + (R * counted[..., None]).sum((1, 2), dtype=dtype)
        difference = difference + distance.abs().sum((1, 2), dtype=dtype)
    bins = frames.n_fft // 2 + 1
    convergence = (error / norm).sqrt().where(norm > 0, torch.nan)
    return convergence + difference / (bins * counts_of(reference.lengths, frames))


def _perceptual(name: str) -> Metric:
    """A metric of `signals.perceptual`, whose packages are only needed by who scores with them."""

    def metric(estimate: Signal, reference: Signal, cutoff: Tensor | None = None) -> dict[str, Tensor]:
        from signals import perceptual

        return getattr(perceptual, name)(estimate, reference, cutoff)

    return metric


METRICS: dict[str, Metric] = {
    "lsd_ssr_eval": lsd_ssr_eval,
    "lsd_ssr_eval_44100": lsd_ssr_eval_44100,
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
    estimate: Sound,
    reference: Sound,
    cutoff: Tensor | None,
    frames: Frames,
    log_ratio: Callable[[Tensor, Tensor], Tensor],
    time_first: bool = False,
) -> dict[str, Tensor]:
    """The mean over frames of the RMS over bins of `log_ratio` of the powers, or with the axes swapped."""
    bins = torch.arange(frames.n_fft // 2 + 1, device=reference.lengths.device)
    bands = {"": torch.ones_like(bins, dtype=torch.bool)[None]}
    if cutoff is not None:
        edge = (len(bins) * cutoff.double() / (reference.rate / 2)).long()[:, None]
        bands |= {"-LF": bins < edge, "-HF": bins >= edge}

    dtype = summed_in(reference)
    sums = dict.fromkeys(bands, 0)  # over frames, of what is below the root
    for E, R, counted in powers_of(estimate, reference, frames):
        squared = log_ratio(E, R).square()
        for name, band in bands.items():
            if time_first:
                sums[name] = sums[name] + squared.where(counted[..., None], 0).sum(1, dtype=dtype)
            else:
                rms = mean_of(squared, band[:, None]).sqrt()
                sums[name] = sums[name] + rms.where(counted, 0).sum(1, dtype=dtype)
    counts = counts_of(reference.lengths, frames)
    if time_first:
        return {name: mean_of((sums[name] / counts[:, None]).sqrt(), band) for name, band in bands.items()}
    return {name: total / counts for name, total in sums.items()}


def _one_by_one(
    metric: Callable, estimate: Signal, reference: Signal, cutoff: Tensor | None
) -> dict[str, Tensor]:
    """`metric` with each item whole as its block: transforms of so many lengths are no batch."""
    waves, scores = aligned(estimate, reference), []
    for row, length in enumerate(reference.lengths.tolist()):
        pair = (Signal.of(wave[row : row + 1, :, :length], reference.rate) for wave in waves)
        scores.append(metric(*pair, None if cutoff is None else cutoff[row : row + 1], block=length))
    return {name: torch.cat([score[name] for score in scores]) for name in scores[0]}


def _energy(wave: Tensor) -> Tensor:
    """[B] sums of the squares of [B, T], in double precision."""
    return wave.square().sum(-1, dtype=torch.float64)


def _ratio(signal: Tensor, error: Tensor) -> Tensor:
    """[B] dB of energies [B]; nan where `signal` is silent."""
    least = torch.finfo(torch.float64).eps  # as torchmetrics has it: no error is finite
    return (10 * ((signal + least) / (error + least)).log10()).where(signal > 0, torch.nan)
