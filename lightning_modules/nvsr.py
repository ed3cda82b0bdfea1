"""NVSR: "Neural vocoder is all you need for speech super-resolution" (Liu et al. 2022, arXiv:2203.14941), as
in the authors' code (haoheliu/ssr_eval, examples/NVSR), with the vocoder of voicefixer that it calls.

Two stages: `MelPredictor` adds to the log-mel what its band lacks, by a perceptron (NVSR-DNN) or a U-Net
(NVSR-ResUNet); `Vocoder` makes a wave of it. `NVSR` puts the known band back.

The code has no training. What AudioSR says of it: the low-passes are those that AudioSR draws. Ours: the mean
absolute error of the log-mel, which fits the name of the released file (`val_l=0.27`); and a vocoder trained
by the losses and critics of AudioSR's. Nothing is normalised: networks hear recordings at their own level.

The test of the authors ran on what leaked: its IIR low-passes are resampled, and the result is thrown away;
its resampling takes everything to be at 44.1 kHz. Degradations here are the tables'.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, leaky_relu, pad, relu

from lightning_modules import audiosr
from lightning_modules.audiosr.frontend import Level, LogMel, RunningMean, normalise
from lightning_modules.audiosr.released import tensors
from lightning_modules.audiosr.vocoder import Critic, Wave
from lightning_modules.stage import AdversarialStage, Stage
from lightning_modules.super_resolver import SuperResolver, raise_rate
from signals.errors import UserError
from signals.resampling import resample, resampled_length
from signals.spectra import istft, rolloff, stft
from signals.types import Pair, Recording, Signal, valid

GRID = 64  # frames, of which windows are multiples: the U-Net halves them six times
LOUDEST = 1e5  # mel magnitude above which nothing reaches the vocoder, as released
EDGE = 2048, 512  # samples of the frames by which the known band is found and put back, and to the next
FRAMES = 1024  # of a long recording that are looked at at once
TYPICAL = 18.8927416350036, 0.0269863588184314  # voicefixer's mel magnitude of band k = 1 ... 128: a exp(b k)

# The networks that predict mels ---------------------------------------------------------------------------


class DNN(nn.Sequential):
    """Log-mel [B, 1, N, M] -> what to add to it, each frame on its own. 591,494 parameters for 128 bands.

    All hidden layers but the last are normalised after their ReLU: by one mean and deviation of the batch.
    """

    grid = 1

    def __init__(self, n_mels: int = 128, hidden: Sequence[int] = (256, 512, 512, 256)):
        layers = []
        for inputs, outputs in pairwise([n_mels, *hidden]):
            layers += [nn.Linear(inputs, outputs), nn.ReLU(), nn.BatchNorm2d(1)]
        super().__init__(*layers[:-1], nn.Linear(hidden[-1], n_mels))


class ResidualBlock(nn.Module):
    """Two convolutions, each after its normalisation and activation, around a skip."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.bn1, self.bn2 = nn.BatchNorm2d(inputs), nn.BatchNorm2d(outputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.shortcut = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()
        for layer in (self.conv1, self.conv2, self.shortcut):
            initialise(layer)

    def forward(self, x: Tensor) -> Tensor:
        made = self.conv1(leaky_relu(self.bn1(x), 0.01))
        return self.shortcut(x) + self.conv2(leaky_relu(self.bn2(made), 0.01))


def initialise(layer: nn.Module) -> None:
    for name, p in layer.named_parameters():
        nn.init.xavier_uniform_(p) if name == "weight" else nn.init.zeros_(p)


def stack(inputs: int, outputs: int, depth: int) -> nn.Module:
    return nn.Sequential(*(ResidualBlock(inputs if n == 0 else outputs, outputs) for n in range(depth)))


