"""The figures of the papers, drawn from records: python experiments/figures.py --help"""

import experiments  # noqa: F401  isort: skip  first: it says how PyTorch's threads wait

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import yaml

from callbacks.curves import Points, by_check, draw_losses, read_curves
from callbacks.pictures import spared
from callbacks.spectrograms import draw_spectrograms
from experiments.compare import cell, check_protocol, scored
from experiments.configuration import (
    PAPERS,
    PRESETS,
    Column,
    Table,
    load_paper,
    load_table,
    nearest,
    paper_names,
)
from experiments.ratings import draw_ratings, read_ratings
from experiments.records import task_name
from signals.audio_files import Unreadable, read_audio
from signals.errors import UserError
from signals.names import one_line

Drawing = Callable[[Path], None]


class Figure(NamedTuple):
    """Spectrograms as a paper states them: rows of a table side by side, a line for each column's task."""

    paper: str
    name: str
    title: str
    table: Table
    columns: list[str]
    rows: list[str]
    before: list[str]  # of what is shown beside the rows: `input`, `reference`
    after: list[str]


class Curves(NamedTuple):
    """Losses of the run behind a row of a table, as a paper states them."""

    paper: str
    name: str
    title: str
    table: Table
    row: str
    curves: Mapping[str, str]  # what `curves.csv` calls each that is drawn: `train/stft`, `held_out/model`
    x: str = "step"  # or `epoch`, from one check to the next: what was learnt is averaged over it
    published: Mapping[str, Points] = {}  # points of the same, by their names


class Ratings(NamedTuple):
    """What listeners say of the outputs of generators before and after a system, as a paper states it."""

    paper: str
    name: str
    title: str
    generators: Mapping[str, str]  # as they are printed; others that were rated come after them
    table: None = None  # ratings are no records


def figure_names(paper: str) -> list[str]:
    return load_paper(paper).get("figures", [])


@cache
def load_figure(paper: str, name: str) -> Figure | Curves | Ratings:
    """Raises UserError where the paper has no such figure."""
    if name not in figure_names(paper):
        raise UserError(f"{paper} has no figure {name}" + nearest(name, figure_names(paper)))
    page = yaml.safe_load((PAPERS / paper / f"{name}.yaml").read_text())
    if "generators" in page:
        return Ratings(paper, name, **page)
    kind = Curves if "curves" in page else Figure
    return kind(paper, name, **page | {"table": load_table(paper, page["table"])})


def record_of(
    table: Table, system: str, column: Column, records: list[dict], preset, protocol
) -> dict | None:
    """The record that the table prints in this cell."""
    row = table.row(system)
    if column not in table.cells(row):
        return None
    chosen = cell(table, row, column, records, preset, protocol)["run"]
    return next((record for record in records if record["id"] == chosen), None)


def kept(folder: Path, kind: str) -> set[str]:
    """File names of the recordings that a tested cell kept."""
    return {path.name for path in (folder / "recordings" / kind).glob("*.wav")}


def read_wave(path: Path) -> tuple[np.ndarray, int]:
    try:
        wave, rate = read_audio(path)
    except Unreadable:
        raise UserError(f"{path} is damaged: remove {path.parents[2]} to make it again.") from None
    return wave[:, 0], rate


def panels(figure: Figure, found: dict[str, Path]) -> tuple[str, dict[str, tuple[np.ndarray, int] | None]]:
    """The recording that all of a line's records kept, and its waves. found: a system's folder.

    Raises UserError where they kept none in common.
    """
    common = set.intersection(*(kept(folder, "estimate") for folder in found.values()))
    if not common:
        raise UserError(f"{', '.join(found)} kept no recording in common: test them with pictures=1 or more.")
    name, some = min(common), next(iter(found.values()))
    waves = {kind: read_wave(some / "recordings" / kind / name) for kind in figure.before}
    for system in figure.rows:
        waves[system] = (
            read_wave(found[system] / "recordings" / "estimate" / name) if system in found else None
        )
    waves |= {kind: read_wave(some / "recordings" / kind / name) for kind in figure.after}
    return name.removesuffix(".wav"), waves


def draw(
    figure: Figure | Curves | Ratings,
    output: Path,
    preset: str | None = None,
    protocol: str | None = None,
    ratings: Sequence[Path] = (),
) -> Path:
    """Writes the figure below `output`, from the records that its table prints, and returns its path.

    ratings: files of what listeners said. Raises UserError where no record of it is there, or no ratings.
    """
    if isinstance(figure, Ratings):
        drawing = ratings_of(figure, ratings)
    else:
        drawing_of = losses_of if isinstance(figure, Curves) else spectrograms_of
        drawing = drawing_of(figure, output, scored(output, figure.paper), preset, protocol)
    path = output / figure.paper / "figures" / f"{figure.name}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    drawing(path)
    return path


def nothing_yet(figure: Figure | Curves, output: Path) -> UserError:
    return UserError(
        f"{figure.paper} {figure.name}: no records below {output} yet: "
        f"run.py --paper {figure.paper} --table {figure.table.name} makes them."
    )


