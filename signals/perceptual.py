"""Metrics that model a listener: PESQ, STOI, ViSQOL, NISQA, by the packages of others, one item at a time.

They follow the contract of `signals.metrics`. An item that the package refuses (silence, no utterance, too
short) scores nan, so that it is counted. Each raises UserError where its package is not installed.
"""

import importlib
import warnings
from collections.abc import Callable
from functools import lru_cache
from types import ModuleType

import numpy as np
import torch
from torch import Tensor

from signals.errors import UserError
from signals.resampling import resample, resampled_length
from signals.types import Signal, aligned

Score = Callable[[np.ndarray, np.ndarray], float]  # of an estimate [T] and its reference [T]
PACKAGES = {  # what each needs, and the extra of ours that brings it
    "pesq_wb": ("pesq", "speech"),
    "pesq_nb": ("pesq", "speech"),
    "stoi": ("pystoi", "speech"),
    "visqol": ("visqol", "visqol"),
    "nisqa": ("requests", "nisqa"),
}


def check_installed(metric: str) -> None:
    """Raises UserError where a metric of these needs a package that is not there."""
    if metric in PACKAGES:
        _package(*PACKAGES[metric])


def pesq_wb(estimate: Signal, reference: Signal, cutoff: Tensor | None = None) -> dict[str, Tensor]:
    """PESQ-WB (ITU-T P.862.2, MOS-LQO), both signals brought to 16 kHz by `resampling.resample`.

    What is above 8 kHz does not count.
    """
    return _pesq(estimate, reference, 16000, "wb")


def pesq_nb(estimate: Signal, reference: Signal, cutoff: Tensor | None = None) -> dict[str, Tensor]:
    """PESQ-NB (ITU-T P.862 with the MOS-LQO of P.862.1), both brought to 8 kHz by `resampling.resample`.

    What is above 4 kHz does not count.
    """
    return _pesq(estimate, reference, 8000, "nb")


def _pesq(estimate: Signal, reference: Signal, rate: int, mode: str) -> dict[str, Tensor]:
    package = _package("pesq", "speech")

    def score(estimated: np.ndarray, referred: np.ndarray) -> float:
        value = package.pesq(rate, referred, estimated, mode, on_error=package.PesqError.RETURN_VALUES)
        return value if value >= 0 else torch.nan  # its errors are negative

    return _each(score, estimate, reference, rate)


def stoi(estimate: Signal, reference: Signal, cutoff: Tensor | None = None) -> dict[str, Tensor]:
    """Short-time objective intelligibility (Taal et al. 2010), which resamples to 10 kHz itself.

    nan where less than 30 frames (0.4 s) are left without the silent ones.
    """
    package = _package("pystoi", "speech")

    def score(estimated: np.ndarray, referred: np.ndarray) -> float:
        with warnings.catch_warnings():
            warnings.simplefilter("error", RuntimeWarning)
            try:
                return package.stoi(referred, estimated, reference.rate)
            except (RuntimeWarning, np.exceptions.AxisError):  # too few frames, or none
                return torch.nan

    return _each(score, estimate, reference, reference.rate)


def visqol(estimate: Signal, reference: Signal, cutoff: Tensor | None = None) -> dict[str, Tensor]:
    """ViSQOL v3 in audio mode (MOS-LQO, at most about 4.75), both brought to 48 kHz by `resampling.resample`.

    nan where a signal is shorter than what it compares at once.
    """
    api = _visqol()

    def score(estimated: np.ndarray, referred: np.ndarray) -> float:
        try:
            return api.measure_from_arrays(referred, estimated, 48000).moslqo
        except ValueError:  # shorter than its patches
            return torch.nan

    return _each(score, estimate, reference, 48000)


@lru_cache
def _visqol():
    api = _package("visqol", "visqol").VisqolApi()
    api.create(mode="audio")
    return api


def nisqa(estimate: Signal, reference: Signal, cutoff: Tensor | None = None) -> dict[str, Tensor]:
    """NISQA v2.0's overall quality of the estimate (Mittag et al. 2021), without a look at the reference.

    By torchmetrics, which downloads the weights when it is first used. Raises UserError where it cannot.
    """
    _package("requests", "nisqa")
    package = _package("torchmetrics.functional.audio.nisqa", "nisqa")

    def score(estimated: np.ndarray, _: np.ndarray) -> float:
        try:
            values = package.non_intrusive_speech_quality_assessment(
                torch.from_numpy(estimated), estimate.rate
            )
        except OSError as error:
            raise UserError(f"NISQA's weights could not be downloaded: {error}") from error
        except RuntimeError:  # too short or too long for it
            return torch.nan
        return float(values[0])

    return _each(score, estimate, reference, reference.rate)


def _each(score: Score, estimate: Signal, reference: Signal, rate: int) -> dict[str, Tensor]:
    """`score` of each item at `rate` Hz without its padding; nan where either signal is silent."""
    waves = (resample(wave, reference.rate, rate) for wave in aligned(estimate, reference))
    estimated, referred = (wave[:, 0].float().cpu().numpy() for wave in waves)
    lengths = resampled_length(reference.lengths, reference.rate, rate).tolist()
    items = [(E[:size], R[:size]) for E, R, size in zip(estimated, referred, lengths, strict=True)]
    scores = [score(E, R) if E.any() and R.any() else torch.nan for E, R in items]
    return {"": torch.tensor(scores, device=reference.wave.device)}


def _package(name: str, extra: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UserError(f'{name.split(".")[0]} is not installed: pip install -e ".[{extra}]".') from error
