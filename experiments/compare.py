"""Our numbers beside the published ones, or beside each other: python experiments/compare.py --help"""

import argparse
import sys
import textwrap
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from statistics import fmean, pstdev
from typing import NamedTuple

from experiments.configuration import (
    LISTENER_METRICS,
    PRESETS,
    Column,
    Row,
    Table,
    configure,
    load_paper,
    load_table,
    own_row,
    paper_names,
)
from experiments.costs import COLUMNS, behind, cost, rounded
from experiments.differences import differences, read_scored
from experiments.records import STANDINGS, all_records, files_scored, standing
from signals import versions
from signals.errors import UserError
from signals.names import csv_text, html_text, markdown, one_line, say

FIELDS = (
    *("paper", "table", "system", "dataset", "scale", "cutoff_hz", "loss", "metric", "published"),
    *("reproduced", "measured", "standing", "std", "files", "seeds", "protocol", "preset", "run"),
    *COLUMNS.values(),
)
DIFFERENCE_FIELDS = (
    *("paper", "dataset", "scale", "cutoff_hz", "loss", "system", "metric", "a", "b", "difference"),
    *("low", "high", "p", "files", "record_a", "record_b"),
)
TIME = "real_time_factor"  # as a column's metric: of the test itself, not of its files
NOT_LEARNT = ("block_seam", "clicks", TIME)  # in which the unprocessed input is no measure of learning
HIGHER_IS_BETTER = ("snr", "sdr", "pesq", "stoi", "visqol", "nisqa")  # in the name of a metric's function
MARKS = {"reproduction": "", "partial": "p", "demo": "d", "stand-in": "s", "untrained": "u"}
FINE = ("STOI", "L1", "MSE", "STFT_loss", TIME)  # metrics whose names begin so are printed with four decimals
MEANINGS = {
    "p": "partial: not the whole published split, or not its protocol",
    "d": "demo: a small preset, not a result",
    "s": "stand-in: other recordings in the place of the corpus, or another method in that of the system",
    "u": "untrained: worse than the unprocessed input",
}


def built(paper: str) -> bool:
    return "config" in load_paper(paper)


def matching(
    table: Table, records: list[dict], row: Row, column: Column, preset: str | None, protocol: str | None
) -> list[dict]:
    """Records of this cell, as run under its row's own changes of the protocol."""
    return [
        r
        for r in records
        if (r["system"], r["dataset"], r["scale"], r["cutoff_hz"], r["loss"])
        == (row.system, column.dataset, column.scale, column.cutoff_hz, column.loss)
        and column.metric in r["mean"]
        and r["identity"].get("table", {}) == table.config
        and (r["kind"] == "count" or (preset in (None, r["preset"]) and protocol in (None, r["protocol"])))
        and is_current(r)
    ]


def is_current(record: dict) -> bool:
    """Whether a record was made by the degradations and metrics of today."""
    made_by = record["identity"].get("versions", [])[1:]
    return record["kind"] == "count" or made_by == [versions.DEGRADATIONS, versions.METRICS]


def with_own(table: Table, records: list[dict]) -> Table:
    """The table with a row for each method of `--method` that has records of its tasks."""
    tasks = {column.task for column in table.columns}
    known = {row.system for row in table.rows}
    own = {
        record["system"]: record["identity"]["method"]
        for record in records
        if ":" in record["identity"]["method"] and record["system"] not in known
        if (record["dataset"], record["scale"], record["cutoff_hz"], record["loss"]) in tasks
    }
    return replace(table, rows=(*table.rows, *(own_row(*pair) for pair in own.items())))


def standing_among(record: dict, records: list[dict], metric: str) -> str:
    """What a record's number is worth, judged by the unprocessed input among `records`.

    By the metric in question or, where the paper's page has `judged_by`, by that one: what its systems learn.
    """
    judged_by = load_paper(record["paper"]).get("judged_by")
    metric = judged_by if judged_by in record["mean"] else metric
    inputs = [
        r
        for r in records
        if r["identity"]["method"] == "unprocessed"
        and all(
            r["identity"].get(key) == record["identity"].get(key)
            for key in ("task", "rule", "rate", "recordings", "average")
        )
        and is_current(r)
    ]
    unprocessed = inputs[0]["mean"].get(metric) if inputs else None
    metrics = record["identity"].get("rule", {}).get("metrics", {})
    computed_by = metrics.get(metric.removesuffix("-LF").removesuffix("-HF"), metric).lower()
    unprocessed = None if computed_by.startswith(NOT_LEARNT) else unprocessed
    lower_is_better = not any(name in computed_by for name in HIGHER_IS_BETTER)
    return standing(record, unprocessed, lower_is_better, metric)


