"""Where AudioSR's released code and its text part ways: `method.variant=code|text` (specs/audiosr.md, 4.1)."""

from dataclasses import dataclass, fields, replace
from difflib import get_close_matches

from signals.errors import UserError


@dataclass(frozen=True)
class Settings:
    """How a trained AudioSR is used. Defaults are variant `text`: the paper, our choice where it is silent."""

    rolloff: float = 0.99  # share of the time-summed magnitude below the estimated band edge
    prefilters: tuple[str, ...] = ("chebyshev",)  # drawn per item; order 8, zero-phase
    prefilter_passes: int = 1
    upsample: str = "cubic"
    spacing: str = "trailing"  # of the DDIM steps: from the zero-SNR step 999; `leading`: from 981 (50 steps)
    steps: int = 50
    eta: float = 0.0  # of DDIM: 1 is stochastic
    guidance: float = 3.5  # released default; not in the paper
    rescale: float = 0.7  # of guidance (Lin et al. 2023)
    null_condition: float = 0.0  # every element of an absent condition, before scaling
    sample_condition: bool = False  # or the posterior's mode
    average: bool = True  # sample with the moving average of the weights
    paste: str = "input"  # the low band put back: the `input` itself, or `filtered` as the network saw it
    seam: float = 500.0  # Hz over which the pasted band cross-fades into the generated one; 0: hard
    keep_level: bool = True  # or leave it at peak 0.5 without its mean
    cutoff: str = "estimate"  # band edge from the roll-off; `given`: from the protocol, or half the input rate

    @classmethod
    def of(cls, variant: str = "text", **changes) -> "Settings":
        """The settings of a variant with single keys changed (None: unchanged). Raises UserError."""
        if variant not in VARIANTS:
            raise UserError(f"method.variant={variant}: one of {', '.join(VARIANTS)}.")
        known = [f.name for f in fields(cls)]
        for key in changes:
            if key not in known:
                near = get_close_matches(key, known, n=1)
                raise UserError(f"unknown key method.{key}" + (f": did you mean method.{near[0]}?" if near else "."))
        return replace(VARIANTS[variant], **{k: v for k, v in changes.items() if v is not None})


VARIANTS = {
    "text": Settings(),
    "code": Settings(
        rolloff=0.985,
        prefilters=("butterworth", "chebyshev", "elliptic", "bessel"),
        prefilter_passes=2,
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
