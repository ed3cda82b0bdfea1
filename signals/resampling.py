"""Changes of rate by windowed sincs.

Sample n of the result lies at n * rate_in / rate_out samples of the input.
"""

from functools import lru_cache
from math import ceil, gcd

import scipy.signal
import torch
import torchaudio.functional
from torch import Tensor
from torch.nn.functional import conv1d, pad


def polyphase(wave: Tensor, taps: Tensor, down: int) -> Tensor:
    """Rational resampling as one strided convolution.

    wave: [B, 1, T]. taps: [up, K], a filter for each of the `up` phases an output sample can have between
    input samples. Gives [B, 1, N * up]: block n of `up` samples is made of the K inputs from n * down on.
    """
    # In double precision, since TF32 and autocast leave that alone; theirs would be a noise floor at -60 dB.
    blocks = conv1d(wave.double(), taps[:, None].to(wave.device), stride=down)
    return blocks.transpose(1, 2).flatten(1)[:, None].to(wave.dtype)


def resample_poly(wave: Tensor, up: int, down: int) -> Tensor:
    """[B, 1, T] -> [B, 1, ceil(T * up / down)] as scipy.signal.resample_poly: Kaiser 5.0, zeros outside."""
    up, down = up // gcd(up, down), down // gcd(up, down)
    if up == down:
        return wave
    first, taps = _kaiser_taps(up, down)
    samples = wave.shape[-1]
    length = resampled_length(samples, down, up)
    read = (ceil(length / up) - 1) * down + taps.shape[1]
    return polyphase(pad(wave, (-first, read + first - samples)), taps, down)[..., :length]


@lru_cache(maxsize=64)
def _kaiser_taps(up: int, down: int) -> tuple[int, Tensor]:
    """The input sample (<= 0) at which the phases of SciPy's default filter start, and the phases [up, K]."""
    half = 10 * max(up, down)
    window = up * scipy.signal.firwin(2 * half + 1, 1 / max(up, down), window=("kaiser", 5.0))
    first, last = -(half // up), ((up - 1) * down + half) // up
    phase = torch.arange(up)[:, None] * down - torch.arange(first, last + 1) * up
    inside = phase.abs() <= half
    return first, torch.from_numpy(window)[(phase + half).clamp(0, 2 * half)] * inside


def resample(wave: Tensor, rate_in: int, rate_out: int) -> Tensor:
    """[B, 1, T] -> [B, 1, ceil(T * rate_out / rate_in)] by `resample_poly`, rates in Hz."""
    return resample_poly(wave, rate_out, rate_in)


def resampled_length(lengths: Tensor | int, rate_in: int, rate_out: int) -> Tensor | int:
    """Samples that `lengths` at `rate_in` Hz become at `rate_out` Hz: ceil(T * rate_out / rate_in)."""
    return -(-lengths * rate_out // rate_in)


def sinc(wave: Tensor, rate_in: int, rate_out: int) -> Tensor:
    """[B, 1, T] -> [B, 1, ceil(T * rate_out / rate_in)] by torchaudio's "kaiser_best"."""
    resampled = torchaudio.functional.resample(
        wave.double(),  # as in `polyphase`
        rate_in,
        rate_out,
        lowpass_filter_width=64,
        rolloff=0.9475937167399596,
        resampling_method="sinc_interp_kaiser",
        beta=14.769656459379492,
    )
    return resampled.to(wave.dtype)


def hann_sinc(wave: Tensor, rate_in: int, rate_out: int) -> Tensor:
    """[B, 1, T] -> [B, 1, ceil(T * rate_out / rate_in)] by torchaudio's default: six zeros a side, Hann."""
    return torchaudio.functional.resample(wave.double(), rate_in, rate_out).to(wave.dtype)
