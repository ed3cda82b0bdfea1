"""Metrics that model a listener: PESQ, STOI, ViSQOL, NISQA, by the packages of others, one item at a time.

They follow the contract of `signals.metrics`. An item that the package refuses (silence, no utterance, too
short) or dies of scores nan, so that it is counted. Each raises UserError where its package is not installed.
"""

import importlib
import logging
import warnings
from collections.abc import Callable
from functools import lru_cache
from types import ModuleType

import numpy as np
import torch
from torch import Tensor

from signals import foreign
from signals.apart import Died, apart
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
    return _pesq("pesq_wb", estimate, reference, 16000, "wb")


def pesq_nb(estimate: Signal, reference: Signal, cutoff: Tensor | None = None) -> dict[str, Tensor]:
    """PESQ-NB (ITU-T P.862 with the MOS-LQO of P.862.1), both brought to 8 kHz by `resampling.resample`.

    What is above 4 kHz does not count.
    """
    return _pesq("pesq_nb", estimate, reference, 8000, "nb")


def _pesq(metric: str, estimate: Signal, reference: Signal, rate: int, mode: str) -> dict[str, Tensor]:
    return _each(_apart(metric, foreign.pesq, rate, mode), estimate, reference, rate)


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
    return _each(_apart("visqol", foreign.visqol), estimate, reference, 48000)


def nisqa(estimate: Signal, reference: Signal, cutoff: Tensor | None = None) -> dict[str, Tensor]:
    """NISQA v2.0's overall quality of the estimate (Mittag et al. 2021), without a look at the reference.

    By torchmetrics, which downloads the weights when it is first used. Raises UserError where it cannot.
    """
    score = _apart("nisqa", foreign.nisqa, estimate.rate, torch.get_num_threads())
    return _each(score, estimate, reference, reference.rate)


def _apart(metric: str, function: Callable, *args) -> Score:
    """`function` of `signals.foreign` in a process of its own, with `args` before the waves.

    nan where that dies, which is said once. Raises UserError where the package is not installed.
    """
    check_installed(metric)

    def score(estimated: np.ndarray, referred: np.ndarray) -> float:
        try:
            return apart(function, *args, estimated, referred)
        except Died as death:
            _warn(f"{metric}: its package's own code died ({death}): such recordings have no score")
            return torch.nan

    return score


@lru_cache
def _warn(line: str) -> None:
    logging.getLogger(__name__).warning(line)


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