class Up(nn.Module):
    """[B, inputs, N, M] and what has been passed by, [B, outputs, 2N, 2M + 1] -> the latter's shape."""

    def __init__(self, inputs: int, outputs: int, depth: int):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.ConvTranspose2d(inputs, outputs, 3, 2, bias=False)  # [2N + 1, 2M + 1]
        self.blocks = stack(2 * outputs, outputs, depth)

    def forward(self, x: Tensor, passed: Tensor) -> Tensor:
        raised = self.conv1(relu(self.bn1(x)))[:, :, :-1]
        return self.blocks(torch.cat([raised, passed], dim=1))


class ResUNet(nn.Module):
    """Log-mel [B, 1, N, M] -> what to add to it. A level for each of `channels`, of `depth` residual blocks.

    As given: 65,152,867 parameters, for any M that is a multiple of `grid`. The last band is not heard, and 0
    is added to it: the others are 2^n - 1, as the way up makes them. Frames are filled up to a multiple of
    `grid` with zeros, as released: not with silence, but with a mel of 1, which is loud. In use (`NVSR`),
    only a recording shorter than a window is filled.
    """

    def __init__(self, channels: Sequence[int] = (32, 64, 128, 256, 384, 384), depth: int = 4):
        super().__init__()
        self.grid = 2 ** len(channels)
        widths, back = [1, *channels], [channels[-1], *reversed(channels)]
        self.down = nn.ModuleList(stack(inputs, outputs, depth) for inputs, outputs in pairwise(widths))
        self.middle = ResidualBlock(channels[-1], channels[-1])
        self.up = nn.ModuleList(Up(inputs, outputs, depth) for inputs, outputs in pairwise(back))
        self.tail = ResidualBlock(channels[0], channels[0])
        self.head = nn.Conv2d(channels[0], 1, 1)
        initialise(self.head)

    def forward(self, log_mel: Tensor) -> Tensor:
        frames, passed = log_mel.shape[2], []
        x = pad(log_mel, (0, 0, 0, -frames % self.grid))[..., :-1]
        for blocks in self.down:
            x = blocks(x)
            passed.append(x)
            x = avg_pool2d(x, 2)
        x = self.middle(x)
        for up in self.up:
            x = up(x, passed.pop())
        return pad(self.head(self.tail(x)), (0, 1))[:, :, :frames]


# The vocoder ----------------------------------------------------------------------------------------------


class Stack(nn.Sequential):
    """Residual pairs of convolutions of 3, the first of each reaching thrice as far as that of the last."""

    def __init__(self, channels: int, depth: int):
        def pair(reach: int) -> nn.Module:
            dilated = nn.Conv1d(channels, channels, 3, dilation=reach, padding=reach)
            plain = nn.Conv1d(channels, channels, 3, padding=1)
            return nn.Sequential(nn.LeakyReLU(0.01), dilated, nn.LeakyReLU(0.01), plain)

        super().__init__(*(pair(3**n) for n in range(depth)))

    def forward(self, x: Tensor) -> Tensor:
        for pair in self:
            x = x + pair(x)
        return x


class TFGAN(nn.Module):
    """Voicefixer's vocoder: levels [B, M, N] from -4 to 4 -> wave [B, 1, hop N] in [-1, 1], N above 3.

    Five convolutions over the frames; then each of the `rates` raises x + sin(x) by a transposed convolution,
    halves the channels and is followed by `depth` residual pairs. As given: 33,165,185 parameters. Theirs has
    697,280 more, in convolutions whose result is never used; and weight norm, which is folded in here.
    """

    def __init__(
        self,
        n_mels: int = 128,
        condition: int = 512,
        channels: int = 1024,
        rates: Sequence[int] = (7, 7, 3, 3),
        depth: int = 8,
    ):
        super().__init__()
        if channels % 2 ** len(rates):
            raise UserError(f"channels={channels} cannot be halved {len(rates)} times.")
        self.hop = math.prod(rates)
        widths, self.condition = [n_mels, *[condition] * 5], nn.Sequential()
        for inputs, outputs in pairwise(widths):
            self.condition.extend([nn.Conv1d(inputs, outputs, 3, padding=1), nn.ELU()])
        self.first = nn.Conv1d(condition, channels, 7, padding=3, padding_mode="reflect")
        self.ups, self.stacks = nn.ModuleList(), nn.ModuleList()
        for rate in rates:
            odd = rate % 2
            self.ups.append(
                nn.ConvTranspose1d(
                    channels, channels // 2, 2 * rate, rate, rate // 2 + odd, output_padding=odd
                )
            )
            channels //= 2
            self.stacks.append(Stack(channels, depth))
        self.last = nn.Conv1d(channels, 1, 7, padding=3, padding_mode="reflect")

    def forward(self, levels: Tensor) -> Tensor:
        x = self.first(self.condition(levels))
        for up, stack in zip(self.ups, self.stacks, strict=True):
            x = leaky_relu(x, 0.2)
            x = stack(up(x + x.sin()))
        return self.last(leaky_relu(x, 0.2)).tanh()


