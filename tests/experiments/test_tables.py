"""The published cells, beside their transcription."""

import csv
from collections import Counter
from pathlib import Path

from experiments.configuration import load_paper, load_table, paper_names

TRANSCRIPTION = Path(__file__).parents[1] / "published" / "published_tables.csv"
COORDINATES = ["dataset", "scale", "cutoff_hz", "loss", "metric"]
FIELDS = ["paper", "table", "system", *COORDINATES, "value", "std"]


def published() -> list[dict]:
    """All published cells of all papers, by the names of the transcription."""
    cells = []
    for paper in paper_names():
        for name in load_paper(paper)["tables"]:
            table = load_table(paper, name)
            columns = {column.key: column for column in table.columns}
            for row in table.rows:
                for key, value in row.published.items():
                    column = {field: getattr(columns[key], field) for field in COORDINATES}
                    own = {"paper": paper, "table": name, "system": row.system}
                    cells.append(own | column | {"value": value, "std": row.std.get(key)})
    return cells


def plain(value: object) -> float | str:
    """Numbers as numbers, however they are written; nothing as an empty text."""
    text = "" if value is None else str(value)
    return float(text) if text.replace(".", "", 1).removeprefix("-").isdigit() else text


def test_there_are_175_published_cells():
    assert len(published()) == 175


def test_every_value_is_a_number_or_not_available():
    assert not [
        cell
        for cell in published()
        if not isinstance(cell["value"], int | float | None) and cell["value"] != "N/A"
    ]


def test_cells_are_those_of_the_transcription():
    with TRANSCRIPTION.open(newline="") as lines:
        theirs = Counter(tuple(plain(cell[field]) for field in FIELDS) for cell in csv.DictReader(lines))
    ours = Counter(tuple(plain(cell[field]) for field in FIELDS) for cell in published())
    assert ours == theirs