def cell(table: Table, row: Row, column: Column, records: list[dict], preset=None, protocol=None) -> dict:
    """One line of the CSV: the published value and the best record of ours (standing first, then the newest).

    Over several seeds, the mean and its spread over seeds; of one, the spread over files. `records`: of ours
    that it is made of.
    """
    line = dict.fromkeys(FIELDS, "") | {"records": []}
    line |= {"paper": table.paper, "table": table.name, "system": row.system, "metric": column.metric}
    line |= {key: getattr(column, key) or "" for key in ("dataset", "scale", "cutoff_hz", "loss")}
    line["published"] = row.published.get(column.key, "")
    if column.metric in LISTENER_METRICS:
        line["standing"] = "needs a listening test"
        return line
    found = matching(table, records, row, column, preset, protocol)
    if not found:
        return line

    def worth(record: dict) -> str:
        return standing_among(record, records, column.metric)

    # The preset decides before "untrained" does: a full run that failed must not hide behind a demo.
    order = {name: place for place, name in enumerate(reversed(PRESETS))}
    best = min(order[r["preset"]] for r in found)
    found = [r for r in found if order[r["preset"]] == best]
    ranked = sorted(found, key=lambda r: r["provenance"]["finished"], reverse=True)
    chosen = min(ranked, key=lambda r: STANDINGS.index(worth(r)))
    seeds = {r["seed"]: r for r in reversed(ranked) if r["family"] == chosen["family"]}
    values = [r["mean"][column.metric] for r in seeds.values()]
    spread = pstdev(values) if len(values) > 1 else chosen["std"].get(column.metric)
    kind = max((worth(r) for r in seeds.values()), key=STANDINGS.index)
    if column.key in row.corrected:
        kind = max(kind, "partial", key=STANDINGS.index)
    expected = chosen["expected"]
    number = f"{fmean(values):.0f}" if chosen["kind"] == "count" else f"{fmean(values):.4g}"
    line["reproduced" if kind == "reproduction" else "measured"] = number
    line |= {
        "standing": kind,
        "std": "" if spread is None else f"{spread:.3g}",  # of one test, its time has none
        "files": f"{files_scored(chosen, column.metric):,}" + (f" of {expected:,}" if expected else ""),
        "seeds": len(values),
        "protocol": chosen["protocol"],
        "preset": chosen["preset"],
        "run": chosen["id"],
        "records": [record for record in seeds.values() if record["kind"] == "score"],
    }
    return line


def lines(table: Table, output: Path, preset: str | None = None, protocol: str | None = None) -> list[dict]:
    """All cells of a table, published or measured, with what they cost and all the `records` behind them."""
    every = list(all_records(output, table.paper))
    records, runs = in_tables(every), {record["id"]: record for record in every if record["kind"] == "run"}
    found = [
        cell(table, row, column, records, preset, protocol)
        for row in table.rows
        for column in table.cells(row)
    ]
    for line in found:
        line["records"] = behind(line["records"], runs)
        spent = cost(line["records"])
        line |= {key: "" if value is None else f"{value:.4g}" for key, value in spent.items()}
    return found


def scored(output: Path, paper: str) -> list[dict]:
    """What stands in a paper's tables."""
    return in_tables(all_records(output, paper))


def in_tables(records: Iterable[dict]) -> list[dict]:
    """What stands in tables: scores, with the time that they took, and counts."""
    found = [record for record in records if record["kind"] in ("score", "count")]
    for record in found:
        record["mean"] |= {TIME: record[TIME]} if TIME in record else {}
    return found


def shown(line: dict) -> str:
    """`published / ours`, ours marked with its standing."""
    if line["standing"] == "needs a listening test":
        return str(line["published"])
    ours = line["reproduced"] or line["measured"]
    decimals = 0 if line["metric"] == "parameters" else 4 if line["metric"].startswith(FINE) else 2
    ours = f"{float(ours):,.{decimals}f}{MARKS[line['standing']]}" if ours else "·"
    return f"{line['published']} / {ours}" if line["published"] != "" else ours


class Sheet(NamedTuple):
    """A printed table: title, column names, lines of text cells, and what the reader must know."""

    title: str
    header: list[str]
    body: list[list[str]]
    notes: list[str]


