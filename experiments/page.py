"""The page of a record: all that is known of a run or a scored row, in one file that any browser shows."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import yaml

from experiments.compare import MARKS, MEANINGS, standing_among
from experiments.configuration import load_paper
from experiments.costs import behind, cost, rounded
from experiments.records import cell_name, files_scored, read_record
from signals.files import replacing
from signals.names import file_names, html_text, html_url

KINDS = ("input", "estimate", "reference")
YARDSTICKS = ("trained", "start", "untrained", "constant")
STYLE = """
:root{color-scheme:light dark;--text:light-dark(#1d2129,#dfe3ea);--dim:light-dark(#667080,#98a2b3);
--line:light-dark(#dde1e7,#333a45);--back:light-dark(#fff,#15181d);--box:light-dark(#f5f7f9,#1d2128);
--link:light-dark(#0b62c4,#7ab3ff)}
body{font:15px/1.55 system-ui,sans-serif;max-width:1280px;margin:2rem auto;padding:0 1.2rem;
color:var(--text);background:var(--back)}
h1{font-size:1.6rem;line-height:1.25;margin:.2rem 0}h2{font-size:1.1rem;margin:2.2rem 0 .6rem}
h3{font-size:1rem;margin:1.4rem 0 .4rem}
a{color:var(--link);text-decoration:none}a:hover{text-decoration:underline}
.dim{color:var(--dim)}.wide{overflow-x:auto}.whole{white-space:nowrap}.told{min-width:18rem}
code{overflow-wrap:anywhere}
table{border-collapse:collapse;font-variant-numeric:tabular-nums}
th,td{padding:.3rem .8rem;border-bottom:1px solid var(--line);text-align:left;vertical-align:top}
th{font-weight:600;white-space:nowrap}.number{text-align:right;white-space:nowrap}
table.sortable th{cursor:pointer}table.sortable th[data-order]::after{content:" ▾"}
table.sortable th[data-order="-1"]::after{content:" ▴"}
.facts th{color:var(--dim);font-weight:400}.facts td,.facts th{border:0;padding:.1rem 1.2rem .1rem 0}
img{max-width:100%;border-radius:4px;background:#fff}
.audio{display:grid;grid-template-columns:repeat(auto-fit,minmax(240px,1fr));gap:.8rem;margin:.5rem 0}
.audio figure{margin:0}audio{width:100%}
pre{background:var(--box);padding:1rem;border-radius:6px;overflow:auto;font-size:13px}
summary{cursor:pointer;margin:.4rem 0}
"""
# A click on a column's name sorts by it, a second click the other way round.
SORT = """
for (const head of document.querySelectorAll("table.sortable th")) head.onclick = () => {
  const order = head.dataset.order === "1" ? -1 : 1, body = head.closest("table").tBodies[0];
  for (const other of head.parentNode.children) delete other.dataset.order;
  head.dataset.order = order;
  const value = row => row.cells[head.cellIndex].dataset.value ?? row.cells[head.cellIndex].textContent;
  const compare = (a, b) => a - b || (isNaN(a) || isNaN(b) ? (isNaN(a) - isNaN(b)) || a.localeCompare(b) : 0);
  body.append(...[...body.rows].sort((a, b) => order * compare(value(a), value(b))));
};
"""


# Pieces of HTML; every text goes through `text`, every address through `html_url` --------------------------

text = html_text


def number(value: float, digits: str = ".4g") -> str:
    """A cell that sorts by its value."""
    return f'<td class="number" data-value="{value!r}">{text(format(value, digits))}</td>'


def link(target: str, words: object) -> str:
    return f'<a href="{html_url(target)}">{text(words)}</a>'


def table(header: Iterable[str], rows: Iterable[Iterable[str]], kind: str = "") -> str:
    """header: texts, with a leading `#` where the column holds numbers. rows: finished cells (`<td>...`)."""
    cells = (f"<th{' class=number' if h[:1] == '#' else ''}>{text(h.removeprefix('#'))}</th>" for h in header)
    body = "".join(f"<tr>{''.join(row)}</tr>" for row in rows)
    head = f"<thead><tr>{''.join(cells)}</tr></thead>"
    return f'<div class="wide"><table class="{kind}">{head}<tbody>{body}</tbody></table></div>'


def facts(pairs: Mapping[str, str]) -> str:
    """Names beside finished HTML; what is empty is left out."""
    rows = "".join(
        f"<tr><th>{text(name)}</th><td>{value}</td></tr>" for name, value in pairs.items() if value
    )
    return f'<table class="facts">{rows}</table>'


def section(title: str, *content: str) -> str:
    return f"<h2>{text(title)}</h2>{''.join(content)}" if any(content) else ""


def folded(title: str, content: str) -> str:
    """A section that opens on a click."""
    return f"<details><summary>{text(title)}</summary>{content}</details>"


def as_yaml(value: object) -> str:
    return f"<pre>{text(yaml.safe_dump(value, sort_keys=False, allow_unicode=True))}</pre>"


def document(title: str, *content: str) -> str:
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{text(title)}</title><style>{STYLE}</style></head><body>{''.join(content)}"
        f"<script>{SORT}</script></body></html>\n"
    )


# What a record says ---------------------------------------------------------------------------------------


def title_of(record: Mapping) -> str:
    """`AudioSR on vctk, 4 kHz`, or `run vae`."""
    if record["kind"] == "run":
        return f"run {record['run']}"
    return cell_name(record["system"], record)


def heading(record: Mapping) -> str:
    paper = load_paper(record["paper"])
    return (
        f'<p class="dim">{link("../../index.html", "all records")} · {text(record["paper"])} · '
        f"<code>{text(record['id'])}</code></p><h1>{text(title_of(record))}</h1>"
        f'<p class="dim">{text(paper["title"])}. {text(paper.get("reference", ""))}</p>'
    )


def listed(records: Iterable[Mapping], names: Mapping[str, str] | None = None) -> str:
    """Links to the pages of other records of the same paper."""
    links = [
        link(f"../{r['id']}/index.html", title_of(r))
        + (f" ({text(names[r['id']])})" if names else "")
        + f' <span class="dim">{text(r["preset"])}, seed {text(r["identity"]["seed"])}</span>'
        for r in records
    ]
    return "<br>".join(links)


def provenance(folder: Path, record: Mapping) -> str:
    found, place = record["provenance"], "/".join(folder.resolve().parts[-3:])
    packages = ", ".join(f"{name} {version}" for name, version in found["packages"].items())
    return section(
        "Where it comes from",
        facts(
            {
                "finished": text(found["finished"]),
                "commit": f"<code>{text(found['commit'])}</code>" if found["commit"] else "",
                "machine": text(found["machine"]),
                "software": text(f"Python {found['python']}, {packages}"),
                "check it": f"<code>python experiments/run.py --verify {text(place)}</code>",
            }
        ),
    )


def configuration(folder: Path, record: Mapping) -> str:
    config = folder / "config.yaml"
    return section(
        "Configuration",
        folded("what names this record", as_yaml(record["identity"])),
        folded("all settings", f"<pre>{text(config.read_text())}</pre>") if config.is_file() else "",
    )


def peak(record: Mapping) -> str:
    return f"{rounded(record['memory'] / 2**30)} GiB at its peak" if record.get("memory") else ""


# A run ----------------------------------------------------------------------------------------------------


def training_time(record: Mapping) -> str:
    """Older records have but the seconds since the run was last resumed."""
    if "steps_per_second" not in record:
        return f"{record['seconds']:,} s since it was last resumed"
    return f"{rounded(record['seconds'])} s, {rounded(record['steps_per_second'])} steps per second"


def used_by(record: Mapping, records: Iterable[Mapping]) -> list[Mapping]:
    """The runs and rows that stand on a run."""

    def runs_of(other: Mapping) -> set[str]:
        if other["kind"] == "score":
            return set(other["runs"].values())
        return {*other["identity"]["uses"].values(), other["identity"]["start"]}

    return [other for other in records if record["id"] in runs_of(other)]


def run_page(folder: Path, record: Mapping, records: list[Mapping]) -> str:
    identity = record["identity"]
    training, needs = identity["training"], {**identity["uses"]}
    needs |= {"start": identity["start"]} if identity["start"] else {}
    below = [other for other in records if other["id"] in needs.values()]
    roles = {id_: role for role, id_ in needs.items()}
    what = facts(
        {
            "stage": f"<code>{text(identity['stage'])}</code>, {record['parameters']:,} parameters",
            "trained": text(", ".join(f"{name} {value}" for name, value in training.items())),
            "losses": text(", ".join(f"{value:g} {name}" for name, value in identity["weights"].items())),
            "preset": text(record["preset"]),
            "seed": text(identity["seed"]),
            "time": text(training_time(record)) if training else "",
            "memory": text(peak(record)),
            "processes": text(record["processes"]) if record.get("processes", 1) > 1 else "",
            "released": f"converted from a file of SHA-256 <code>{text(identity.get('released'))}</code>"
            if "released" in identity
            else "",
            "made of": listed(below, roles),
            "used by": listed(sorted(used_by(record, records), key=title_of)),
        }
    )
    measures = sorted(record["held_out"].items(), key=lambda item: YARDSTICKS.index(item[0]))
    rows = [[f"<td>{text(kind)}</td>", number(value)] for kind, value in measures]
    held_out = table(["of", "#error on held-out recordings"], rows)
    curves = '<img src="curves.png" alt="losses and held-out measures by step">'
    weights = link("weights.safetensors", "weights.safetensors")
    return "".join(
        [
            what,
            section("Held-out measures", held_out if rows else ""),
            section("Curves", curves if (folder / "curves.png").is_file() else ""),
            section(
                "Weights", f"{weights}, SHA-256 <code>{text(record.get('weights', 'not recorded'))}</code>"
            ),
        ]
    )


# A scored row ---------------------------------------------------------------------------------------------


def definition(metric: str, rule: Mapping) -> str:
    """What computes a printed metric; of the whole band, with the first line that is said about it."""
    from signals.metrics import METRICS

    if metric not in rule["metrics"]:
        return {"-LF": "below the cut-off", "-HF": "above the cut-off"}.get(metric[-3:], "")
    name = rule["metrics"][metric]
    doc = (getattr(METRICS.get(name), "__doc__", None) or "").strip().partition("\n")[0]
    return f'<code>{text(name)}</code><br><span class="dim">{text(doc)}</span>'


def scored(records: Iterable[Mapping]) -> list[Mapping]:
    return [record for record in records if record["kind"] == "score"]


def results(record: Mapping, records: list[Mapping]) -> str:
    """Mean, spread, interval and standing of each metric."""
    expected = f" of {record['expected']:,}" if record["expected"] else ""
    rows, seen = [], {}
    for metric, mean in record["mean"].items():
        worth = standing_among(record, scored(records), metric)
        seen[worth] = MEANINGS.get(MARKS[worth], "reproduction: full preset, whole split, published protocol")
        ends = " … ".join(f"{end:.4g}" for end in record.get("interval", {}).get(metric, ()))
        n = f"{files_scored(record, metric):,}{expected}"
        std = record["std"][metric]
        cells = [f'<td class="whole">{text(metric)}</td>', number(mean), number(std), number(std**2)]
        cells += [f'<td class="number">{text(told)}</td>' for told in (ends, n)]
        by = definition(metric, record["identity"]["rule"])
        rows.append([*cells, f'<td>{text(worth)}</td><td class="told">{by}</td>'])
    header = ["metric", "#mean", "#std", "#variance", "#95 % interval", "#files", "standing", "computed by"]
    notes = [*seen.values()]
    notes += [f"no finite {metric}: {', '.join(ids)}" for metric, ids in record["not_finite"].items()]
    return table(header, rows) + "".join(f'<div class="dim">{text(note)}</div>' for note in notes)


def file_scores(record: Mapping) -> str:
    metrics = list(dict.fromkeys(m for scores in record["files"].values() for m in scores if m != "group"))
    rows = [
        [f"<td>{text(id_)}</td><td>{text(scores['group'])}</td>"]
        + [number(scores[m]) if m in scores else "<td></td>" for m in metrics]
        for id_, scores in record["files"].items()
    ]
    shown = table(["file", "group", *(f"#{m}" for m in metrics)], rows, "sortable")
    return shown if len(rows) <= 50 else folded(f"{len(rows):,} files", shown)


def recordings(folder: Path, record: Mapping) -> str:
    """Spectrograms and players of the recordings that were kept."""
    found = []
    for id_, name in file_names(record["files"]).items():
        file = html_url(name)
        picture = f'<img src="recordings/{file}.png" alt="spectrograms of {text(id_)}">'
        players = "".join(
            f"<figure><figcaption>{kind}</figcaption>"
            f'<audio controls preload="none" src="recordings/{kind}/{file}.wav"></audio></figure>'
            for kind in KINDS
            if (folder / "recordings" / kind / f"{name}.wav").is_file()
        )
        if players:
            shown = picture if (folder / "recordings" / f"{name}.png").is_file() else ""
            found.append(f'<h3>{text(id_)}</h3>{shown}<div class="audio">{players}</div>')
    return "".join(found)


def trained(record: Mapping, records: Iterable[Mapping]) -> str:
    """What the runs took that a score stands on, where all of them say."""
    spent = cost(behind([record], {other["id"]: other for other in records}))
    if spent["hours"] is None:
        return ""
    return f"{rounded(spent['hours'])} hours, {rounded(spent['steps_per_second'])} steps per second"


def score_page(folder: Path, record: Mapping, records: list[Mapping]) -> str:
    identity, rule = record["identity"], record["identity"]["rule"]
    parts = {id_: part for part, id_ in record["runs"].items()}
    degradation = ", ".join(
        value if key == "name" else f"{key} {value}" for key, value in rule["degradation"].items()
    )
    what = facts(
        {
            "method": f"<code>{text(record['identity']['method'])}</code>",
            "made of": listed((other for other in records if other["id"] in parts), parts),
            "protocol": text(record["protocol"] + ("" if record["exact"] else ", as this row changes it")),
            "degradation": text(degradation),
            "scored": text(f"as stored in {rule['bits']} bits" if rule["bits"] else "as floats, not stored"),
            "rate": text(f"{identity['rate']:,} Hz"),
            "averaged over": text({"group": "the means of speakers"}.get(record.get("average"), "files")),
            "stand-in": text(MEANINGS["s"].partition(": ")[2]) if record["stand_in"] else "",
            "preset": text(record["preset"]),
            "changes": text(", ".join(record["changes"]) or "none"),
            "seed": text(record["seed"]),
            "time": text(f"{rounded(record['seconds'])} s, {record['real_time_factor']:g} times the audio's"),
            "memory": text(peak(record)),
            "training": text(trained(record, records)),
        }
    )
    return "".join(
        [
            what,
            section("Scores", results(record, records)),
            section("Listen", recordings(folder, record)),
            section("File by file", file_scores(record)),
        ]
    )


# Writing --------------------------------------------------------------------------------------------------


def replace(path: Path, content: str) -> None:
    """Writes a file at once, or leaves it alone where it says the same already."""
    if path.is_file() and path.read_text(encoding="utf-8") == content:
        return
    with replacing(path) as partial:
        partial.write_text(content, encoding="utf-8")


def beside(folder: Path) -> list[dict]:
    """All records of a paper that have a page (counts have none), by their folders' names."""
    records = (read_record(path.parent) for path in sorted(folder.glob("*/record.json")))
    return [record for record in records if record["kind"] != "count"]


def write_page(folder: Path, records: list[Mapping] | None = None) -> None:
    """Writes `index.html` beside the record in `folder`. records: of the same paper (None: those beside)."""
    record = read_record(folder)
    records = beside(folder.parent) if records is None else records
    content = (run_page if record["kind"] == "run" else score_page)(folder, record, records)
    title = f"{title_of(record)} · {record['paper']} · Wideband"
    end = provenance(folder, record) + configuration(folder, record)
    replace(folder / "index.html", document(title, heading(record), content, end))


def index_row(record: Mapping, records: list[Mapping]) -> list[str]:
    name = link(f"{record['paper']}/{record['id']}/index.html", title_of(record))
    if record["kind"] == "run":
        measures = record["held_out"]
        means, worth = {"held-out error": measures["trained"]} if measures else {}, ""
    else:
        means = {m: v for m, v in record["mean"].items() if m in record["identity"]["rule"]["metrics"]}
        worth = standing_among(record, scored(records), next(iter(means), ""))
    told = ", ".join(f"{metric} {value:.3g}" for metric, value in means.items())
    cells = [record["paper"], record["preset"], record.get("protocol", ""), record["identity"]["seed"], told]
    cells += [worth, record["provenance"]["finished"], record["id"]]
    return [f'<td class="whole">{name}</td>', *(f'<td class="whole">{text(cell)}</td>' for cell in cells)]


def write_index(output: Path) -> None:
    """Writes `index.html` of all records below `output`, and their pages anew: each then knows the others."""
    output.mkdir(parents=True, exist_ok=True)
    rows: dict[str, list[str]] = {}
    for paper in sorted({path.parents[1] for path in output.glob("*/*/record.json")}):
        records = beside(paper)
        for record in records:
            write_page(paper / record["id"], records)
            rows[f"{record['provenance']['finished']} {record['id']}"] = index_row(record, records)
    header = ["record", "paper", "preset", "protocol", "seed", "numbers", "standing", "finished", "id"]
    content = table(header, (rows[key] for key in sorted(rows, reverse=True)), "sortable")
    figures = "".join(
        f"<h3>{text(path.parents[1].name)} {text(path.stem)}</h3>"
        f'<img src="{html_url(path.relative_to(output).as_posix())}" alt="{text(path.stem)}">'
        for path in sorted(output.glob("*/figures/*.png"))
    )
    content += section("Figures", figures)
    replace(output / "index.html", document("Wideband: records", "<h1>Records</h1>", content))
