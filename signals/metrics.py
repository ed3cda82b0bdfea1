"""Scores of estimates against references, one per item of a batch; padding never counts."""

from collections.abc import Callable

import torch
from torch import Tensor
from torchmetrics.functional.audio import (
    scale_invariant_signal_distortion_ratio,
    signal_noise_ratio,
)

from signals.spectra import stft
from signals.types import Signal, silence_padding, valid


def lsd(estimate: Signal, reference: Signal, cutoff: Tensor | None = None) -> dict[str, Tensor]:
    """Log-spectral distance [B] as ssr_eval defines it; lower is better.

    Hann STFT of int(2048 * rate / 44100) samples, hop 10 ms, zeros outside (as librosa >= 0.10). With R and E
    the magnitudes of reference and estimate, it is the mean over frames of
    sqrt(mean over bins of log10(R^2 / (E + 1e-12)^2 + 1e-12)^2).

    cutoff: [B] Hz. With it also "LSD-LF", over the bins below int(F * cutoff / (rate / 2)), and "LSD-HF",
    over the rest (nan where there are none).

    Raises ValueError if rates or lengths differ.
    """
    estimated, referred = _aligned(estimate, reference)
    rate, lengths = reference.rate, reference.lengths
    n_fft, hop = int(2048 * rate / 44100), int(rate / 100)
    R, E = (stft(wave, n_fft, hop).abs() for wave in (referred, estimated))
    distance = torch.log10(R**2 / (E + 1e-12) ** 2 + 1e-12).square()
    frames = valid(1 + (lengths - n_fft % 2) // hop, R.shape[-1])

    def mean(bins: Tensor) -> Tensor:  # [B or 1, F] mask
        per_frame = (distance * bins[..., None]).sum(1) / bins.sum(-1, keepdim=True)
        return (per_frame.sqrt() * frames).sum(-1) / frames.sum(-1)

    bins = torch.arange(R.shape[1], device=R.device)[None]
    scores = {"LSD": mean(bins >= 0)}
    if cutoff is not None:
        edge = (R.shape[1] * cutoff.double() / (rate / 2)).long()[:, None]
        scores |= {"LSD-LF": mean(bins < edge), "LSD-HF": mean(bins >= edge)}
    return scores


def snr(estimate: Signal, reference: Signal, cutoff: Tensor | None = None) -> dict[str, Tensor]:
    """Signal-to-noise ratio [B] in dB, nan where the reference is silent. Raises ValueError as `lsd` does."""
    estimated, referred = _aligned(estimate, reference)
    ratio = signal_noise_ratio(estimated.double(), referred.double())[:, 0]
    return {"SNR": ratio.where(_sounds(referred), torch.nan)}


def si_sdr(estimate: Signal, reference: Signal, cutoff: Tensor | None = None) -> dict[str, Tensor]:
    """Scale-invariant signal-to-distortion ratio [B] in dB.

    It is nan where either signal is silent, for silence has no scale. Raises ValueError as `lsd` does.
    """
    estimated, referred = _aligned(estimate, reference)
    ratio = scale_invariant_signal_distortion_ratio(estimated.double(), referred.double())[:, 0]
    return {"SI-SDR": ratio.where(_sounds(referred) & _sounds(estimated), torch.nan)}


METRICS: dict[str, Callable[[Signal, Signal, Tensor | None], dict[str, Tensor]]] = {
    "lsd_ssr_eval": lsd,
    "snr": snr,
    "si_sdr": si_sdr,
}


def _aligned(estimate: Signal, reference: Signal) -> tuple[Tensor, Tensor]:
    """Both waves [B, 1, longest] with silence for padding, whatever it held before."""
    if estimate.rate != reference.rate:
        raise ValueError(f"the estimate is at {estimate.rate} Hz, the reference at {reference.rate} Hz")
    ours, theirs = estimate.lengths.tolist(), reference.lengths.tolist()
    if ours != theirs:
        raise ValueError(f"the estimate has {ours} samples, the reference {theirs}")
    longest = int(reference.lengths.max())
    return tuple(
        silence_padding(signal.wave[..., :longest], signal.lengths) for signal in (estimate, reference)
    )


def _sounds(wave: Tensor) -> Tensor:
    """[B] whether there is anything but zeros in `wave` [B, 1, T]."""
    return wave.abs().amax((1, 2)) > 0