# The released files ---------------------------------------------------------------------------------------

PREDICTOR, VOCODER = "generator.analysis_module.", "vocoder.model."  # of NVSR's file
BESIDE = ("f_helper.", "mel.")  # in it, what follows from the front-end
NETWORKS = {PREDICTOR: ResUNet, VOCODER: TFGAN}  # as released


def after(prefix: str, found: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in found.items() if name.startswith(prefix)}


def resunet_names(net: ResUNet) -> Iterator[tuple[str, str]]:
    """(ours, released) of its modules."""
    yield from (("middle", f"conv_block{len(net.down) + 1}"), ("tail", "after_conv_block1"))
    yield "head", "after_conv2"
    for level, blocks in enumerate(net.down):
        down, up = f"encoder_block{level + 1}", f"decoder_block{level + 1}"
        yield from ((f"up.{level}.{name}", f"{up}.{name}") for name in ("bn1", "conv1"))
        for n in range(len(blocks)):
            yield f"down.{level}.{n}", f"{down}.conv_block{n + 1}"
            yield f"up.{level}.blocks.{n}", f"{up}.conv_block{n + 2}"


def tfgan_names(net: TFGAN) -> Iterator[tuple[str, str]]:
    """(ours, released) of its modules. Theirs are counted through, with activations and paddings."""
    yield from (
        ("condition", "condnet"),
        ("first", "generator.1"),
        ("last", f"generator.{4 + 3 * len(net.ups)}"),
    )
    for level in range(len(net.ups)):
        yield f"ups.{level}", f"generator.{3 + 3 * level}.layer"
        yield f"stacks.{level}", f"generator.{4 + 3 * level}.layers"


def unused(net: TFGAN) -> set[str]:
    """Released names of what it computes and throws away."""
    return {
        f"generator.{3 + 3 * level}.skip_conv.{kind}"
        for level in range(len(net.ups))
        for kind in ("weight", "bias")
    }


