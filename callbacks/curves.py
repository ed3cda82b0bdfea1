"""Loss curves of a run: written line by line while it trains, drawn when it is finished, and for papers."""

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean

from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from callbacks.pictures import blank, write_picture
from signals.names import label

Points = Sequence[tuple[float, float]]


class CurveLogger(Logger):
    """Appends lines of step, metric and value to `curves.csv` in `folder`; a resumed run repeats some.

    Every line begins with its newline: what a killed process left of one spoils no other.
    """

    name, version = "curves", ""

    def __init__(self, folder: Path):
        super().__init__()
        self.path = folder / "curves.csv"

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        if not self.path.exists():
            self.path.write_text("step,metric,value")
        lines = [f"\n{step},{name},{value}" for name, value in metrics.items() if name != "epoch"]
        with self.path.open("a") as file:
            file.write("".join(lines))

    def log_hyperparams(self, *args, **kwargs) -> None:
        """They are in `config.yaml`."""


class WandbCurves(Logger):
    """Logs `<name>/<metric>` beside `<name>/step` to a W&B run, which several trainings share.

    run: an open `wandb` run. name: of the training. report: called where W&B fails, which ends no training.
    """

    version = ""

    def __init__(self, run, name: str, report: Callable[[str], None]):
        super().__init__()
        self.run, self.training, self.report, self.failed = run, name, report, False

    @property
    def name(self) -> str:
        return self.training

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        values = {f"{self.name}/{name}": value for name, value in metrics.items() if name != "epoch"}
        if self.failed:
            return
        try:
            self.run.log(values | {f"{self.name}/step": step})
        except Exception as error:  # whatever it is: the curves are in a file, too
            self.failed = True
            self.report(f"run {self.name}: W&B has no more of its curves: {error}")

    def log_hyperparams(self, *args, **kwargs) -> None:
        """They are the run's already."""


def read_curves(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """metric -> (step, value); a later line replaces what it repeats."""
    curves: dict[str, dict[int, float]] = {}
    path = folder / "curves.csv"
    for line in path.read_text().splitlines() if path.is_file() else ():
        try:
            step, _, rest = line.partition(",")
            name, _, value = rest.rpartition(",")  # a name may have commas
            curves.setdefault(name, {})[int(step)] = float(value)
        except ValueError:  # the header, or a line that was cut off
            continue
    return {name: sorted(points.items()) for name, points in curves.items()}


def by_check(points: Points, checks: Sequence[int]) -> Points:
    """(step, value) -> (check, mean value since the check before), from 1 on. checks: the steps of them all.

    What came after the last check is left out.
    """
    found: dict[int, list[float]] = {}
    for step, value in points:
        found.setdefault(bisect_left(checks, step) + 1, []).append(value)
    return [(check, fmean(values)) for check, values in found.items() if check <= len(checks)]


def canvas(width: float, title: str):
    """An empty picture, `width` inches wide."""
    figure = blank((width, 3.6), layout="constrained")
    figure.suptitle(label(title), fontsize=9)
    return figure


def explain(axis) -> None:
    """A legend, and a logarithmic axis where all that is drawn is positive."""
    if axis.lines:
        axis.legend(fontsize=8)
        if all(y > 0 for line in axis.lines for y in line.get_ydata()):
            axis.set_yscale("log")


def draw_curves(folder: Path, title: str) -> None:
    """Writes `curves.png`: training losses on the left, held-out measures on the right."""
    curves, figure = read_curves(folder), canvas(10, title)
    for axis, side in zip(figure.subplots(1, 2), ("train", "held_out"), strict=True):
        for name, points in curves.items():
            if name.startswith(side + "/"):
                told = label(name.removeprefix(side + "/"))
                axis.plot(*zip(*points, strict=True), label=told, marker=".", ms=3)
        axis.set(title=side.replace("_", " "), xlabel="step")
        explain(axis)
    write_picture(figure, folder / "curves.png", dpi=90)


def draw_losses(
    path: Path, curves: Mapping[str, Points], marks: Mapping[str, Points], title: str, x: str
) -> None:
    """One picture of `curves` by their names; `marks`, published points of some of them, in their colours.

    x: what is counted: steps, epochs.
    """
    figure = canvas(6, title)
    axis = figure.subplots()
    for name, points in curves.items():
        (line,) = axis.plot(*zip(*points, strict=True), label=label(name), marker=".", ms=3)
        if name in marks:
            style = {"color": line.get_color(), "marker": "o", "fillstyle": "none", "linestyle": "none"}
            axis.plot(*zip(*marks[name], strict=True), label=f"{label(name)}, published", **style)
    axis.set(xlabel=x, ylabel="loss")
    explain(axis)
    write_picture(figure, path, dpi=90)
