"""How methods learn and predict. One line here makes a method known to every table and command."""

import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from signals.errors import UserError

METHODS = {
    "unprocessed": "baselines:Unprocessed",
    "silence": "baselines:Silence",
    "spline": "baselines:Spline",
    "cubic": "baselines:Cubic",
    "linear": "baselines:Linear",
    "hold": "baselines:Hold",
    "sinc": "baselines:Sinc",
    "fourier": "baselines:Fourier",
    "envelope": "baselines:EnvelopeNoise",
    "audioedsr": "audioedsr:AudioEDSR",
    "king_audiounet": "audioedsr:AudioUNet",
    "audiounetgan": "audioedsr:AudioUNetGAN",
    "linear_equaliser": "audioedsr:LinearEqualiser",
    "qista": "qista:QistaNetAudio",
    "tfnet": "tfnet:TimeFrequency",
    "fma_unet": "fma_unet:FmaUNet",
    "separate_then_enhance": "separation:SeparateThenEnhance",
    "kuleshov_audiounet": "kuleshov:KuleshovAudioUNet",
    "kuleshov_tfilm": "kuleshov:KuleshovTFiLM",
    "li_dnn": "li_dnn:LiDNN",
    "mfnet_like": "mfnet:MfNetLike",
    "mfnet_like_gan": "mfnet:MfNetLikeGAN",
    "nuwave": "nuwave:NuWave",
    "nuwave2": "nuwave2:NuWave2",
    "audiosr": "audiosr:AudioSR",
    "gt_mel": "audiosr:GTMel",
    "nvsr": "nvsr:NVSR",
}


def find_stage(name: str) -> type:
    """`audiosr.VAE`, or a single stage as `find_method` names it -> the class. Raises UserError."""
    module, _, stage = name.rpartition(".")
    if ":" in name or name in METHODS:
        return find_method(name)
    if not module or importlib.util.find_spec(f"lightning_modules.{module}") is None:
        raise UserError(f"no stage {name}.")
    found = getattr(importlib.import_module(f"lightning_modules.{module}"), stage, None)
    if found is None:
        raise UserError(f"no stage {name}.")
    return found


def find_method(name: str) -> type:
    """`audiosr`, or a class in a file of one's own, `mine.py:Net` -> the class.

    Raises UserError where it is not there, and before a file is executed that nobody at the command named.
    """
    if ":" in name:
        file, _, class_name = name.rpartition(":")
        path, source = Path(file).resolve(), own_source(name)
        if path not in _named:
            raise UserError(f"{name} would be executed: only a file that you name by --method is.")
        return _own_class(path, class_name, source)
    if name not in METHODS:
        raise UserError(f"unknown method {name}: one of {', '.join(METHODS)}, or your own file.py:Class.")
    module, _, method = METHODS[name].partition(":")
    return getattr(importlib.import_module(f"lightning_modules.{module}"), method)


_named: set[Path] = set()  # by the person at the command


def trust(name: str | None) -> None:
    """Lets the file of `mine.py:Net` be executed, because the person at the command names it.

    That a record, a folder, a hub or a YAML file names it is no reason. A method of ours needs no trust.
    """
    if name and ":" in name:
        _named.add(Path(name.rpartition(":")[0]).resolve())


def trusted() -> list[Path]:
    """Files that may be executed."""
    return sorted(_named)


def in_trusted_file(name: str, source: str | None, folder: Path) -> str:
    """The class that a record in `folder` was made by, as one in the trusted file that has its hash `source`.

    A method of ours keeps its name. Raises UserError where no trusted file is what the record was made by.
    """
    if ":" not in name:
        return name
    _, _, class_name = name.rpartition(":")
    for path in trusted():
        if own_source(found := f"{path}:{class_name}") == source:
            return found
    if not _named:
        raise UserError(
            f"{folder} was made by {name}, which would be executed: if you trust it, add --method {name}"
        )
    raise UserError(f"{name} was changed since {folder} was made: bring it back, or train it again.")


def own_source(name: str) -> str | None:
    """The hash of the file of `mine.py:Net`, by which its results are named; None for a method of ours."""
    if ":" not in name:
        return None
    path = Path(name.rpartition(":")[0])
    if path.suffix != ".py" or not path.is_file():
        raise UserError(f"method {name}: no file {path}" + (" of Python's." if path.is_file() else "."))
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


@cache
def _own_class(path: Path, class_name: str, source: str) -> type:
    spec = importlib.util.spec_from_file_location(f"own_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where a dataclass looks for its own module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise UserError(f"method {path.name} cannot be imported: {type(error).__name__}: {error}") from error
    if not isinstance(getattr(module, class_name, None), type):
        raise UserError(f"method {path.name}: no class {class_name} in it.")
    return getattr(module, class_name)


def build_method(name: str, rate: int, parts: Mapping[str, object], settings: Mapping):
    """A SuperResolver at `rate` Hz from trained parts; one that was trained itself is its part `itself`.

    settings: of a method made of parts; of one that was trained itself, those of its use (`variant` is of its
    training). Raises UserError where the method or a setting is not known.
    """
    if "itself" not in parts:
        return find_method(name)(rate=rate, **parts, **settings)
    parts["itself"].used(**{key: value for key, value in settings.items() if key != "variant"})
    return parts["itself"]
