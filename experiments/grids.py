"""Sweep files: a table as the grid of a W&B sweep, and the commands that a grid stands for."""

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from itertools import product
from pathlib import Path

import yaml

from experiments.configuration import PRESETS, configure, load_paper, load_table, nearest, paper_names
from experiments.records import cell_name
from experiments.run import COORDINATES
from signals.errors import UserError

SWEEPS = Path(__file__).parents[1] / "sweeps"
PROGRAM = "experiments/run.py"
COMMAND = ["${env}", "${interpreter}", "${program}", "${args_no_hyphens}"]
MACROS = (*COMMAND, "${args}", "${args_no_boolean_flags}")  # of W&B's, those that run.py can be given
VARIABLE = re.compile(r"\$\{envvar:([A-Z0-9_]*)\}")


@cache
def full_config(paper: str, name: str | None) -> dict:
    """Of a table, at the size of the paper; the same for all that say nothing otherwise (None)."""
    changes = load_table(paper, name).config if name else {}
    return configure(paper, "full", table=changes) if changes or not name else full_config(paper, None)


def sweep_of(paper: str, name: str) -> dict | None:
    """The sweep whose runs are the cells of a table, None where nothing of it is tested.

    Its parameters are the table's coordinates where their product is the table, and `cell` otherwise.
    """
    from experiments.rows import tasks

    table, config = load_table(paper, name), full_config(paper, name)
    cells = [(row.system, task) for row in table.rows for task in tasks(table, row, config)]
    if not cells:
        return None
    points = [(system, *(getattr(task, key) for key in COORDINATES.values())) for system, task in cells]
    axes = {
        axis: list(dict.fromkeys(values))
        for axis, values in zip(("row", *COORDINATES), zip(*points, strict=True), strict=True)
    }
    if set(product(*axes.values())) == set(points):
        narrowing = {axis: values for axis, values in axes.items() if axis == "row" or len(values) > 1}
    else:
        narrowing = {"cell": [cell_name(system, vars(task)) for system, task in cells]}
    return {
        "name": f"{paper} {name}",
        "description": table.title,
        "project": "wideband",
        "program": PROGRAM,
        "command": COMMAND,
        "method": "grid",
        "parameters": {
            "paper": {"value": paper},
            "table": {"value": name},
            "preset": {"value": "full"},
            **{axis: {"values": values} for axis, values in narrowing.items()},
            "seed": {"values": [0]},
        },
    }


class Pages(yaml.SafeDumper):
    """Short collections in a line, long lists of text a line each."""

    def represent_sequence(self, tag, sequence, flow_style=None):
        flow = len(sequence) < 6 and sum(map(len, map(str, sequence))) < 70
        return super().represent_sequence(tag, sequence, flow)

    def represent_mapping(self, tag, mapping, flow_style=None):
        leaf = mapping.keys() <= {"value", "values"} and len(str(mapping)) < 70
        return super().represent_mapping(tag, mapping, leaf)


def write_sweeps(folder: Path) -> list[Path]:
    """One file for each table of each paper that has cells to test. Returns the files."""
    folder.mkdir(exist_ok=True)
    written = []
    for paper in paper_names():
        for name in load_paper(paper)["tables"]:
            if sweep := sweep_of(paper, name):
                path = folder / f"{paper}_{name}.yaml"
                text = yaml.dump(sweep, Dumper=Pages, sort_keys=False, allow_unicode=True, width=96)
                path.write_text("# Written by `python experiments/sweep.py --write` from the table.\n" + text)
                written.append(path)
    return written


def load_sweep(path: Path) -> dict:
    """Raises UserError where the file is no sweep of ours, or would run something else."""
    try:
        sweep = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; `ls {SWEEPS.name}` shows the tables' sweeps.") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"{path}: {str(error).splitlines()[0]}") from None
    for key, kind in (("program", str), ("method", str), ("command", list), ("parameters", dict)):
        if not isinstance(sweep, dict) or not isinstance(sweep.get(key), kind):
            raise UserError(f"{path} is not a sweep: it needs {key}, as those in {SWEEPS.name}/ have it.")
    if sweep["program"] != PROGRAM:
        raise UserError(f"{path}: program {sweep['program']}: {PROGRAM} is needed.")
    words = [word for word in sweep["command"] if word != "${env}"]
    if words[:2] != ["${interpreter}", "${program}"]:  # a file of somebody's could run anything
        raise UserError(f"{path}: its command must begin with {' '.join(COMMAND[:3])}.")
    try:
        check_command(sweep)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    return sweep


