"""The golden vectors and published numbers that travel with the tests: small, described, harmless."""

import csv
from pathlib import Path

import numpy as np
import pytest

HERE = Path(__file__).parent
FILES = sorted(path for name in ("goldens", "published") for path in (HERE / name).iterdir())
VECTORS = [path for path in FILES if path.suffix == ".npz"]
LIMIT = 6_000_000  # bytes


def test_they_are_small():
    assert sum(path.stat().st_size for path in FILES) < LIMIT


def test_the_page_tells_of_every_file():
    page = (HERE / "goldens" / "README.md").read_text()
    assert not [path.name for path in FILES if path.suffix != ".md" and f"`{path.name}`" not in page]


@pytest.mark.parametrize("path", VECTORS, ids=lambda path: path.name)
def test_vectors_are_finite_numbers_and_as_many_as_the_page_says(path):
    page = (HERE / "goldens" / "README.md").read_text()
    with np.load(path, allow_pickle=False) as arrays:
        assert f"| `{path.name}` | {len(arrays.files)} arrays" in page
        wrong = [name for name in arrays.files if not np.isfinite(np.asarray(arrays[name], float)).all()]
    assert not wrong


ROWS = {"published_tables": 175, "today_tables": 180, "ssr_eval_unprocessed_per_file": 18}


@pytest.mark.parametrize(("name", "rows"), ROWS.items())
def test_published_numbers_are_all_there(name, rows):
    with (HERE / "published" / f"{name}.csv").open() as lines:
        assert len(list(csv.DictReader(lines))) == rows
