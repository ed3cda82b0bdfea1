"""Whether torch and torchaudio are a pair: of some versions either loads, but not both."""

import sys
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version

# torch: the torchaudio that loads and passes the tests beside it. The first pair is in constraints.txt.
PAIRS = {"2.11.0": "2.11.0", "2.15.0": "2.11.1"}


def known(torch: str, torchaudio: str) -> bool:
    """Whether a pair was tested, both of one build: `2.11.0+cpu` goes with `2.11.0+cpu`."""
    (base, *build), (other, *other_build) = torch.split("+"), torchaudio.split("+")
    return PAIRS.get(base) == other and build == other_build


def remedy(torch: str) -> str:
    """The command that brings a pair, with the torch that is there if it has one."""
    base = torch.split("+")[0]
    wanted = base if base in PAIRS else next(iter(PAIRS))
    return f"pip install torch=={wanted} torchaudio=={PAIRS[wanted]}"


def trouble() -> str | None:
    """The line that says what is wrong with the two and what mends it; None where both load.

    A tested pair is believed, so that a command that needs neither starts without them.
    """
    try:
        torch, torchaudio = version("torch"), version("torchaudio")
    except PackageNotFoundError as missing:
        return f"{missing.name} is not installed: pip install -c constraints.txt -e ."
    if known(torch, torchaudio):
        return None
    try:
        import_module("torchaudio")  # which imports torch
    except (ImportError, OSError, RuntimeError, AttributeError) as error:
        why = next(iter(str(error).splitlines()), type(error).__name__)
        return f"torch {torch} and torchaudio {torchaudio} do not load together: {remedy(torch)} ({why})"
    return None


def check_pair() -> None:
    """Ends the command in one line, with status 2, where torch and torchaudio do not load together."""
    if line := trouble():
        print(line, file=sys.stderr)
        sys.exit(2)
