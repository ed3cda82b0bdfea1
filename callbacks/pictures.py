"""Pictures: how every one is written, and what one that cannot be drawn costs, which is nothing else."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from signals.errors import UserError
from signals.files import replacing
from signals.names import one_line


def blank(size: tuple[float, float], **options):
    """An empty picture of so many inches, which needs no screen."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, **options)
    FigureCanvasAgg(figure)
    return figure


def write_picture(figure, path: Path, dpi: int) -> None:
    """Writes a PNG whole or not at all. What the font lacks, such as emoji, is a box in it."""
    with warnings.catch_warnings(), replacing(path) as unfinished:
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        warnings.filterwarnings("ignore", message="Matplotlib currently does not support")  # some scripts
        figure.savefig(unfinished, dpi=dpi, format="png")


@contextmanager
def spared(what: str, report: Callable[[str], None]) -> Iterator[None]:
    """A block that draws: where it fails, that is one line, and everything else goes on."""
    try:
        yield
    except UserError as error:
        report(one_line(f"{what} is not drawn: {error}"))
    except Exception as error:  # whatever it is: numbers do not depend on pictures
        reason = next(filter(str.strip, str(error).splitlines()), "")
        report(one_line(f"{what} is not drawn: {type(error).__name__}: {reason}"))