def expanded(word: object) -> str:
    """A word of a command with the variables of this environment; one that is not set is its name, to W&B."""
    return VARIABLE.sub(lambda found: os.environ.get(found[1], found[1]), str(word))


def check_command(sweep: Mapping) -> None:
    """Raises UserError on a macro that run.py cannot be given, or that would leave out what is false."""
    for word in map(expanded, sweep["command"]):
        if is_macro(word) and word not in MACROS:
            raise UserError(f"run.py cannot be given {word}: use {COMMAND[-1]}.")
        if word == "${args_no_boolean_flags}":
            for key, parameter in sweep["parameters"].items():
                if any(isinstance(value, bool) for value in leaves(parameter)):
                    raise UserError(f"{word} leaves out {key} where it is false: use {COMMAND[-1]}.")


def is_macro(word: str) -> bool:
    return word.startswith("${") and word.endswith("}")


def leaves(value: object) -> Iterator:
    """Every key and value in what YAML may hold."""
    if isinstance(value, Mapping):
        value = [*value.keys(), *value.values()]
    if isinstance(value, list):
        for each in value:
            yield from leaves(each)
    else:
        yield value


def own_methods(sweep: Mapping) -> list[str]:
    """Files of somebody's own, `mine.py:Net`, that the runs of a sweep would execute as their method.

    Wherever they stand: behind each `=` of a word, in any key or value, in a variable of the environment.
    """
    texts = [*map(expanded, sweep["command"]), *map(str, leaves(sweep["parameters"]))]
    return list(dict.fromkeys(method for text in texts if (method := own_method(text))))


def own_method(text: str) -> str | None:
    """The shortest of its ends that names a file as `lightning_modules.own_source` reads it."""
    parts = text.split("=")
    ends = ("=".join(parts[at:]) for at in reversed(range(len(parts))))
    return next((end for end in ends if Path(end.rpartition(":")[0]).suffix == ".py"), None)


def changed(sweep: Mapping, changes: Iterable[str]) -> dict:
    """The sweep with parameters replaced or added, each by one value: `preset=smoke`.

    Raises UserError on what is no parameter. (Keys of the configuration are looked at with the cells.)
    """
    parameters = dict(sweep["parameters"])
    for text in changes:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise UserError(f"cannot read {text!r}: parameters are key=value.")
        if key == "preset" and value not in PRESETS:
            raise UserError(f"preset={value}" + nearest(value, PRESETS))
        if "cell" in parameters and key in ("row", *COORDINATES):
            raise UserError(f"{text}: this sweep goes cell by cell: cell='ROW on TASK' narrows it to one.")
        parameters[key] = {"value": value}
    return {**sweep, "parameters": parameters}


def grid(sweep: Mapping) -> list[dict]:
    """The parameters of every run of a grid, in order. Raises UserError where it is none."""
    axes = {}
    for key, parameter in sweep["parameters"].items():
        if not isinstance(parameter, Mapping) or not parameter.keys() & {"value", "values"}:
            raise UserError(f"parameter {key}: a grid needs its value, or values.")
        axes[key] = parameter["values"] if "values" in parameter else [parameter["value"]]
    return [dict(zip(axes, point, strict=True)) for point in product(*axes.values())]


def literal(sweep: Mapping, parameters: Mapping) -> list[str]:
    """The command of one run, as `wandb agent` builds it."""
    pairs = [f"{key}={value}" for key, value in parameters.items()]
    macros = {
        "${env}": ["/usr/bin/env"],
        "${interpreter}": ["python"],
        "${program}": [sweep["program"]],
        "${args}": [f"--{pair}" for pair in pairs],
        "${args_no_hyphens}": pairs,
        "${args_no_boolean_flags}": [
            f"--{key}" if value is True else f"--{key}={value}"
            for key, value in parameters.items()
            if value is not False
        ],
    }
    return [word for part in map(expanded, sweep["command"]) for word in macros.get(part, [part])]
