"""The DNN of K. Li and C.-H. Lee, "A deep neural network approach to speech bandwidth expansion", ICASSP
2015, after the code of Kuleshov et al.'s baseline (zayd/deep-audio-super-resolution, by S. Z. Enam). The
paper itself was not at hand: what is said of it is what is commonly quoted.

From the log-power spectrum below the cut-off, of nine frames, a perceptron predicts the one above it of the
frame in their middle; the phase there is the image of the one below. Where the sources differ, or what was
chosen here:

* The features are those of the input that is really there. The code takes them from the full-band recording
  ("assume our filter is perfect"), in tests too: an input without the filter's slope, which nobody has.
* Li and Lee normalise mean and variance of every bin, as here; the code whitens both bands by their principal
  components.
* Three hidden layers, as in Li and Lee; the code's "3" come after a first one. They are of ReLU, as in the
  code, and are not pre-trained as Boltzmann machines.
* Frames are overlapped and added with their window, and divided by the sum of its squares. The code adds them
  as they are, and Hamming windows by halves add up to 1.08, not 1. Frames are centred, so the ends are heard.
* The code's phases: the true one above the cut-off (`phase: reference`, an oracle), or one that is predicted,
  which is not here; it knows `imaged` by name only.
"""

from collections.abc import Mapping, Sequence
from math import log
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from lightning_modules.ranks import over_ranks
from lightning_modules.single_stage import SingleStage
from lightning_modules.tfnet import low_bins
from signals.errors import UserError
from signals.types import Pair, Recording, valid

FLOOR = 1e-8  # of magnitudes, where there is nothing at all
LEAST_DEVIATION = 0.1  # of log-power: a bin that never changes would be magnified without bound


def spectra(wave: Tensor, n_fft: int) -> Tensor:
    """[B, T] -> complex [B, F, N]: frames around every n_fft / 2 samples, the end filled to a whole number.

    A periodic Hamming window, without normalisation; outside is silence.
    """
    hop, window = n_fft // 2, torch.hamming_window(n_fft, device=wave.device)
    filled = pad(wave.float(), (0, -wave.shape[-1] % hop))
    return torch.stft(filled, n_fft, hop, window=window, pad_mode="constant", return_complex=True)