def made_by(record: dict) -> str:
    return f"preset {record['preset']}, protocol {record['protocol']}"


def spectrograms_of(figure: Figure, output: Path, records: list[dict], preset, protocol) -> Drawing:
    """What writes the figure to a path. Raises UserError where there is nothing of it."""
    columns = {column.key: column for column in figure.table.columns}
    lines, names, made = {}, [], {}
    for key in figure.columns:
        found = {
            system: record
            for system in figure.rows
            if (record := record_of(figure.table, system, columns[key], records, preset, protocol))
        }
        if not found:
            continue
        folders = {system: output / figure.paper / record["id"] for system, record in found.items()}
        first = next(iter(found.values()))
        name, lines[task_name(first)] = panels(figure, folders)
        names.append(name)
        made |= {made_by(record): None for record in found.values()}
    if not lines:
        raise nothing_yet(figure, output)
    title = f"{figure.title}\n{', '.join(dict.fromkeys(names))}; {'; '.join(made)}"
    return partial(draw_spectrograms, lines=lines, title=title)


def losses_of(figure: Curves, output: Path, records: list[dict], preset, protocol) -> Drawing:
    """What writes the figure to a path. Raises UserError where the row has no run, or lacks a curve."""
    tested = (
        record_of(figure.table, figure.row, column, records, preset, protocol)
        for column in figure.table.columns
    )
    record = next((record for record in tested if record), None)
    if record is None:
        raise nothing_yet(figure, output)
    if not record["runs"]:
        raise UserError(f"{figure.paper} {figure.name}: {figure.row} has no run, so no losses.")
    run = next(iter(record["runs"].values()))  # of a method that was trained itself, the only one
    kept = read_curves(output / figure.paper / run)
    if lacking := [curve for curve in figure.curves.values() if curve not in kept]:
        raise UserError(
            f"{figure.paper} {figure.name}: run {run} kept no curve {lacking[0]} "
            f"(it kept: {', '.join(kept) or 'none'})."
        )
    curves = {name: kept[curve] for name, curve in figure.curves.items()}
    if figure.x == "epoch":
        checks = [step for step, _ in kept["held_out/model"]]
        curves = {name: by_check(points, checks) for name, points in curves.items()}
    title = f"{figure.title}\nrun {run}; {made_by(record)}"
    return partial(draw_losses, curves=curves, marks=figure.published, title=title, x=figure.x)


def ratings_of(figure: Ratings, paths: Sequence[Path]) -> Drawing:
    """What writes the figure to a path. Raises UserError without ratings, or where they are broken."""
    if not paths:
        raise UserError(
            f"{figure.paper} {figure.name} is what listeners say: listen.py makes the page that asks them; "
            "name the ratings.csv that they hand in by --ratings."
        )
    answers = read_ratings(paths)
    rated = dict.fromkeys(generator for _, generator, _ in answers)
    order = [name for name in figure.generators if name in rated]
    order += [name for name in rated if name not in order]
    lines = {
        figure.generators.get(name, name): {
            place: said for place, said in answers.items() if place[1] == name
        }
        for name in order
    }
    listeners = len({listener for listener, _, _ in answers})
    title = (
        f"{figure.title}\nlisteners: {listeners}; lines: 95 % over listeners and items (bootstrap of both)"
    )
    return partial(draw_ratings, lines=lines, title=title)


def draw_of(table: Table, output: Path, preset: str, protocol: str, report: Callable[[str], None]) -> None:
    """Draws the figures of a table; one that cannot be drawn is a line."""
    for name in figure_names(table.paper):
        figure = load_figure(table.paper, name)
        if figure.table == table:
            with spared(name, report):
                report(f"{name}: {draw(figure, output, preset, protocol)}")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description="Draw the figures of a paper from the records of its tables."
    )
    parser.add_argument("--paper", required=True, help="one of " + ", ".join(paper_names()))
    parser.add_argument("--figure", help="only this one")
    parser.add_argument("--preset", choices=PRESETS, help="of this preset only (default: what tables print)")
    parser.add_argument("--protocol", default="published", help="published (default) or aligned")
    parser.add_argument("--output", default="runs", help="where the records are (default: %(default)s)")
    parser.add_argument(
        "--ratings", nargs="+", default=[], type=Path, metavar="CSV", help="what listeners said (listen.py)"
    )
    args = parser.parse_args(argv)
    try:
        check_protocol(args.protocol, [args.paper])
        names = [args.figure] if args.figure else figure_names(args.paper)
        if not names:
            raise UserError(f"{args.paper} has no figures.")
        chosen = [load_figure(args.paper, name) for name in names]
        if args.ratings and not any(isinstance(figure, Ratings) for figure in chosen):
            raise UserError("--ratings: no figure of these is drawn from ratings.")
        for figure in chosen:
            if isinstance(figure, Ratings) and not args.ratings and not args.figure:
                print(f"{figure.name} is not drawn: it needs --ratings")
                continue
            print(draw(figure, Path(args.output), args.preset, args.protocol, args.ratings))
    except (UserError, OSError) as error:
        print(one_line(f"figures.py: {error}"), file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
