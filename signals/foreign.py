"""Scores of an estimate [T] and its reference [T] by packages that are not ours; see `signals.perceptual`.

They are called by `signals.apart`, since code in C of others may die. nan where a package refuses. Nothing is
imported before it is needed: the process starts in a moment.
"""

from functools import lru_cache
from math import nan

import numpy as np

from signals.errors import UserError


def pesq(rate: int, mode: str, estimate: np.ndarray, reference: np.ndarray) -> float:
    """mode: `wb` or `nb`. It dies above some 55 utterances (its arrays have places for 50)."""
    from pesq import PesqError, pesq

    value = pesq(rate, reference, estimate, mode, on_error=PesqError.RETURN_VALUES)
    return value if value >= 0 else nan  # its errors are negative


def visqol(estimate: np.ndarray, reference: np.ndarray) -> float:
    """Of signals at 48 kHz."""
    try:
        return _visqol().measure_from_arrays(reference, estimate, 48000).moslqo
    except ValueError:  # shorter than its patches
        return nan


@lru_cache
def _visqol():
    from visqol import VisqolApi

    api = VisqolApi()
    api.create(mode="audio")
    return api


def nisqa(rate: int, threads: int, estimate: np.ndarray, reference: np.ndarray) -> float:
    """threads: of PyTorch."""
    import torch
    from torchmetrics.functional.audio.nisqa import non_intrusive_speech_quality_assessment

    torch.set_num_threads(threads)
    try:
        values = non_intrusive_speech_quality_assessment(torch.from_numpy(estimate), rate)
    except OSError as error:
        raise UserError(f"NISQA's weights could not be downloaded: {error}") from error
    except RuntimeError:  # too short or too long for it
        return nan
    return float(values[0])
