"""QISTA-Net-Audio: audio super-resolution by non-convex l_q-norm minimisation (Lin et al. 2021), 2x.

Two unfolded proximal-gradient networks on frames of 256 samples, each frame an example of its own:
QISTA-Net-n recovers the spectrum as an image of two rows, real and imaginary, and gives the phase (Algorithm
1); QISTA-Net-m recovers the magnitude (Algorithm 2). Where the paper is silent or its code differs, the
variants say what is done: `text` is the paper's, `code` what the released weights are.

Facts of the code that matter: frames are not centred; all 256 bins are kept (the waveform is complex, its
imaginary part is dropped); the convolutions see one row down and one bin up, never the other way, so the
imaginary row never hears the real one; m's operator A keeps the even *bins*, though it was time samples that
were dropped. The true operator is Y[k] = X[k] + X[k + 128]: `operator: folding`.
"""

import re
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, pad

from lightning_modules.ranks import over_ranks
from lightning_modules.stage import Stage
from lightning_modules.super_resolver import SuperResolver
from signals.errors import UserError
from signals.types import Pair, Recording

BINS = 256  # n: of a frame of the full-band signal; m = n / 2 of the input
EPSILON = 0.1  # of the weighted threshold
FRAMES_AT_ONCE = 32  # what all layers make of them stays in a CPU's cache


# Frames ---------------------------------------------------------------------------------------------------


def analyse(wave: Tensor, size: int) -> Tensor:
    """[B, T] -> spectra of frames of `size` samples, half overlapping: complex [B, N, size], all bins.

    A Hann window (periodic), divided by its sum: scipy.signal.stft with boundary=None. The end is filled with
    zeros to a whole frame.
    """
    hop = size // 2
    missing = max(size - wave.shape[-1], -(wave.shape[-1] - size) % hop)
    window = torch.hann_window(size, dtype=wave.dtype, device=wave.device)
    frames = pad(wave, (0, missing)).unfold(-1, size, hop)
    return torch.fft.fft(frames * window) / window.sum()


def synthesise(spectra: Tensor) -> Tensor:
    """The inverse of `analyse`: complex [B, N, size] -> complex [B, T], zeros that filled the end included.

    Overlapping frames are windowed again and divided by the sum of the squared windows. In the first and last
    half frame that is one window's, nearly zero at the ends, which magnifies whatever is there.
    """
    size = spectra.shape[-1]
    hop = size // 2
    window = torch.hann_window(size, dtype=spectra.real.dtype, device=spectra.device)
    frames = torch.fft.ifft(spectra) * (window.sum() * window)

    def overlapped(frames: Tensor) -> Tensor:  # [B, N, size] -> [B, (N + 1) * hop]
        first, second = frames.split(hop, dim=-1)
        return (pad(first, (0, 0, 0, 1)) + pad(second, (0, 0, 1, 0))).flatten(1)

    weight = overlapped(window.square().expand(1, *frames.shape[1:]))
    return overlapped(frames) / torch.where(weight > 1e-10, weight, 1)


def image(spectra: Tensor) -> Tensor:
    """Complex [..., F] -> its RI image [..., 2, F]."""
    return torch.stack([spectra.real, spectra.imag], dim=-2)


# Operators ------------------------------------------------------------------------------------------------