def overlapped(spectrum: Tensor, n_fft: int) -> Tensor:
    """The inverse of `spectra`, [B, F, N] -> [B, (N - 1) * n_fft / 2]: weighted overlap-add."""
    window = torch.hamming_window(n_fft, device=spectrum.device)
    return torch.istft(spectrum, n_fft, n_fft // 2, window=window)


def log_power(spectrum: Tensor) -> Tensor:
    """2 ln |X|."""
    return 2 * spectrum.abs().clamp(min=FLOOR).log()


def imaged(phase: Tensor, bins: int) -> Tensor:
    """From the phase [B, K + 1, N] of bins 0 to K that of the `bins` above, [B, bins, N].

    phi[K + i] = -phi[K - i], which is mirrored at 2K again, and so on: as zeros between the samples would.
    """
    last = phase.shape[1] - 1
    k = torch.arange(last + 1, last + 1 + bins, device=phase.device) % (2 * last)
    source, sign = torch.where(k > last, 2 * last - k, k), torch.where(k > last, -1, 1)
    return sign[:, None] * phase[:, source]


def perceptron(low: int, high: int, hidden: int, layers: int, context: int) -> nn.Module:
    """[B, low, N] -> [B, high, N]: of `context` frames the one in their middle; zeros are outside.

    Written as convolutions over the frames, of which only the first reads more than one. Begins as Keras'
    dense layers do.
    """
    widths = [low, *[hidden] * layers]
    net = nn.Sequential()
    for place, (inputs, outputs) in enumerate(zip(widths, [*widths[1:], high], strict=True)):
        kernel = context if place == 0 else 1
        layer = nn.Conv1d(inputs, outputs, kernel, padding=kernel // 2)
        nn.init.xavier_uniform_(layer.weight.flatten(1))
        nn.init.zeros_(layer.bias)
        net.extend([layer, nn.ReLU()])
    return net[:-1]


class LiDNN(SingleStage):
    """On the Fourier-interpolated input, for one scale: what is up to rate / (2 scale) Hz stays the input's.

    Term: `mse` of the log-power spectrum above, normalised by its mean and deviation in every bin, which are
    gathered in training, from its beginning on, and saved. hidden, layers: width and number of hidden layers.
    context: frames that are heard, an odd number. n_fft: samples of a frame, the paper's 32 ms at 16 kHz.

    phase (of use): `imaged`, or `reference`, the true one, which makes it an oracle. No bin is made louder
    than a signal within -1 and 1 can have it. Raises UserError on what does not fit, and where a pair is of
    another scale.
    """

    upsample = "fft"
    window, windows_at_once = 2**19, 1
    defaults: ClassVar = {"weights": {"mse": 1.0}}
    use: ClassVar = {"phase": "imaged"}

    def __init__(
        self,
        weights: Mapping[str, float],
        optimizer: Mapping,
        rate: int,
        scale: int,
        hidden: int = 2048,
        layers: int = 3,
        context: int = 9,
        n_fft: int = 512,
    ):
        super().__init__(weights, optimizer, rate)
        if scale < 2 or 2 * scale > n_fft or n_fft % 2:
            raise UserError(f"scale={scale}, n_fft={n_fft}: from 2 to half of n_fft, which is even.")
        if context % 2 == 0 or layers < 1:
            raise UserError(f"context={context}, layers={layers}: an odd number, and at least one.")
        self.scale, self.n_fft, self.hop = scale, n_fft, n_fft // 2
        self.low = n_fft // (2 * scale) + 1  # bins
        self.high = n_fft // 2 + 1 - self.low
        self.margin = (context // 2 + 1) * self.hop  # samples around that the frames of a window hear
        self.frame = self.overlap = self.hop
        self.loudest = 2 * log(0.54 * n_fft)  # of the window, periodic, the sum
        self.net = perceptron(self.low, self.high, hidden, layers, context)
        self.register_buffer("frames", torch.zeros((), dtype=torch.double))  # trained on, and of each bin:
        self.register_buffer("total", torch.zeros(n_fft // 2 + 1, dtype=torch.double))
        self.register_buffer("squares", torch.zeros(n_fft // 2 + 1, dtype=torch.double))

    def used(self, **settings) -> None:
        super().used(**settings)
        if self.phase not in ("imaged", "reference"):
            raise UserError(f"phase={self.phase}: imaged or reference.")
        self.oracle = self.phase == "reference"

    @property
    def network(self) -> nn.Module:
        return self.net

    def example(self, batch: int, samples: int) -> tuple:
        frames = -(-samples // self.hop) + 1
        return (torch.zeros(batch, self.low, frames, device=self.total.device),)

    # Training ---------------------------------------------------------------------------------------------

    def features(self, pair: Pair) -> tuple[Tensor, Tensor]:
        """Log-power [B, F, N], the input's below, the reference's above; which frames are inside, [B, N].

        Raises UserError where the input ends at another bin than what is learnt.
        """
        if (low_bins(pair.cutoff, self.rate, self.n_fft) + 1 != self.low).any():
            cutoff = pair.cutoff.max().item()
            raise UserError(
                f"LiDNN of scale {self.scale} learns from bands up to {self.rate / 2 / self.scale:g} Hz, not "
                f"up to {cutoff:g} Hz: set its scale to {self.rate / 2 / cutoff:g}."
            )
        given, wanted = self.heard(pair).wave[:, 0], pair.high.wave[:, 0]
        Y = spectra(given, self.n_fft)
        X = spectra(wanted, self.n_fft)
        found = torch.cat([log_power(Y[:, : self.low]), log_power(X[:, self.low :])], dim=1)
        return found, valid(-(-pair.high.lengths // self.hop) + 1, found.shape[-1])

    def statistics(self) -> tuple[Tensor, Tensor]:
        """Mean and deviation of every bin, [F, 1], over all frames trained on."""
        count = self.frames.clamp(min=1)
        mean = self.total / count
        deviation = (self.squares / count - mean.square()).clamp(min=0).sqrt().clamp(min=LEAST_DEVIATION)
        return mean.float()[:, None], deviation.float()[:, None]

    def errors(self, pair: Pair) -> tuple[Tensor, Tensor, Tensor]:
        """By item [B], sums over the normalised log-power above: its squared errors, and those of the mean it
        had in training; and of how many values.
        """
        found, inside = self.features(pair)
        mean, deviation = self.statistics()
        low, high = ((found - mean) / deviation * inside[:, None]).split([self.low, self.high], dim=1)
        error = (self.net(low).float() - high) * inside[:, None]
        return error.square().sum((1, 2)), high.square().sum((1, 2)), self.high * inside.sum(1)

    def losses(self, pair: Pair) -> dict[str, Tensor]:
        errors, _, values = self.errors(pair)
        return {"mse": over_ranks(errors.sum()) / over_ranks(values.sum())}

    def training_step(self, pair: Pair, batch: int) -> Tensor:
        found, inside = self.features(pair)
        found = found.mT[inside].double()
        self.frames += over_ranks(torch.full_like(self.frames, len(found)))
        self.total += over_ranks(found.sum(0))
        self.squares += over_ranks(found.square().sum(0))
        return super().training_step(pair, batch)

    def held_out(self, pair: Pair) -> dict[str, Tensor]:
        """Mean squared error of the normalised log-power above; the constant is its mean in training."""
        errors, of_the_mean, values = self.errors(pair)
        return {"model": errors / values, "constant": of_the_mean / values}

    # In use -----------------------------------------------------------------------------------------------

    def windows(
        self,
        low: Recording,
        firsts: Sequence[int],
        count: int,
        whole: Mapping[str, Tensor],
        seeds: Tensor,
        reference: Recording | None,
    ) -> Tensor:
        """With all that their frames hear around them, so they are what the whole would be.

        Raises UserError where the band of `low` ends below what the network hears.
        """
        known = low_bins(whole["cutoff"], self.rate, self.n_fft) + 1
        if (known < self.low).any():
            raise UserError(
                f"LiDNN of scale {self.scale} hears bands up to {self.rate / 2 / self.scale:g} Hz, and this "
                f"one ends at {whole['cutoff'].min().item():g} Hz: take one of a higher scale."
            )
        raised, size = self.raised(low), -(-count // self.hop) * self.hop + 2 * self.margin
        begins = [first - self.margin for first in firsts]
        given = torch.cat([raised.read(begin, size) for begin in begins])[:, 0]
        wanted = torch.cat([reference.read(begin, size) for begin in begins])[:, 0] if reference else None
        centres = torch.tensor(begins)[:, None] + torch.arange(0, size + 1, self.hop)
        inside = (centres >= 0) & (centres < raised.samples + self.hop)
        inside = inside.repeat_interleave(len(given) // len(begins), dim=0).to(given.device)
        return self.estimate(given, inside, known, wanted)[:, None, self.margin : self.margin + count]

    def estimate(self, given: Tensor, inside: Tensor, known: Tensor, reference: Tensor | None) -> Tensor:
        """[B, T] -> [B, T]. inside: [B, N], frames of the recording. known: [B], bins that the input has, and
        keeps. reference: [B, T], for the oracle.
        """
        Y = spectra(given, self.n_fft)
        mean, deviation = self.statistics()
        below, above = slice(self.low), slice(self.low, None)
        heard = (log_power(Y[:, below]) - mean[below]) / deviation[below] * inside[:, None]
        made = self.net(heard).float() * deviation[above] + mean[above]
        if self.phase == "reference":
            phase = spectra(reference, self.n_fft)[:, above].angle()
        else:
            phase = imaged(Y[:, below].angle(), self.high)
        magnitude = (made.clamp(max=self.loudest) / 2).exp()
        added = torch.cat([Y[:, below], torch.polar(magnitude, phase)], dim=1)
        return overlapped(torch.where(valid(known, added.shape[1])[..., None], Y, added), self.n_fft)
