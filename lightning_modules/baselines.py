"""Systems without weights, for scale: what the input scores as it is, and what interpolation alone gives."""

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from lightning_modules.stage import noise
from lightning_modules.super_resolver import SuperResolver
from signals.interpolation import INTERPOLATIONS
from signals.resampling import resample
from signals.spectra import istft, stft
from signals.types import Signal


class Unprocessed(SuperResolver):
    """The input itself, resampled by a polyphase filter where its rate is lower."""

    def resolve(self, low: Signal, cutoff: Tensor, seeds: Tensor, reference: Tensor | None) -> Tensor:
        return low.wave


class Silence(SuperResolver):
    """Nothing: what a score is worth where there is no estimate."""

    def resolve(self, low: Signal, cutoff: Tensor, seeds: Tensor, reference: Tensor | None) -> Tensor:
        return torch.zeros_like(low.wave)


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


class Fourier(Interpolation):
    """The spectrum, continued with zeros. To the Fourier transform a signal repeats itself for ever.

    block: samples at `rate` that are transformed at once (None: the whole). TFNet hears blocks of 8192; in
    just these, an LSD without window finds nothing at all above the cut-off, and measures its floor. (Where
    the scale does not divide it, a block is shorter: of whole periods of both rates.)
    """

    kind = "fft"

    def __init__(self, rate: int, block: int | None = None):
        super().__init__(rate)
        self.window = block


class EnvelopeNoise(SuperResolver):
    """The input, and above the cut-off the reference's spectral envelope filled with noise: an oracle.

    It calibrates LSD: with nothing right but the envelope, `lsd_nuwave` above the cut-off is near 0.8, so
    what scores less there has been smoothed. The envelope is the power of the reference's STFT (Hann, 2048
    samples every 512), averaged over `smoothing` bins and frames.
    """

    oracle = True
    smoothing = (7, 3)

    def resolve(self, low: Signal, cutoff: Tensor, seeds: Tensor, reference: Tensor | None) -> Tensor:
        samples = low.wave.shape[-1]
        power = stft(reference, 2048, 512).abs().square()
        margins = [size // 2 for size in self.smoothing]
        envelope = avg_pool2d(power[:, None], self.smoothing, 1, margins, count_include_pad=False)[:, 0]
        white = stft(noise((1, samples), seeds), 2048, 512) / torch.hann_window(2048).norm()  # of unit power
        hertz = torch.linspace(0, self.rate / 2, 1025, device=cutoff.device)
        above = (hertz >= cutoff[:, None])[..., None]
        return low.wave + istft(white * envelope.sqrt() * above, 2048, 512, samples)