def table_sheet(table: Table, found: list[dict]) -> Sheet:
    """A table of a paper, one line a row, with what it cost at the end."""
    coordinates = ("dataset", "scale", "cutoff_hz", "loss", "metric")
    body, spent = [], []
    for row in table.rows:
        mine = {tuple(line[c] for c in coordinates): line for line in found if line["system"] == row.system}
        texts = [row.system]
        for column in table.columns:
            line = mine.get(tuple(getattr(column, c) or "" for c in coordinates))
            texts.append(shown(line) if line else "")
        body.append(texts)
        spent.append(cost(record for line in mine.values() for record in line["records"]))
    header, notes = ["system", *(column.key for column in table.columns)], footer(table, found)
    told = [name for name, key in COLUMNS.items() if any(one[key] is not None for one in spent)]
    for texts, one in zip(body, spent, strict=True):
        texts += [rounded(one[COLUMNS[name]]) for name in told]
    if told:
        notes.append(f"{', '.join(told)}: as measured on {machines(found)}")
    return Sheet(f"{table.paper} {table.name}. {table.title}", header + told, body, notes)


def machines(found: list[dict]) -> str:
    """Those that made the records behind these lines."""
    made = (record.get("provenance", {}).get("machine") for line in found for record in line["records"])
    return "; ".join(dict.fromkeys(filter(None, made)))


def footer(table: Table, found: list[dict]) -> list[str]:
    """What the reader must know: marks, protocols, files, cells that nobody can compute."""
    notes = ["published / ours"] if any(line["published"] != "" for line in found) else []
    ours = [line for line in found if line["run"]]
    marks = {MARKS[line["standing"]] for line in ours}
    notes += [f"{mark}  {meaning}" for mark, meaning in MEANINGS.items() if mark in marks]
    for key in ("protocol", "preset"):
        if values := sorted({line[key] for line in ours}):
            notes.append(f"{key}: {', '.join(values)}")
    if ours:
        files = dict.fromkeys(f"{line['dataset']} {line['files']}" for line in ours)
        notes.append(f"files: {', '.join(files)}")
    if listeners := sorted({c.key for c in table.columns if c.metric in LISTENER_METRICS}):
        notes.append(f"{', '.join(listeners)}: needs a listening test, so only the published value is here")
    notes += [f"{row.system}: {row.stand_in}" for row in table.rows if row.stand_in]
    notes += [f"{row.system} {key}: {note}" for row in table.rows for key, note in row.notes.items()]
    return notes


def difference_sheet(found: list[dict], notes: list[str]) -> Sheet:
    """Two sets of records beside each other, a line a metric."""
    body = []
    for line in found:
        interval = f"{line['low']:.3g} ... {line['high']:.3g}" if line["low"] != "" else ""
        p = ("< 0.001" if line["p"] < 0.001 else f"{line['p']:.2g}") if line["p"] != "" else ""
        means = (f"{line[key]:.4g}" for key in ("a", "b"))
        difference = f"{line['difference']:+.3g}"
        body.append(
            [
                line["task"],
                line["system"],
                line["metric"],
                *means,
                difference,
                interval,
                p,
                str(line["files"]),
            ]
        )
    header = ["task", "system", "metric", "A", "B", "A - B", "95 % interval", "p", "files"]
    return Sheet("A and B on the same files", header, body, notes)


def render_terminal(sheet: Sheet) -> None:
    from rich.console import Console
    from rich.table import Table as RichTable
    from rich.text import Text

    console = Console(width=None if sys.stdout.isatty() else 240)
    pretty = RichTable(title=Text(one_line(sheet.title), "table.title"), title_justify="left")
    # The first column folds between words only. Rich would crop the last ones to keep to that.
    names = [word for texts in sheet.body for word in texts[0].split()]
    whole = sum(max(map(len, column)) + 3 for column in zip(sheet.header, *sheet.body, strict=True)) + 1
    fold = max(map(len, names), default=1) if whole > console.width else whole
    pretty.add_column(Text(one_line(sheet.header[0])), no_wrap=True)
    for name in sheet.header[1:]:
        pretty.add_column(Text(one_line(name.replace("_", " "))), justify="right", overflow="fold")
    for texts in sheet.body:
        name = textwrap.wrap(one_line(texts[0]), fold, break_on_hyphens=False)
        pretty.add_row(Text("\n".join(name)), *(Text(one_line(cell)) for cell in texts[1:]))
    console.print(pretty)
    for note in sheet.notes:
        say(console, note)
    console.print()


def render_markdown(sheet: Sheet) -> str:
    rule = ["---", *("---:" for _ in sheet.header[1:])]
    rows = [[*map(markdown, texts)] for texts in (sheet.header, *sheet.body)]
    lines = ["| " + " | ".join(texts) + " |" for texts in (rows[0], rule, *rows[1:])]
    return "\n".join(
        [f"### {one_line(sheet.title)}", "", *lines, "", *(f"- {one_line(note)}" for note in sheet.notes), ""]
    )