def folded(found: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`found` with plain weights where it has their norms and directions, by PyTorch's old names or new."""
    plain = dict(found)
    for g, v in (("weight_g", "weight_v"), (*(f"parametrizations.weight.original{n}" for n in (0, 1)),)):
        for name in [name for name in plain if name.endswith(f".{g}")]:
            module = name.removesuffix(g)
            direction = plain.get(f"{module}{v}")
            if direction is not None and plain[name].shape == (len(direction), 1, 1):
                length = direction.flatten(1).norm(dim=1).view(-1, 1, 1)
                plain[f"{module}weight"] = plain.pop(name) * plain.pop(f"{module}{v}") / length
    return plain


def renamed(
    found: Mapping[str, Tensor], net: nn.Module, names: Mapping[str, str], of: str, path: Path
) -> dict[str, Tensor]:
    """The state of `net` by our names. Raises UserError where one is missing, unknown or of another shape."""
    rest, state = dict(found), {}
    for name, wanted in net.state_dict().items():
        ours = max((module for module in names if name.startswith(f"{module}.")), key=len)
        theirs = names[ours] + name.removeprefix(ours)
        if theirs not in rest:
            raise UserError(f"{path} is not {of}, or not whole: it lacks {theirs}.")
        state[name] = rest.pop(theirs)
        if state[name].shape != wanted.shape:
            shapes = f"{list(state[name].shape)} where it has {list(wanted.shape)}"
            raise UserError(f"{path} is not {of}: {theirs} is {shapes}.")
    if rest:
        raise UserError(f"{path} is not {of}: it also has {', '.join(list(rest)[:3])} ({len(rest)}).")
    return state


# Stages ---------------------------------------------------------------------------------------------------


class MelPredictor(Stage):
    """`DNN` or `ResUNet` (network: `dnn`, `resunet`; model: its options) on log-mels of `frontend`.

    Signals of another rate are resampled to the front-end's. level: networks hear signals without their mean
    and at peak 0.5, both by what the low one needs, as a vocoder of AudioSR does; False: as they are, as
    released. Term: `l1` of the log-mel (our choice).
    """

    def __init__(
        self,
        weights: Mapping[str, float],
        optimizer: Mapping,
        network: str,
        model: Mapping,
        frontend: Mapping,
        level: bool = False,
    ):
        super().__init__(weights, optimizer)
        self.log_mel, self.level = LogMel(**frontend), level
        n_mels = len(self.log_mel.filters)
        if network not in ("dnn", "resunet"):
            raise UserError(f"network={network}: dnn or resunet.")
        self.net = DNN(n_mels, **model) if network == "dnn" else ResUNet(**model)
        if n_mels % self.net.grid:
            raise UserError(f"frontend.n_mels={n_mels}: a multiple of {self.net.grid} is needed.")
        self.mean_residual = RunningMean(n_mels)

    @classmethod
    def converted(cls, path: Path) -> dict[str, Tensor]:
        """From NVSR's file, `epoch=11-step=22499-val_l=0.27.pth`: a ResUNet. See `Stage.converted`."""
        net, of = on_meta(PREDICTOR), "NVSR"
        found = {
            name: value for name, value in tensors(path).items() if not name.startswith((*BESIDE, VOCODER))
        }
        return renamed(found, net, {o: f"{PREDICTOR}{t}" for o, t in resunet_names(net)}, of, path)

    @property
    def network(self) -> nn.Module:
        return self.net

    def example(self, batch: int, samples: int) -> tuple:
        frames, bands = samples // self.log_mel.hop, len(self.log_mel.filters)
        return (torch.zeros(batch, 1, frames, bands, device=next(self.net.parameters()).device),)

    def image(self, wave: Tensor) -> Tensor:
        """wave [B, 1, T], T a multiple of hop -> log-mel [B, M, T / hop]: none around the very end."""
        return self.log_mel(wave)[..., : wave.shape[-1] // self.log_mel.hop]

    def forward(self, log_mel: Tensor) -> Tensor:
        """log-mel [B, M, N] -> that of the full band."""
        return log_mel + self.net(log_mel.mT[:, None])[:, 0].mT

    def images(self, pair: Pair) -> tuple[Tensor, Tensor]:
        """Log-mels [B, M, N] of the input and of the reference, in whole frames."""
        high = raise_rate(pair.high, self.log_mel.rate, "polyphase")
        low = raise_rate(pair.low, self.log_mel.rate, "polyphase")
        samples = high.wave.shape[-1] // self.log_mel.hop * self.log_mel.hop
        heard, wanted = low.wave[..., :samples], high.wave[..., :samples]
        if self.level:
            lengths = high.lengths.clamp(max=samples)
            heard, mean, gain = normalise(Signal(heard, low.rate, lengths))
            wanted = (wanted - mean) * gain * valid(lengths, samples)[:, None]
        return self.image(heard), self.image(wanted)

    def losses(self, pair: Pair) -> dict[str, Tensor]:
        heard, wanted = self.images(pair)
        if self.training:
            self.mean_residual.update(wanted - heard)
        return {"l1": (self(heard) - wanted).abs().mean()}

    def held_out(self, pair: Pair) -> dict[str, Tensor]:
        """Mean absolute error of the log-mel; the constant adds to every frame what it lacked on average.

        (Which is nearer than the mean log-mel, by far, and than the input as it is.)
        """
        heard, wanted = self.images(pair)
        with torch.no_grad():
            error = (self(heard) - wanted).abs().mean(dim=(1, 2))
        return {"model": error, "constant": self.mean_residual.error(wanted - heard)}


class Vocoder(audiosr.Vocoder):
    """`TFGAN` with its options, trained as AudioSR's vocoder is, on waves at their own level.

    Frame n becomes the samples from n * hop on. (The released code cuts what is too much off both ends, after
    padding one: its waves come 882 to 1323 samples earlier, by their length. Whether its weights are as late,
    which no length would be right for, only they could tell.)
    """

    def __init__(
        self,
        weights: Mapping[str, float],
        optimizer: Mapping,
        model: Mapping,
        critic: Mapping,
        frontend: Mapping,
        critic_from: int,
    ):
        AdversarialStage.__init__(self, weights, optimizer, critic_from=critic_from)  # of another network
        self.log_mel = LogMel(**frontend)
        n_mels = len(self.log_mel.filters)
        self.generator = TFGAN(n_mels, **model)
        if self.generator.hop != self.log_mel.hop or not self.log_mel.log10:
            raise UserError(
                f"nvsr.Vocoder: a log10 mel with a hop of {self.generator.hop} samples is needed."
            )
        self.critic = Critic(**critic)
        self.mean_mel = RunningMean(n_mels)
        band = torch.arange(1, n_mels + 1) * 128 / n_mels
        typical = math.log10(TYPICAL[0]) + TYPICAL[1] * band / math.log(10)
        self.register_buffer("typical", typical[:, None], persistent=False)

    @classmethod
    def converted(cls, path: Path) -> dict[str, Tensor]:
        """From voicefixer's file, `model.ckpt-1490000_trimed.pt`, or NVSR's. See `Stage.converted`.

        Weight norm is folded in, and what is never used left out.
        """
        net, found = on_meta(VOCODER), tensors(path, within="generator")
        if whole := after(VOCODER, found):
            names = {name for name in found if not name.startswith((*BESIDE, PREDICTOR, VOCODER))}
            found = whole | {name: found[name] for name in names}
        found = {name: value for name, value in folded(found).items() if name not in unused(net)}
        return renamed(found, net, dict(tfgan_names(net)), "voicefixer's vocoder", path)

    def forward(self, log_mel: Tensor) -> Tensor:
        """log10 mel [B, M, N] -> wave [B, 1, hop N].

        Heard in decibels below what is typical of a band, from -115 to 0 onto -4 to 4; four or five frames of
        nothing follow.
        """
        decibels = 20 * (log_mel - self.typical).clamp(min=-5) - 20
        levels = (8 * (decibels + 115) / 115 - 4).clamp(-4, 4)
        frames = levels.shape[-1]
        return self.generator(pad(levels, (0, 4 + frames % 2), value=-4.0))[..., : frames * self.log_mel.hop]

    def heard(self, pair: Pair) -> Tensor:
        """[B, 1, hop N] at the front-end's rate."""
        wave = raise_rate(pair.high, self.log_mel.rate, "polyphase").wave
        return wave[..., : wave.shape[-1] // self.log_mel.hop * self.log_mel.hop]

    def generate(self, pair: Pair) -> Wave:
        real = self.heard(pair)
        log_mel = self.log_mel(real)
        return Wave(real, self(log_mel[..., : real.shape[-1] // self.log_mel.hop]), log_mel)

    def training_step(self, pair: Pair, batch: int) -> None:
        self.mean_mel.update(self.log_mel(self.heard(pair)))
        AdversarialStage.training_step(self, pair, batch)

    def held_out(self, pair: Pair) -> dict[str, Tensor]:
        """Mean absolute error of the log-mel of what comes out."""
        with torch.no_grad():
            made = self.generate(pair)
            again = self.log_mel(made.fake)
        model = (again - made.log_mel).abs().mean(dim=(1, 2))
        return {"model": model, "constant": self.mean_mel.error(made.log_mel)}


def on_meta(network: str) -> nn.Module:
    with torch.device("meta"):
        return NETWORKS[network]()


# In use ---------------------------------------------------------------------------------------------------

FRONTEND = {"rate": 44100, "n_fft": 2048, "hop": 441, "n_mels": 128, "fmin": 0, "fmax": 22050, "floor": 1e-8}
FRONTEND |= {"htk": True, "norm": None, "center": True, "log10": True}
DEFAULTS = {"window": 1024, "overlap": 64, "rolloff": 0.97, "cutoff": "estimate"}


class NVSR(SuperResolver):
    """The mel of the input, raised to the full band; its wave; and the known band in it, put back.

    mel: a `MelPredictor`. vocoder: `Vocoder`, or AudioSR's with a front-end of its own (NVSR-48k); it is
    called with a log-mel in the units of its front-end, which the two have in common. Above half of their
    rate nothing is made: of 44.1 kHz, a table at 48 kHz finds nothing above 22.05 kHz.

    window, overlap: frames of 10 ms, both multiples of 64. cutoff: `estimate`, the band edge is where
    `rolloff` of the magnitude of the recording's spectra lies below, as released; `given`: from the protocol,
    or half the input's rate. A silent recording has no edge and stays silent, where the released code leaves
    what its vocoder makes of nothing.
    """

    guests: ClassVar = {  # NVSR-DNN
        "mel": {
            "stage": "nvsr.MelPredictor",
            "weights": {"l1": 1.0},
            "options": {"network": "dnn", "model": {"hidden": [256, 512, 512, 256]}, "frontend": FRONTEND},
        },
        "vocoder": {
            "stage": "nvsr.Vocoder",
            "weights": {"mel": 45.0, "adversarial": 1.0, "feature_matching": 2.0, "critic": 1.0},
            "optimizer": {"lr": 1e-4, "betas": (0.8, 0.99)},
            "options": {
                "model": {"condition": 512, "channels": 1024, "rates": [7, 7, 3, 3], "depth": 8},
                "critic": {"period": {"channels": 32}, "resolution": {"channels": 32}},
                "frontend": FRONTEND,
                "critic_from": 0,
            },
        },
    }
    windows_at_once = 2  # its last layers are 64 channels wide at the full rate

    def __init__(
        self,
        rate: int,
        mel: MelPredictor,
        vocoder: audiosr.Vocoder,
        window: int = DEFAULTS["window"],
        overlap: int = DEFAULTS["overlap"],
        rolloff: float = DEFAULTS["rolloff"],
        cutoff: str = DEFAULTS["cutoff"],
    ):
        super().__init__(rate)
        if mel.log_mel.options != vocoder.log_mel.options:
            raise UserError("NVSR: mel and vocoder have different front-ends.")
        if mel.level == isinstance(vocoder, Vocoder):
            needed = "false" if mel.level else "true"
            raise UserError(f"NVSR: this vocoder needs a mel with options.level={needed}.")
        if window % GRID or overlap % GRID or not 0 <= overlap < window:
            raise UserError(
                f"method.window={window}, method.overlap={overlap}: multiples of {GRID} frames, the overlap "
                "below the window."
            )
        if cutoff not in ("estimate", "given") or not 0 < rolloff < 1:
            raise UserError(f"method.cutoff={cutoff}, method.rolloff={rolloff}: estimate or given; 0 to 1.")
        self.mel, self.vocoder, self.rolloff = mel, vocoder, rolloff
        self.blind, self.internal = cutoff == "estimate", mel.log_mel.rate
        frame = Fraction(GRID * mel.log_mel.hop * rate, self.internal)  # samples at `rate`
        if frame.denominator != 1:
            raise UserError(f"NVSR: {GRID} frames of 10 ms are {float(frame)} samples at {rate} Hz.")
        self.frame = int(frame)
        self.window, self.overlap = window // GRID * self.frame, overlap // GRID * self.frame

    def in_use(self) -> "NVSR":
        """Without the vocoder's critic."""
        self.vocoder.critic = None
        return self

    @classmethod
    def resolved(cls, settings: Mapping) -> dict:
        if unknown := settings.keys() - DEFAULTS.keys():
            raise UserError(f"unknown key method.{min(unknown)}: nvsr has {', '.join(DEFAULTS)}.")
        return DEFAULTS | settings

    def survey(
        self, low: Recording, cutoff: Tensor | None, seeds: Tensor, reference: Recording | None
    ) -> dict[str, Tensor]:
        """One band edge, and one level, for the whole recording."""
        known = self.raised(low, self.internal)
        nothing = torch.zeros(len(seeds), 1, 1, device=seeds.device)
        level = Level.of(known) if self.mel.level else Level(nothing, nothing + 1)
        return {"cutoff": self.band_edge(known) if cutoff is None else cutoff, **level._asdict()}

    def band_edge(self, known: Recording) -> Tensor:
        """[B] Hz, by frames around every 512 samples (silence outside), as librosa's; of silence, the end."""
        (size, hop), total = EDGE, 0.0
        frames = known.samples // hop + 1
        for first in range(0, frames, FRAMES):
            count = min(FRAMES, frames - first)
            wave = known.read(first * hop - size // 2, (count - 1) * hop + size)
            total = total + stft(wave, size, hop, center=False).abs().double().sum(dim=-1, keepdim=True)
        hertz = rolloff(total, self.rolloff) * (known.rate / size)
        return torch.where(total.sum(dim=(1, 2)) > 0, hertz, known.rate / 2).float()

    def windows(
        self,
        low: Recording,
        firsts: Sequence[int],
        count: int,
        whole: Mapping[str, Tensor],
        seeds: Tensor,
        reference: Recording | None,
    ) -> Tensor:
        batch = len(seeds) // len(firsts)
        level = Level(whole["mean"][:batch], whole["gain"][:batch])
        known = level.applied(self.raised(low, self.internal))
        size = resampled_length(count, self.rate, self.internal)
        begins = [first * self.internal // self.rate for first in firsts]  # of frames, so they divide
        heard = torch.cat([known.read(begin, size) for begin in begins])
        made = self.resolve(Signal.of(heard, self.internal), whole["cutoff"], seeds, None)
        out = self.replace_low_band(made, heard, whole["cutoff"]) / whole["gain"] + whole["mean"]
        return resample(out, self.internal, self.rate)[..., :count]

    @torch.no_grad()
    def resolve(self, low: Signal, cutoff: Tensor, seeds: Tensor, reference: Tensor | None) -> Tensor:
        """low: at the front-end's rate -> what the vocoder makes, [B, 1, T] at the same."""
        log_mel, samples = self.mel.log_mel, low.wave.shape[-1]
        whole = -(-max(samples, log_mel.n_fft) // log_mel.hop) * log_mel.hop
        predicted = self.mel(self.mel.image(pad(low.wave, (0, whole - samples))))
        loudest = math.log10(LOUDEST) if log_mel.log10 else math.log(LOUDEST)
        return self.vocoder(predicted.clamp(max=loudest))[..., :samples].float()

    def replace_low_band(self, made: Tensor, known: Tensor, cutoff: Tensor) -> Tensor:
        """[B, 1, T]: `known` below the cut-off [B] Hz, `made` from it on; a hard edge, as released."""
        size, hop = EDGE
        X, Y = stft(known, size, hop), stft(made, size, hop)
        bins = (cutoff * size / self.internal).round()
        bins = torch.where(cutoff < self.internal / 2, bins, size // 2 + 1)
        return istft(torch.where(valid(bins, size // 2 + 1)[..., None], X, Y), size, hop, made.shape[-1])
