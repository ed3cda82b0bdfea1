"""AudioSR in use: estimate the band edge, diffuse the latent, vocode, put the known band back."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict

import torch
from torch import Tensor

from lightning_modules.audiosr.frontend import STRETCH, Level, normalise
from lightning_modules.audiosr.latent_diffusion import LatentDiffusion
from lightning_modules.audiosr.networks import LAYOUT
from lightning_modules.audiosr.released import let_go
from lightning_modules.audiosr.settings import Settings
from lightning_modules.audiosr.vae import VAE
from lightning_modules.audiosr.vocoder import Vocoder
from lightning_modules.stage import uniform
from lightning_modules.super_resolver import SuperResolver
from signals.errors import UserError
from signals.filters import Lowpass, lowpass, there_and_back
from signals.spectra import istft, rolloff, stft
from signals.types import Recording, Signal

ORDER = 8  # of the pre-filter
LOWEST = 1000.0  # Hz; a lower estimate means dark or silent material, not a band edge (as released)
CONTEXT = 8192  # samples on each side of a window in which the pre-filter settles
HIGHEST = 0.98  # of the Nyquist frequency: above, the band counts as full


class AudioSR(SuperResolver):
    """Any input up to 48 kHz, any band edge from 2 to 16 kHz, to 48 kHz full band.

    window, overlap: frames of 10 ms; windows are multiples of 64 frames. Faults of the released code that are
    not repeated: silence and dark input crash it, every window of a long file is levelled, filtered and given
    noise on its own, padding is off by one for some lengths.
    """

    version = 3

    def __init__(
        self,
        rate: int,
        vae: VAE,
        ldm: LatentDiffusion,
        vocoder: Vocoder,
        window: int,
        overlap: int,
        **settings: Mapping,
    ):
        super().__init__(rate)
        self.vae, self.ldm, self.vocoder = vae, ldm, vocoder
        self.settings = Settings.of(**settings)
        self.upsample = self.settings.upsample
        self.blind = self.settings.cutoff == "estimate"
        if window % 64:
            raise UserError(f"method.window={window}: a multiple of 64 frames is needed.")
        if not 0 <= overlap <= window - 8:
            raise UserError(f"method.overlap={overlap}: 0 to {window - 8} is needed, 8 below the window.")
        hop = vae.log_mel.hop
        self.grid = 64 * hop  # samples: 8 of the autoencoder times 8 of the denoiser, in frames
        self.frame = 8 * hop  # of the latent, so that windows share its noise where they overlap
        self.window, self.overlap = window * hop, overlap * hop

    @classmethod
    def resolved(cls, settings: Mapping) -> dict:
        chosen = {key: value for key, value in settings.items() if key not in ("window", "overlap")}
        return {"window": settings["window"], "overlap": settings["overlap"], **asdict(Settings.of(**chosen))}

    def in_use(self) -> "AudioSR":
        """Without critics, and with one set of the denoiser's weights."""
        self.vae.critic = self.vocoder.critic = None
        self.ldm.vae = self.vae  # of a trained run it has one of its own
        self.ldm.unet = self.ldm.averaged = self.ldm.averaged if self.settings.average else self.ldm.unet
        for images in (self.vae.generator, self.ldm.unet):
            images.to(memory_format=LAYOUT)  # not that of a file
        let_go()
        return self

    def survey(
        self, low: Recording, cutoff: Tensor | None, seeds: Tensor, reference: Recording | None
    ) -> dict[str, Tensor]:
        """One level, one band edge and one pre-filter (by its seed) for the whole recording."""
        raised = self.raised(low)
        level = Level.of(raised)
        if cutoff is None:
            cutoff = self.band_edge(level.applied(raised), low.rate / 2)
        return {"cutoff": cutoff, "seeds": seeds, **level._asdict()}

    def windows(
        self,
        low: Recording,
        firsts: Sequence[int],
        count: int,
        whole: Mapping[str, Tensor],
        seeds: Tensor,
        reference: Recording | None,
    ) -> Tensor:
        batch, cutoff = len(seeds) // len(firsts), whole["cutoff"]
        level = Level(whole["mean"][:batch], whole["gain"][:batch])
        wave = level.applied(self.raised(low))
        known = torch.cat([wave.read(first - CONTEXT, count + 2 * CONTEXT) for first in firsts])
        filtered = self.prefilter(known, cutoff, whole["seeds"])
        known, filtered = (wave[..., CONTEXT : CONTEXT + count] for wave in (known, filtered))
        frames = torch.tensor(firsts, device=seeds.device).repeat_interleave(batch) // self.frame
        # With the recordings' seeds, not the windows': what overlaps shares its noise.
        made = self.resolve(Signal.of(filtered, self.rate), cutoff, whole["seeds"], None, frames)
        out = self.replace_low_band(made, known if self.settings.paste == "input" else filtered, cutoff)
        return out / whole["gain"] + whole["mean"] if self.settings.keep_level else out

    def resolve_whole(
        self, low: Recording, cutoff: Tensor | None, seeds: Tensor, reference: Recording | None
    ) -> Tensor:
        """At peak 0.5 where the level is not kept. (`enhance` cannot know the peak before the end.)"""
        wave = super().resolve_whole(low, cutoff, seeds, reference)
        return wave if self.settings.keep_level else normalise(Signal.of(wave, self.rate))[0]

    def band_edge(self, recording: Recording, highest: float) -> Tensor:
        """[B] Hz, at most `highest`: below it lies `rolloff` of the time-summed magnitude of a recording.

        Paper: "the 99% roll-off", which we take of the whole recording. It depends on the content: explicit
        cut-offs are better where they are known. Silent and dark material has no band edge of its own; it
        gets `highest`, half the rate it came at, where the released code sets 24 kHz and crashes.
        """
        log_mel = self.vae.log_mel
        summed = sum(
            log_mel.magnitude(self.padded(wave)).sum(dim=-1, keepdim=True)
            for wave in recording.stretches(STRETCH // self.grid * self.grid)
        )
        hertz = rolloff(summed, self.settings.rolloff) * self.rate / 2 / (summed.shape[1] - 1)
        return torch.where(hertz < LOWEST, highest, hertz.clamp(max=highest)).float()

    def padded(self, wave: Tensor) -> Tensor:
        """wave [B, 1, T] with zeros up to the next multiple of the grid."""
        return torch.nn.functional.pad(wave, (0, -wave.shape[-1] % self.grid))

    def prefilter(self, wave: Tensor, cutoff: Tensor, seeds: Tensor) -> Tensor:
        """Order-8 zero-phase low-pass at the band edge [B] Hz: the input as training saw it."""
        kinds = self.settings.prefilters
        chosen = [kinds[int(u * len(kinds))] for u in uniform(seeds)]
        narrow = cutoff < HIGHEST * self.rate / 2
        if not narrow.any():
            return wave
        filters = [
            Lowpass(kind, ORDER, float(hertz))
            for kind, hertz, is_narrow in zip(chosen, cutoff, narrow, strict=True)
            if is_narrow
        ]
        out = wave.clone()
        for number in range(self.settings.prefilter_passes):
            if number and self.settings.prefilter_resamples:
                out[narrow] = there_and_back(out[narrow], cutoff[narrow], self.rate)
            out[narrow] = lowpass(out[narrow], filters, self.rate, zero_phase=True)
        return out

    @torch.no_grad()
    def resolve(
        self,
        low: Signal,
        cutoff: Tensor,
        seeds: Tensor,
        reference: Tensor | None,
        firsts: Tensor | None = None,
    ) -> Tensor:
        """firsts: latent frames [B] of their recordings (by seed) at which windows begin (None: 0)."""
        image = self.vae.image(self.padded(low.wave))
        latent = self.ldm.sample(*self.vae.posterior(image), seeds, self.settings, firsts)
        decoded = self.vae.decode(latent)
        known = self.mel_centres() < cutoff[:, None]  # [B, M]
        log_mel = torch.where(known[:, None, None], image, decoded)
        return self.vocoder(log_mel[:, 0].mT)[..., : low.wave.shape[-1]].float()

    def mel_centres(self) -> Tensor:
        """[M] Hz: centre of mass of each mel filter."""
        filters = self.vae.log_mel.filters
        hertz = torch.linspace(0, self.rate / 2, filters.shape[1], device=filters.device)
        return (filters * hertz).sum(dim=1) / filters.sum(dim=1).clamp(min=1e-12)

    def replace_low_band(self, made: Tensor, known: Tensor, cutoff: Tensor) -> Tensor:
        """[B, 1, T]: `known` below the cut-off [B] Hz, `made` above, levels matched at the seam.

        r is the magnitude of the known signal over that of the made one, summed over time in the bin of the
        cut-off and within [0.8, 1.2] as released. It scales the generated band, so that the known one stays
        what it was. (Variant `code` scales the known band by 1/r instead, as released.)
        """
        size, hop = 2048, 512
        X, Y = stft(known, size, hop), stft(made, size, hop)
        hertz = torch.linspace(0, self.rate / 2, X.shape[1], device=X.device)
        edge = (hertz - cutoff[:, None]).abs().argmin(dim=1)
        rows = torch.arange(len(X), device=X.device)
        r = X[rows, edge].abs().sum(dim=-1) / Y[rows, edge].abs().sum(dim=-1).clamp(min=1e-8)
        r = r.clamp(0.8, 1.2)[:, None, None]
        seam = max(self.settings.seam, 1e-3)
        full = cutoff[:, None] >= HIGHEST * self.rate / 2
        share = ((cutoff[:, None] - hertz) / seam).clamp(0, 1).where(~full, 1)[..., None]  # of X, [B, F, 1]
        mixed = (
            share * X + (1 - share) * Y * r
            if self.settings.paste == "input"
            else share * X / r + (1 - share) * Y
        )
        return istft(mixed, size, hop, made.shape[-1])


class GTMel(SuperResolver):
    """The vocoder on the mel of the reference: what no front half could exceed (Table 1, `GT-Mel`)."""

    oracle = True

    def __init__(self, rate: int, vocoder: Vocoder):
        super().__init__(rate)
        self.vocoder = vocoder
        hop = vocoder.log_mel.hop
        self.window, self.overlap = 1024 * hop, 64 * hop

    def survey(
        self, low: Recording, cutoff: Tensor | None, seeds: Tensor, reference: Recording
    ) -> dict[str, Tensor]:
        """One level for the whole recording."""
        return Level.of(reference)._asdict()

    def windows(
        self,
        low: Recording,
        firsts: Sequence[int],
        count: int,
        whole: Mapping[str, Tensor],
        seeds: Tensor,
        reference: Recording,
    ) -> Tensor:
        batch = len(seeds) // len(firsts)
        reference = Level(whole["mean"][:batch], whole["gain"][:batch]).applied(reference)
        made = super().windows(low, firsts, count, whole, seeds, reference)
        return made / whole["gain"] + whole["mean"]

    @torch.no_grad()
    def resolve(self, low: Signal, cutoff: Tensor, seeds: Tensor, reference: Tensor) -> Tensor:
        log_mel, samples = self.vocoder.log_mel, reference.shape[-1]
        padded = torch.nn.functional.pad(reference, (0, max(-samples % log_mel.hop, log_mel.n_fft - samples)))
        return self.vocoder(log_mel(padded))[..., :samples].float()
