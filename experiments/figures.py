"""The figures of the papers, drawn from records: python experiments/figures.py --help"""

import argparse
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import yaml

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
from experiments.records import task_name
from signals.errors import UserError
from signals.files import replacing


class Figure(NamedTuple):
    """A figure as its paper states it: rows of a table side by side, a line for each column's task."""

    paper: str
    name: str
    title: str
    table: Table
    columns: list[str]
    rows: list[str]
    before: list[str]  # of what is shown beside the rows: `input`, `reference`
    after: list[str]


def figure_names(paper: str) -> list[str]:
    return load_paper(paper).get("figures", [])


@cache
def load_figure(paper: str, name: str) -> Figure:
    """Raises UserError where the paper has no such figure."""
    if name not in figure_names(paper):
        raise UserError(f"{paper} has no figure {name}" + nearest(name, figure_names(paper)))
    page = yaml.safe_load((PAPERS / paper / f"{name}.yaml").read_text())
    return Figure(paper, name, **page | {"table": load_table(paper, page["table"])})


def record_of(
    figure: Figure, system: str, column: Column, records: list[dict], preset, protocol
) -> dict | None:
    """The record that the table prints in this cell."""
    row = figure.table.row(system)
    if column not in figure.table.cells(row):
        return None
    chosen = cell(figure.table, row, column, records, preset, protocol)["run"]
    return next((record for record in records if record["id"] == chosen), None)


def kept(folder: Path, kind: str) -> set[str]:
    """File names of the recordings that a tested cell kept."""
    return {path.name for path in (folder / "recordings" / kind).glob("*.wav")}


def read_wave(path: Path) -> tuple[np.ndarray, int]:
    import soundfile

    try:
        return soundfile.read(path, dtype="float32")
    except soundfile.SoundFileError:
        raise UserError(f"{path} is damaged: remove {path.parents[2]} to make it again.") from None


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


def draw(figure: Figure, output: Path, preset: str | None = None, protocol: str | None = None) -> Path:
    """Writes the figure below `output`, from the records that its table prints, and returns its path.

    Raises UserError where no record of it is there.
    """
    records = scored(output, figure.paper)
    columns = {column.key: column for column in figure.table.columns}
    lines, names, made = {}, [], {}
    for key in figure.columns:
        found = {
            system: record
            for system in figure.rows
            if (record := record_of(figure, system, columns[key], records, preset, protocol))
        }
        if not found:
            continue
        folders = {system: output / figure.paper / record["id"] for system, record in found.items()}
        first = next(iter(found.values()))
        name, lines[task_name(first)] = panels(figure, folders)
        names.append(name)
        made |= {
            f"preset {record['preset']}, protocol {record['protocol']}": None for record in found.values()
        }
    if not lines:
        raise UserError(
            f"{figure.paper} {figure.name}: no records below {output} yet: "
            f"run.py --paper {figure.paper} --table {figure.table.name} makes them."
        )
    path = output / figure.paper / "figures" / f"{figure.name}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    title = f"{figure.title}\n{', '.join(dict.fromkeys(names))}; {'; '.join(made)}"
    with replacing(path) as partial:
        draw_spectrograms(partial, lines, title)
    return path


def draw_of(table: Table, output: Path, preset: str, protocol: str, report: Callable[[str], None]) -> None:
    """Draws the figures of a table; one that cannot be drawn is a line."""
    for name in figure_names(table.paper):
        figure = load_figure(table.paper, name)
        if figure.table == table:
            try:
                report(f"{name}: {draw(figure, output, preset, protocol)}")
            except UserError as error:
                report(f"{name} is not drawn: {error}")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description="Draw the figures of a paper from the records of its tables."
    )
    parser.add_argument("--paper", required=True, help="one of " + ", ".join(paper_names()))
    parser.add_argument("--figure", help="only this one")
    parser.add_argument("--preset", choices=PRESETS, help="of this preset only (default: what tables print)")
    parser.add_argument("--protocol", default="published", help="published (default) or aligned")
    parser.add_argument("--output", default="runs", help="where the records are (default: %(default)s)")
    args = parser.parse_args(argv)
    try:
        check_protocol(args.protocol, [args.paper])
        names = [args.figure] if args.figure else figure_names(args.paper)
        if not names:
            raise UserError(f"{args.paper} has no figures.")
        for name in names:
            print(draw(load_figure(args.paper, name), Path(args.output), args.preset, args.protocol))
    except (UserError, OSError) as error:
        print(f"figures.py: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
