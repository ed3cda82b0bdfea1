"""How methods learn and predict. One line here makes a method known to every table and command."""

import importlib
import importlib.util
from collections.abc import Mapping

from signals.errors import UserError

METHODS = {
    "unprocessed": "baselines:Unprocessed",
    "spline": "baselines:Spline",
    "cubic": "baselines:Cubic",
    "linear": "baselines:Linear",
    "hold": "baselines:Hold",
    "sinc": "baselines:Sinc",
    "audiosr": "audiosr:AudioSR",
    "gt_mel": "audiosr:GTMel",
}


def find_stage(name: str) -> type:
    """`audiosr.VAE` -> the class. Raises UserError where there is none."""
    module, _, stage = name.rpartition(".")
    if not module or importlib.util.find_spec(f"lightning_modules.{module}") is None:
        raise UserError(f"no stage {name}.")
    found = getattr(importlib.import_module(f"lightning_modules.{module}"), stage, None)
    if found is None:
        raise UserError(f"no stage {name}.")
    return found


def find_method(name: str) -> type:
    """`audiosr` -> the class. Raises UserError where there is none."""
    if name not in METHODS:
        raise UserError(f"unknown method {name}: one of {', '.join(METHODS)}.")
    module, _, method = METHODS[name].partition(":")
    return getattr(importlib.import_module(f"lightning_modules.{module}"), method)


def build_method(name: str, rate: int, parts: Mapping[str, object], settings: Mapping):
    """A SuperResolver at `rate` Hz from trained parts. Raises UserError where the method is not known."""
    return find_method(name)(rate=rate, **parts, **settings)