def render_html(sheet: Sheet) -> str:
    head = "".join(f"<th>{html_text(name.replace('_', ' '))}</th>" for name in sheet.header)
    lines = ("".join(f"<td>{html_text(text)}</td>" for text in texts) for texts in sheet.body)
    rows = "".join(f"<tr>{line}</tr>" for line in lines)
    notes = "".join(f"<li>{html_text(note)}</li>" for note in sheet.notes)
    head = f"<h2>{html_text(sheet.title)}</h2><table><thead><tr>{head}</tr></thead>"
    return f"{head}<tbody>{rows}</tbody></table><ul>{notes}</ul>"


PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>Wideband: tables</title>
<style>body{font:15px/1.5 system-ui;margin:2rem;color:#222}table{border-collapse:collapse;margin:1rem 0}
th,td{padding:.3rem .7rem;border-bottom:1px solid #ddd;text-align:right}
th:first-child,td:first-child{text-align:left}
ul{color:#555}</style>"""


def print_csv(fields: Iterable[str], found: Iterable[dict]) -> None:
    fields = list(fields)
    print(csv_text([fields, *([line.get(field, "") for field in fields] for line in found)]), end="")


def print_sheets(sheets: Iterable[Sheet], form: str) -> None:
    if form == "html":
        print(PAGE + "".join(map(render_html, sheets)))
    elif form == "markdown":
        print("\n".join(map(render_markdown, sheets)))
    else:
        for sheet in sheets:
            render_terminal(sheet)


def show(
    tables: Iterable[Table], output: Path, form: str, preset: str | None = None, protocol: str | None = None
):
    """Prints tables in one of the four formats."""
    tables = [with_own(table, scored(output, table.paper)) for table in tables]
    found = [(table, lines(table, output, preset, protocol)) for table in tables]
    if form == "csv":
        print_csv(
            FIELDS, (line for _, cells in found for line in cells if line["published"] != "" or line["run"])
        )
    else:
        print_sheets((table_sheet(*pair) for pair in found), form)


def check_protocol(protocol: str, papers: Iterable[str]) -> None:
    """Raises UserError where none of the papers has it; of those that are not built it is not known."""
    known = {name for paper in papers if built(paper) for name in configure(paper, "full")["protocols"]}
    if known and protocol not in known:
        raise UserError(f"unknown protocol {protocol}: one of {', '.join(sorted(known))}.")


def show_differences(args: argparse.Namespace) -> None:
    """Prints how two sets of records differ on the same files."""
    if len(args.sets) != 2 or args.table:
        raise UserError("two sets to compare: compare.py A B, without --table; see --help.")
    a, b = (read_scored(path, args.paper, args.preset, args.protocol) for path in args.sets)
    found, notes = differences(a, b)
    if args.format == "csv":
        print_csv(DIFFERENCE_FIELDS, found)
    else:
        print_sheets([difference_sheet(found, notes)], args.format)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description="Our numbers beside the published ones; with A and B, beside each other.",
        epilog="A and B: a scored row's folder (runs/PAPER/HASH), a folder of runs, or a CSV of evaluate.py. "
        "Two rows are compared as they are, folders row by row: the same system, task and seed.",
    )
    parser.add_argument("sets", nargs="*", type=Path, metavar="A B", help="what to compare with what")
    parser.add_argument("--paper", help="only this paper")
    parser.add_argument("--table", help="only this table of the paper")
    parser.add_argument("--format", choices=("terminal", "markdown", "csv", "html"), default="terminal")
    parser.add_argument("--preset", choices=PRESETS, help="only numbers of this preset")
    parser.add_argument("--protocol", default="published", help="of our numbers (default: %(default)s)")
    parser.add_argument("--output", default="runs", help="folder of the runs (default: %(default)s)")
    args = parser.parse_args(argv)
    try:
        papers = [args.paper] if args.paper else paper_names()
        check_protocol(args.protocol, papers)
        if args.sets:
            show_differences(args)
            return 0
        if args.table and not args.paper:
            raise UserError("--table needs --paper.")
        tables = [
            load_table(paper, name)
            for paper in papers
            for name in ([args.table] if args.table else load_paper(paper)["tables"])
        ]
        show(tables, Path(args.output), args.format, args.preset, args.protocol)
        if not any(list(Path(args.output, paper).glob("*/record.json")) for paper in papers):
            print(one_line(f"compare.py: no records below {args.output} yet"), file=sys.stderr)
    except (UserError, OSError) as error:
        print(one_line(f"compare.py: {error}"), file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