def folding() -> Tensor:
    """A [m, n] of what dropping every second sample does to a frame's spectrum: [I | I], exactly."""
    return torch.eye(BINS // 2).repeat(1, 2)


def interpolation() -> Tensor:
    """B [n, m] of band-limited interpolation: each bin of the input in its place around 0 Hz, no images.

    Where B begins to learn, and A as `folding`; the paper is silent. From drawn weights QISTA-Net-m shrinks
    everything to nothing before B has learnt its place, and what is nothing has no gradient.
    """
    half = BINS // 4
    B = torch.zeros(BINS, BINS // 2)
    B[:half, :half] = B[-half:, -half:] = torch.eye(half)
    return B


def even_bins() -> Tensor:
    """A [m, n] as printed and coded: a 1 in every second column, so the even bins are kept."""
    return torch.eye(BINS)[::2]


def threshold(h: Tensor, lambda_: Tensor, q: float) -> Tensor:
    """lambda / (epsilon + |h|)^(1 - q): the weights of the l_q norm, recomputed at every phase."""
    return lambda_ * (EPSILON + h.abs()).pow(q - 1)


# QISTA-Net-n ----------------------------------------------------------------------------------------------


def both_rows(C: Tensor) -> Tensor:
    """Kernels [out, in, 2, 2] over two rows -> [2 out, 2 in, 1, 2] over one, the rows being channels.

    The zero row below the image is left out with what would be multiplied by it.
    """
    down = torch.cat([C[:, :, 0], C[:, :, 1]], dim=1)  # the upper row sees both
    alone = torch.cat([torch.zeros_like(C[:, :, 0]), C[:, :, 0]], dim=1)
    return torch.cat([down, alone])[:, :, None].contiguous(memory_format=torch.channels_last)


def convolve(x: Tensor, C: Tensor) -> Tensor:
    """[N, 2 in, 1, W] -> [N, 2 out, 1, W + 1], of which the first column is to be dropped, now or later.

    A zero column on the right, as TensorFlow pads: a bin never sees a lower one, so what stands on the left
    does not matter, and padding a frame costs nothing.
    """
    return conv2d(x, C, padding=(0, 1))


class Made(NamedTuple):
    """What a phase made: R and X [N, 2, n] of Algorithm 1, and the difference of its auxiliary loss."""

    R: Tensor
    X: Tensor
    difference: Tensor | None


class Phase(nn.Module):
    """One iteration of Algorithm 1: a gradient step, and a proximal one in the domain of learned features."""

    def __init__(self, channels: int):
        super().__init__()
        widths = [(1, channels), *[(channels, channels)] * 6, (channels, 1)]
        self.C = nn.ParameterList(torch.empty(outputs, inputs, 2, 2) for inputs, outputs in widths)
        for kernel in self.C:
            nn.init.xavier_normal_(kernel)
        self.beta, self.lambda_, self.alpha = (nn.Parameter(torch.tensor(v)) for v in (0.1, 1e-5, 1.0))

    def kernels(self) -> list[Tensor]:
        return [both_rows(C) for C in self.C]

    def forward(
        self, X: Tensor, BAX: Tensor, BY: Tensor, C: list[Tensor], q: float, auxiliary: str | None
    ) -> Made:
        """X, BAX, BY: [N, 2, n]. C: its kernels. auxiliary: `features` or `image`, which difference is made.

        (None: none.) `features`, the code's: the inverse of C1 to C3 after these, less what went in.
        `image`, as printed: the inverse of the whole transform after it, less R.
        """
        width = X.shape[-1]
        R = X + self.beta * (BY - BAX)
        f = convolve(R[:, :, None].contiguous(memory_format=torch.channels_last), C[0])
        h = convolve(convolve(convolve(f, C[1]).relu(), C[2]).relu(), C[3])
        g = threshold(h, self.lambda_, q)
        thresholded_less_h = -h.sign() * torch.minimum(h.abs(), g)  # sign(h) relu(|h| - g) - h
        X = R + self.alpha * inverse(thresholded_less_h, C)[1][:, :, 0, -width:]
        if auxiliary is None:
            return Made(R, X, None)
        features, whole = inverse(h, C)
        return Made(
            R,
            X,
            features[..., -width:] - f[..., -width:]
            if auxiliary == "features"
            else whole[:, :, 0, -width:] - R,
        )


def inverse(h: Tensor, C: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Features through C4 to C6, and these through C7."""
    features = convolve(convolve(convolve(h, C[4]).relu(), C[5]).relu(), C[6])
    return features, convolve(features, C[7])


class NetworkN(nn.Module):
    """RI images [N, 2, m] -> [N, 2, n]. One pair A, B serves all phases (Algorithm 1)."""

    def __init__(self, phases: int = 9, channels: int = 32, q: float = 0.5, operator: str = "learned"):
        super().__init__()
        if channels < 1:
            raise UserError(f"channels={channels}: of the features there is at least one.")
        self.q = q
        self.B = nn.Parameter(interpolation())
        if operator == "learned":
            self.A = nn.Parameter(folding())
        else:
            self.register_buffer("A", operator_named(operator), persistent=False)
        self.phases = nn.ModuleList(Phase(channels) for _ in range(phases))

    def operators(self) -> tuple[Tensor, list[list[Tensor]]]:
        """B A, and the kernels of each phase: the same for all frames."""
        return self.B @ self.A, [phase.kernels() for phase in self.phases]

    def iterate(
        self, Y: Tensor, auxiliary: str | None = None, operators: tuple | None = None
    ) -> Iterator[Made]:
        """Phase by phase; the first made is X_0 = B Y. operators: as made once (None: made here)."""
        BA, kernels = operators or self.operators()
        BY = Y @ self.B.mT
        made = Made(BY, BY, None)
        yield made
        for phase, C in zip(self.phases, kernels, strict=True):
            made = phase(made.X, made.X @ BA.mT, BY, C, self.q, auxiliary)
            yield made

    def forward(self, Y: Tensor) -> Tensor:
        operators = self.operators()
        found = []
        for some in [Y] if torch.is_grad_enabled() else Y.split(FRAMES_AT_ONCE):
            *_, last = self.iterate(some, operators=operators)
            found.append(last.X)
        return torch.cat(found)


# QISTA-Net-m ----------------------------------------------------------------------------------------------


class NetworkM(nn.Module):
    """Magnitudes [N, m] -> [N, n], which may be negative (Algorithm 2). B and two numbers a phase learn."""

    def __init__(self, phases: int = 20, q: float = 0.5, operator: str = "even_bins"):
        super().__init__()
        if operator == "learned":
            raise UserError("QISTA-Net-m's operator is fixed: even_bins or folding.")
        self.q = q
        self.B = nn.Parameter(interpolation())
        self.register_buffer("A", operator_named(operator), persistent=False)
        self.beta = nn.Parameter(torch.full((phases,), 0.1))
        self.lambda_ = nn.Parameter(torch.full((phases,), 1e-5))

    def iterate(self, y: Tensor) -> Iterator[Tensor]:
        """x of each phase; the first is x_0 = B y."""
        BA, By = self.B @ self.A, y @ self.B.mT
        x = By
        yield x
        for beta, lambda_ in zip(self.beta, self.lambda_, strict=True):
            r = x + beta * (By - x @ BA.mT)
            x = r.sign() * (r.abs() - threshold(r, lambda_, self.q)).relu()
            yield x

    def forward(self, y: Tensor) -> Tensor:
        *_, x = self.iterate(y)
        return x


def operator_named(name: str) -> Tensor:
    """Raises UserError on an unknown one."""
    known = {"folding": folding, "even_bins": even_bins}
    if name not in known:
        raise UserError(f"unknown operator {name}: one of {', '.join(known)}, or learned (of QISTA-Net-n).")
    return known[name]()


# Released weights -----------------------------------------------------------------------------------------

UNUSED = re.compile(r".*(/Adam(_1)?|_power|/biases_\d+)(:0)?$")  # optimiser states; biases that no layer adds


def released_arrays(path: Path) -> dict[str, Tensor]:
    """Variables of a TensorFlow checkpoint, saved by their names as .npz, without those that nothing uses.

    Raises UserError on another file.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {
                name.removesuffix(":0"): torch.from_numpy(file[name].astype(np.float32))
                for name in file.files
                if not UNUSED.match(name)
            }
    except (OSError, EOFError, TypeError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        why = (str(error).splitlines() or ["empty"])[0]
        raise UserError(f"{path} is no .npz of named arrays, or damaged: {why}") from None
    if odd := [name for name, array in arrays.items() if not array.isfinite().all()]:
        raise UserError(f"{path} holds NaN or infinity in {odd[0]}.")
    return arrays


def renamed(arrays: Mapping[str, Tensor], names: Mapping[str, str], path: Path) -> dict[str, Tensor]:
    """Arrays by our names. names: ours, by theirs. Raises UserError unless all are there and no others."""
    for told, odd in (("lacks", names.keys() - arrays.keys()), ("also has", arrays.keys() - names.keys())):
        if odd:
            raise UserError(
                f"{path} is not what was asked for: it {told} {', '.join(sorted(odd)[:3])} ({len(odd)})."
            )
    return {ours: arrays[theirs] for theirs, ours in names.items()}


# Trainings ------------------------------------------------------------------------------------------------


def frames_of(pair: Pair) -> tuple[Tensor, Tensor]:
    """Spectra of the input [N, m] and of the reference [N, n], complex, of all frames of all windows.

    Raises UserError where the input is not at half the rate.
    """
    if 2 * pair.low.rate != pair.high.rate:
        raise UserError(
            f"QISTA-Net doubles the rate, it cannot learn {pair.low.rate} to {pair.high.rate} Hz."
        )
    given, wanted = pair.low.wave[:, 0], pair.high.wave[:, 0]
    Y, X = analyse(given, BINS // 2), analyse(wanted, BINS)
    return Y.flatten(0, 1), X.flatten(0, 1)


class N(Stage):
    """QISTA-Net-n. Terms: `mse` of the RI image, and `auxiliary` (weight delta), how far the transforms of
    the phases are from their inverses, summed over phases.

    auxiliary: `features` (code) or `image` (text). phases: T, which the paper does not state. channels: of
    the features. q: of the l_q norm. operator: A, `learned` or `folding`.
    """

    def __init__(
        self,
        weights: Mapping[str, float],
        optimizer: Mapping,
        auxiliary: str = "features",
        **network,
    ):
        super().__init__(weights, optimizer)
        if auxiliary not in ("features", "image"):
            raise UserError(f"auxiliary={auxiliary}: features or image.")
        self.auxiliary, self.net = auxiliary, NetworkN(**network)

    @classmethod
    def converted(cls, path: Path) -> dict[str, Tensor]:
        """From the checkpoint's names: `FC_100` A^T, `FC_101` B^T; of phase t `conv_t/Variable`, `_1`, `_2`
        beta, lambda, alpha, `Weights_i` kernels [height, width, in, out]. See `Stage.converted`.
        """
        arrays = released_arrays(path)
        phases = len({name.split("/")[0] for name in arrays if name.startswith("conv_")})
        names = {"FC_100": "A", "FC_101": "B"}
        for t in range(phases):
            scalars = {"Variable": "beta", "Variable_1": "lambda_", "Variable_2": "alpha"}
            names |= {f"conv_{t}/{theirs}": f"phases.{t}.{ours}" for theirs, ours in scalars.items()}
            names |= {f"conv_{t}/Weights_{i}": f"phases.{t}.C.{i}" for i in range(8)}
        state = renamed(arrays, names, path)
        return {
            k: v.permute(3, 2, 0, 1) if v.ndim == 4 else v.T if v.ndim == 2 else v for k, v in state.items()
        }

    @property
    def network(self) -> nn.Module:
        return self.net

    def example(self, batch: int, samples: int) -> tuple:
        frames = batch * max(1, (samples - BINS // 2) // (BINS // 2))
        return (torch.zeros(frames, 2, BINS // 2, device=self.net.B.device),)

    def losses(self, pair: Pair) -> dict[str, Tensor]:
        Y, X = frames_of(pair)
        *_, made = everything = list(self.net.iterate(image(Y), self.auxiliary))
        auxiliary = sum(phase.difference.square().mean() for phase in everything[1:])
        return {"mse": (made.X - image(X)).square().mean(), "auxiliary": auxiliary}

    def held_out(self, pair: Pair) -> dict[str, Tensor]:
        """Squared error of the RI image by item; the constant is silence."""
        Y, X = frames_of(pair)
        return by_item(self.net(image(Y)) - image(X), image(X), len(pair.ids))


class M(Stage):
    """QISTA-Net-m. Term: `mse` of the magnitude as printed, or `half_sum`, the code's: half the squared error
    summed over bins and frames (of all processes), whichever has a weight.

    phases: T. q: of the l_q norm. operator: A, `even_bins` or `folding`.
    """

    def __init__(self, weights: Mapping[str, float], optimizer: Mapping, **network):
        super().__init__(weights, optimizer)
        self.net = NetworkM(**network)

    @classmethod
    def converted(cls, path: Path) -> dict[str, Tensor]:
        """From the checkpoint's names: `FC_101` B^T, `conv_t/Variable`, `_1` beta, lambda of phase t."""
        arrays = released_arrays(path)
        phases = range(len({name.split("/")[0] for name in arrays if name.startswith("conv_")}))
        scalars = {f"conv_{t}/{name}": f"{name} {t}" for t in phases for name in ("Variable", "Variable_1")}
        state = renamed(arrays, {"FC_101": "B"} | scalars, path)
        beta, lambda_ = (
            torch.stack([state[f"{name} {t}"] for t in phases]) if phases else torch.zeros(0)
            for name in ("Variable", "Variable_1")
        )
        return {"B": state["B"].T, "beta": beta, "lambda_": lambda_}

    @property
    def network(self) -> nn.Module:
        return self.net

    def example(self, batch: int, samples: int) -> tuple:
        frames = batch * max(1, (samples - BINS // 2) // (BINS // 2))
        return (torch.zeros(frames, BINS // 2, device=self.net.B.device),)

    def losses(self, pair: Pair) -> dict[str, Tensor]:
        """Raises UserError where neither has a weight."""
        Y, X = frames_of(pair)
        error = (self.net(Y.abs()) - X.abs()).square()
        terms = {"mse": error.mean(), "half_sum": over_ranks(0.5 * error.sum())}
        terms = {name: term for name, term in terms.items() if self.weights.get(name)}
        if not terms:
            raise UserError("QISTA-Net-m needs a weight above 0 for mse or half_sum.")
        return terms

    def held_out(self, pair: Pair) -> dict[str, Tensor]:
        """Squared error of the magnitude by item; the constant is silence."""
        Y, X = frames_of(pair)
        return by_item(self.net(Y.abs()) - X.abs(), X.abs(), len(pair.ids))


def by_item(error: Tensor, wanted: Tensor, items: int) -> dict[str, Tensor]:
    return {
        "model": error.square().view(items, -1).mean(1),
        "constant": wanted.square().view(items, -1).mean(1),
    }


# In use ---------------------------------------------------------------------------------------------------


class Recovered(NamedTuple):
    """Of frames: m's or n's magnitude [B, N, n] (None: the true one), and the spectrum [B, N, n] in use."""

    magnitude: Tensor | None
    spectrum: Tensor


class QistaNetAudio(SuperResolver):
    """The magnitude of one network with the phase of the other, 2x.

    magnitude: `m`, `n`, or `reference`, which makes it an oracle. phase: `n` or `reference`. hermitian: the
    spectrum is made that of a real signal. consistent: samples that were given are kept as they are. ends:
    half a frame more is read on each side, so that every sample is in two frames. The authors do none of the
    three, and leave 16 samples at each end out of their scores. Levels are never changed: the thresholds are
    absolute, so a loud recording suffers. Raises UserError on a network that is missing.
    """

    upsample = "none"
    window, overlap, frame = 2**19, BINS, BINS // 2  # samples: windows are what the whole would be

    def __init__(
        self,
        rate: int,
        n: N | None = None,
        m: M | None = None,
        magnitude: str = "m",
        phase: str = "n",
        hermitian: bool = False,
        consistent: bool = False,
        ends: bool = True,
    ):
        super().__init__(rate)
        if magnitude not in ("m", "n", "reference") or phase not in ("n", "reference"):
            raise UserError(f"magnitude={magnitude}, phase={phase}: m, n or reference, and n or reference.")
        for name, network in (("n", n), ("m", m)):
            if name in (magnitude, phase) and network is None:
                raise UserError(f"magnitude={magnitude}, phase={phase} needs QISTA-Net-{name}.")
        if rate % 2:
            raise UserError(f"QISTA-Net doubles the rate, and {rate} Hz is odd.")
        self.n, self.m = n, m
        self.magnitude, self.phase = magnitude, phase
        self.hermitian, self.consistent = hermitian, consistent
        self.margin = BINS // 2 if ends else 0
        self.oracle = "reference" in (magnitude, phase)

    @classmethod
    def resolved(cls, settings: Mapping) -> dict:
        """Without `variant`, which the networks are trained by."""
        return {name: value for name, value in settings.items() if name != "variant"}

    def windows(
        self,
        low: Recording,
        firsts: Sequence[int],
        count: int,
        whole: Mapping[str, Tensor],
        seeds: Tensor,
        reference: Recording | None,
    ) -> Tensor:
        """What comes at another rate than half of `rate` is first brought there."""
        halved, half = self.raised(low, self.rate // 2), -(-count // 2)
        wave, _ = self.estimate(*self.read(halved, reference, firsts, half))
        return wave.real[:, None, :count]

    def read(
        self, halved: Recording, reference: Recording | None, firsts: Sequence[int], half: int
    ) -> tuple[Tensor, Tensor | None]:
        """`half` samples of the input and twice as many of the reference, with margins: [B, T], [B, 2T]."""
        margin = self.margin
        given = [halved.read((first - margin) // 2, half + margin) for first in firsts]
        wanted = (
            [reference.read(first - margin, 2 * (half + margin)) for first in firsts] if reference else None
        )
        return torch.cat(given)[:, 0], torch.cat(wanted)[:, 0] if wanted else None

    def recovered(self, given: Tensor, reference: Tensor | None) -> Recovered:
        """given: [B, T] at half the rate. reference: [B, 2T], for oracles."""
        Y = analyse(given, BINS // 2)
        X = analyse(reference, BINS) if self.oracle else None
        by_n = None
        if "n" in (self.magnitude, self.phase):
            rows = self.n.net(image(Y.flatten(0, 1))).unflatten(0, Y.shape[:2])
            by_n = torch.complex(*rows.unbind(-2))
        sources = {"m": lambda: self.m.net(Y.abs()), "n": lambda: by_n.abs(), "reference": lambda: X.abs()}
        magnitude = sources[self.magnitude]()
        phase = (by_n if self.phase == "n" else X).angle()
        spectrum = torch.complex(magnitude * phase.cos(), magnitude * phase.sin())
        if self.hermitian:
            spectrum = (spectrum + spectrum.flip(-1).roll(1, -1).conj()) / 2
        return Recovered(None if self.magnitude == "reference" else magnitude, spectrum)

    def estimate(self, given: Tensor, reference: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """[B, T] at half the rate, with margins -> complex [B, 2T] without; the frames' magnitude."""
        magnitude, spectrum = self.recovered(given, reference)
        wave = synthesise(spectrum)[:, : 2 * given.shape[-1]]
        if self.consistent:
            wave[:, ::2] = given.to(wave.dtype)
        return wave[:, self.margin : wave.shape[-1] - self.margin], magnitude

    def measured(self, pair: Pair) -> dict[str, Tensor]:
        """What no waveform shows: `magnitude_SNR` of what the networks recovered (Section 4.4), in dB, and
        `SNR_authors`, see `authors_snr`.
        """
        each = [
            self.measured_of(
                Recording.of(pair.low.wave[row : row + 1, :, : pair.low.lengths[row]], pair.low.rate),
                Recording.of(pair.high.wave[row : row + 1, :, : pair.high.lengths[row]], pair.high.rate),
            )
            for row in range(len(pair.ids))  # of one length each: the last frame must not hear a neighbour's
        ]
        return {name: torch.cat([scores[name] for scores in each]) for name in each[0]}

    def measured_of(self, low: Recording, high: Recording) -> dict[str, Tensor]:
        given, wanted = self.read(self.raised(low, self.rate // 2), high, [0], -(-high.samples // 2))
        wave, magnitude = self.estimate(given, wanted)
        scores = {"SNR_authors": authors_snr(wave[:, : high.samples], high.read(0, high.samples)[:, 0])}
        if magnitude is not None:
            X = analyse(wanted, BINS).abs()
            error = (X - magnitude).double().square().sum((1, 2))
            scores["magnitude_SNR"] = 10 * (X.double().square().sum((1, 2)) / error).log10()
        return scores


def authors_snr(estimate: Tensor, reference: Tensor) -> Tensor:
    """[B] dB as the authors' code has it, of complex [B, T]: 16 samples at each end left out.

    The complex error is squared without conjugation, so what the imaginary part adds to it is taken away
    from it: a waveform that is not real scores the better for it. Equal to the SNR where it is real.
    """
    inside = slice(16, reference.shape[-1] - 16)
    S = reference[:, inside].double().square().sum(-1)
    N = (reference - estimate)[:, inside].to(torch.complex128).square().sum(-1)
    return 10 * (S / N.abs()).log10()
