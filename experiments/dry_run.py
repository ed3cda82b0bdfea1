"""What a command would do: configuration, runs, rows, corpora, parameters, and what it would cost."""

import argparse
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
import yaml
from torch.utils.flop_counter import FlopCounterMode

from datamodules.library import Library
from experiments.configuration import Row, Table
from experiments.plan import print_corpora, quiet, wanted_runs, without_missing
from experiments.rows import Rows, tasks
from experiments.runs import Runs, count_parameters
from lightning_modules.stage import Stage


def throughput() -> float:
    """FLOP/s of a float32 convolution-sized product on this machine, the best of a few."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    size = 4096 if device == "cuda" else 1024
    a = torch.randn(size, size, device=device)
    best = float("inf")
    for _ in range(4):
        started = time.perf_counter()
        (a @ a).sum().item()
        best = min(best, time.perf_counter() - started)
    return 2 * size**3 / best


def training_flops(stage: Stage, run: Mapping) -> float | None:
    """Of one run: three times the forward pass of its network (backward costs two), critic not counted.

    Against a critic the network learns from every `n_critic`-th batch; the others cost it a forward pass.

    None where the stage gives no example to count by.
    """
    example = stage.example(run["training"]["batch"], run["data"]["window"])
    if example is None:
        return None
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        stage.network(*example)
    passes = 1 + 2 / getattr(stage, "n_critic", 1)
    return passes * counter.get_total_flops() * run["training"]["steps"]


def learnt(open_: Mapping, run: Mapping) -> str:
    """What a run learns of that its configuration leaves open: ` of vctk to 2000 Hz`."""
    told = f" of {run['data']['mixture']}" if open_["data"]["mixture"] is None else ""
    edges = (data["data"]["degradation"].get("cutoff", "none") for data in (open_, run))
    was, is_ = edges
    return told + (f" to {is_:g} Hz" if was is None and is_ is not None else "")


def plain(node):
    """Tuples as lists, for YAML."""
    if isinstance(node, Mapping):
        return {key: plain(value) for key, value in node.items()}
    return [plain(value) for value in node] if isinstance(node, list | tuple) else node


def human(seconds: float) -> str:
    units = (("days", 86400), ("h", 3600), ("min", 60))
    for unit, size in units:
        if seconds >= 1.5 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"


def describe(
    args: argparse.Namespace,
    config: dict,
    table: Table,
    rows: list[Row],
    library: Library,
    report: Callable[[str], None],
) -> int:
    """Prints all that is known before anything is prepared or trained."""
    quiet()
    made = not library.demo or library.root.is_dir()  # the corpora are there, as far as they are
    if made and not args.corpus:
        config = without_missing(config, library, table, report)
    runs = Runs(args.paper, config, library, report)
    tester = Rows(table, config, args.protocol, library, runs, report)
    for row in rows:
        tester.check(row)
    wanted = wanted_runs(tester, rows)
    shown = {key: value for key, value in config.items() if key not in ("preset", "changes", "corpus")}
    own = [tester.settings(row) for row in rows if row.method == table.paper]
    shown |= {"method": own[0]} if own else {}
    report(yaml.safe_dump(plain(shown), sort_keys=False, default_flow_style=None, width=110))
    if not made and not args.corpus:
        report(f"corpora: the demo corpus will be made in {library.root}/: 15 minutes of audio, 60 MB")
    else:
        print_corpora(config, library, tester, rows)
    for row in rows:
        cells = ", ".join(task.key for task in tasks(table, row, config))
        report(f"row {row.system}: {row.method} of {dict(row.runs or row.parts) or 'no run'}: {cells}")
    speed, seconds, disk, memory = throughput(), 0.0, 0.0, 0.0
    for runs, name in wanted:
        count, stage = count_parameters(runs.config, name)
        run = runs.config["runs"][name]
        told = f"run {name}{learnt(config['runs'][name], run)}: {run['stage']}, {count:,} parameters"
        if "released" in run:
            report(f"{told}, converted from {runs.released(name)}")
            continue
        work = training_flops(stage, run)
        held = sum(p.numel() for p in stage.parameters()) + sum(p.numel() for p in stage.buffers())
        trained = sum(p.numel() for p in stage.parameters() if p.requires_grad)
        seconds, disk = seconds + (work or 0) / speed, disk + 4 * (held + 2 * trained)
        memory = max(memory, 4 * (held + 3 * trained))  # weights, gradients and two moments
        report(
            f"{told}, {run['training']['steps']:,} steps of {run['training']['batch']}, "
            + (f"{work:.2e} FLOP, about {human(work / speed)} here" if work else "of unknown cost")
        )
    report(
        f"about {human(seconds * args.seeds)} of training at {speed / 1e9:,.0f} GFLOP/s on this machine "
        f"(critics, data and tests not counted); {memory / 2**30:.2f} GiB of memory, and the activations; "
        f"{disk * args.seeds / 2**30:.2f} GiB of disk for checkpoints in {Path(config['output'])}/, "
        f"and 4 bytes a sample for the stores in {Path(config['data']['folder'])}/stores/"
    )
    return 0
