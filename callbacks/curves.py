"""Loss curves of a run, from the CSV files that its logger wrote (one an attempt, if it was resumed)."""

import csv
from pathlib import Path


def read_curves(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """metric -> (step, value) over all attempts; a later attempt replaces what it repeats."""
    curves: dict[str, dict[int, float]] = {}
    for file in sorted(folder.glob("curves/*/metrics.csv")):
        with file.open(newline="") as lines:
            for row in csv.DictReader(lines):
                for name, value in row.items():
                    if value and name not in ("epoch", "step"):
                        curves.setdefault(name, {})[int(row["step"])] = float(value)
    return {name: sorted(points.items()) for name, points in curves.items()}


def draw_curves(folder: Path, title: str) -> None:
    """Writes `curves.png`: training losses on the left, held-out measures on the right."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    curves = read_curves(folder)
    figure = Figure(figsize=(10, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    for axis, side in zip(figure.subplots(1, 2), ("train", "held_out"), strict=True):
        for name, points in curves.items():
            if name.startswith(side + "/"):
                axis.plot(*zip(*points, strict=True), label=name.removeprefix(side + "/"), marker=".", ms=3)
        axis.set(title=side.replace("_", " "), xlabel="step")
        if axis.lines:
            axis.legend(fontsize=8)
            if all(y > 0 for line in axis.lines for y in line.get_ydata()):
                axis.set_yscale("log")
    figure.suptitle(title, fontsize=9)
    figure.savefig(folder / "curves.png", dpi=90)
