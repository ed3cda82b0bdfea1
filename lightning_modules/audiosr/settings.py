"""Where AudioSR's released code and text part ways: `method.variant=code|text` (papers/audiosr/README.md)."""

from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from difflib import get_close_matches

from signals.errors import UserError
from signals.filters import KINDS
from signals.interpolation import INTERPOLATIONS

STEPS = 1000  # T, diffusion steps in training


@dataclass(frozen=True)
class Settings:
    """How a trained AudioSR is used. Defaults: variant `text`, the paper, our choice where it is silent."""

    rolloff: float = 0.99  # share of the magnitude below the band edge; librosa's is by frame, ours summed
    prefilters: tuple[str, ...] = ("chebyshev",)  # drawn per item; order 8, zero-phase
    prefilter_passes: int = 1
    prefilter_resamples: bool = False  # to the rate of the band edge and back, after each pass but the last
    upsample: str = "cubic"
    sampler: str = "ddim"  # or `dpm`: DPM-Solver++ of second order, which has trailing steps and eta 0
    spacing: str = "trailing"  # of the steps: from the zero-SNR step 999; `leading`: from 981 (50 steps)
    steps: int = 50  # a divisor of T below it, so that the sampler's steps are equal
    eta: float = 0.0  # of DDIM: 1 is stochastic
    guidance: float = 3.5  # released default; not in the paper
    rescale: float = 0.7  # of guidance (Lin et al. 2023)
    null_condition: float = 0.0  # every element of an absent condition, before scaling
    sample_condition: bool = False  # or the posterior's mode
    average: bool = True  # sample with the moving average of the weights
    paste: str = "input"  # the low band put back: the `input` itself, or `filtered` as the network saw it
    seam: float = 500.0  # Hz over which the pasted band cross-fades into the generated one; 0: hard
    keep_level: bool = True  # or leave it at peak 0.5 without its mean
    cutoff: str = (
        "estimate"  # band edge from the roll-off; `given`: from the protocol, or half the input rate
    )

    @classmethod
    def of(cls, variant: str = "text", **changes) -> "Settings":
        """The settings of a variant with single keys changed (None: unchanged). Raises UserError."""
        _one_of("variant", variant, VARIANTS)
        known = [f.name for f in fields(cls)]
        for key in changes:
            if key not in known:
                near = get_close_matches(key, known, n=1)
                raise UserError(
                    f"unknown key method.{key}" + (f": did you mean method.{near[0]}?" if near else ".")
                )
        given = {key: value for key, value in changes.items() if value is not None}
        for key, value in given.items():
            _same_kind(key, getattr(VARIANTS[variant], key), value)
        settings = replace(VARIANTS[variant], **given)
        for key, allowed in CHOICES.items():
            _one_of(key, getattr(settings, key), allowed)
        for kind in settings.prefilters:
            _one_of("prefilters", kind, KINDS)
        if not 0 < settings.steps < STEPS or STEPS % settings.steps:
            raise UserError(f"method.steps={settings.steps}: must divide {STEPS} and be less.")
        if settings.sampler == "dpm" and (settings.spacing, settings.eta) != ("trailing", 0):
            raise UserError("method.sampler=dpm: set method.spacing=trailing and method.eta=0, or use ddim.")
        return settings


CHOICES = {
    "sampler": ("ddim", "dpm"),
    "upsample": ("polyphase", *INTERPOLATIONS),
    "spacing": ("leading", "trailing"),
    "paste": ("input", "filtered"),
    "cutoff": ("estimate", "given"),
}


def _same_kind(key: str, old: object, new: object) -> None:
    kinds = {bool: bool, int: int, float: (int, float), str: str, tuple: (list, tuple)}
    wrong_bool = isinstance(new, bool) and not isinstance(old, bool)
    if wrong_bool or not isinstance(new, kinds[type(old)]):
        raise UserError(f"method.{key}={new}: a value like {old} is needed.")


def _one_of(key: str, value: str, allowed: Iterable[str]) -> None:
    if value not in allowed:
        near = get_close_matches(str(value), allowed, n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise UserError(f"method.{key}={value}: one of {', '.join(allowed)}.{hint}")


VARIANTS = {
    "text": Settings(),
    "code": Settings(
        rolloff=0.985,
        prefilters=("butterworth", "chebyshev", "elliptic", "bessel"),
        prefilter_passes=2,
        prefilter_resamples=True,
        upsample="sinc",
        spacing="leading",
        eta=1.0,
        rescale=0.0,
        null_condition=-11.4981,
        sample_condition=True,
        average=False,
        paste="filtered",
        seam=0.0,
        keep_level=False,
    ),
}
