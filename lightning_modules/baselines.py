"""Systems without weights, for scale: what the input scores as it is, and what interpolation alone gives."""

from torch import Tensor

from lightning_modules.super_resolver import SuperResolver
from signals.interpolation import INTERPOLATIONS
from signals.resampling import resample
from signals.types import Signal


class Unprocessed(SuperResolver):
    """The input itself, resampled by a polyphase filter where its rate is lower."""

    def resolve(self, low: Signal, cutoff: Tensor, seeds: Tensor, reference: Tensor | None) -> Tensor:
        return low.wave


class Interpolation(SuperResolver):
    """Interpolation from the lowest rate that holds the band, twice the cut-off.

    An input that comes at a higher rate (low-passed, but not decimated) is first resampled to that one;
    there is nothing to interpolate otherwise. kind: a name in INTERPOLATIONS.
    """

    upsample = "none"
    kind: str

    def resolve(self, low: Signal, cutoff: Tensor, seeds: Tensor, reference: Tensor | None) -> Tensor:
        length = -(-low.wave.shape[-1] * self.rate // low.rate)
        out = low.wave.new_empty(len(low.wave), 1, length)
        for hertz in cutoff.unique():
            critical = min(round(2 * float(hertz)), low.rate)
            chosen = cutoff == hertz
            wave = resample(low.wave[chosen], low.rate, critical)
            out[chosen] = INTERPOLATIONS[self.kind](wave, critical, self.rate, length)
        return out


class Spline(Interpolation):
    """Cubic B-spline through all samples."""

    kind = "spline"


class Cubic(Interpolation):
    """Cubic convolution over four samples (Keys 1981)."""

    kind = "cubic"


class Linear(Interpolation):
    """Straight lines between samples."""

    kind = "linear"


class Hold(Interpolation):
    """Sample-and-hold: images of the band, unattenuated but for the hold's sinc."""

    kind = "hold"


class Sinc(Interpolation):
    """Band-limited interpolation by a long windowed sinc."""

    kind = "sinc"
