"""The house: imports go down, heavy ones come late, and nothing runs what it reads."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FLOORS = {
    "signals": set(),
    "lightning_modules": {"signals"},
    "datamodules": {"signals"},
    "callbacks": {"signals"},
    "experiments": {"signals", "lightning_modules", "datamodules", "callbacks"},
}
TREES = {
    path.relative_to(ROOT).as_posix(): ast.parse(path.read_text())
    for top in (*FLOORS, "tests", "benchmarks", "sweeps")
    for path in sorted((ROOT / top).rglob("*.py"))
}
LATE = {"pesq", "pystoi", "librosa", "wandb", "visqol"}


def imported(node: ast.AST) -> list[str]:
    """Dotted names that a statement imports."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        assert node.level == 0, "imports are absolute here"
        return [node.module]
    return []


def at_module_level(node: ast.AST) -> Iterator[ast.AST]:
    """All that runs when a module is imported: everything outside functions."""
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield child
            yield from at_module_level(child)


def house() -> list[tuple[str, ast.Module]]:
    return [(path, tree) for path, tree in TREES.items() if path.split("/")[0] in FLOORS]


def test_all_floors_were_read():
    assert {path.split("/")[0] for path, _ in house()} == set(FLOORS)


def test_every_import_goes_down():
    wrong = []
    for path, tree in house():
        own = path.split("/")[0]
        for node in ast.walk(tree):
            tops = {name.split(".")[0] for name in imported(node)}
            wrong += [(path, top) for top in tops & (set(FLOORS) - FLOORS[own] - {own})]
            wrong += [(path, top) for top in tops & {"tests", "benchmarks", "conftest"}]
    assert not wrong


def test_what_few_need_is_imported_late():
    early = [
        (path, name)
        for path, tree in house()
        for node in at_module_level(tree)
        for name in imported(node)
        if name.split(".")[0] in LATE
    ]
    assert not early


def called(node: ast.Call) -> str:
    return ast.unparse(node.func)


PIPES = {"signals/apart.py"}  # what a process tells another one that it has started is in no file


def test_nothing_runs_what_it_reads():
    wrong = []
    for path, tree in TREES.items():
        for node in ast.walk(tree):
            names = imported(node) if path not in PIPES else []
            wrong += [(path, name) for name in names if name.split(".")[0] in {"pickle", "dill", "joblib"}]
            if not isinstance(node, ast.Call):
                continue
            name = called(node)
            safe = any(k.arg == "weights_only" and ast.unparse(k.value) == "True" for k in node.keywords)
            pickled = any(k.arg == "allow_pickle" and ast.unparse(k.value) != "False" for k in node.keywords)
            if name in {"eval", "exec", "yaml.load", "yaml.unsafe_load", "yaml.full_load"} or pickled:
                wrong.append((path, name))
            if name.endswith(("torch.load", "load_from_checkpoint")) and not safe:
                wrong.append((path, name))
    assert not wrong


LIGHT = """
import runpy, sys
sys.argv = {argv!r}
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
except SystemExit as end:
    print("exit", end.code)
print("heavy", sorted({{"torch", "lightning", "diffusers", "transformers", "matplotlib"}} & set(sys.modules)))
"""


@pytest.mark.parametrize(
    ("argv", "code", "told"),
    [
        (["run.py", "--list"], 0, 0),
        (["run.py", "--paper", "audiosr", "--dry-run", "method.stpes=3"], 2, 1),
        (["compare.py"], 0, 1),  # that there are no records
    ],
)
def test_a_light_command_imports_nothing_heavy(argv, code, told, tmp_path):
    script = LIGHT.format(argv=[str(ROOT / "experiments" / argv[0]), *argv[1:]])
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path)
    assert done.stdout.splitlines()[-2:] == [f"exit {code}", "heavy []"], done.stderr
    assert len(done.stderr.splitlines()) == told
