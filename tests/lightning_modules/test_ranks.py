"""Two processes have the gradients of one on the joined batch, and gather the same: all stages of all papers.

Each trains by Lightning's DDP on CPUs, as `run.py` does, at its smoke size; dropout is off. The two processes
are this file, run as a script.
"""

import json
import os
import socket
import subprocess
import sys
import warnings
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import lightning
import pytest
import torch
from lightning.fabric.plugins.environments import LightningEnvironment
from torch import Tensor, nn
from torch.utils.data import DataLoader

from datamodules.degradations import degradation
from datamodules.pairs import Batch, PairDataModule
from experiments.configuration import configure
from experiments.runs import build_stage
from lightning_modules.ranks import JoinedBatchNorm, JoinedNorm, norm_over_ranks, over_ranks, rank_of
from lightning_modules.stage import Stage
from signals.types import Pair, Signal, silence_padding

ROOT = Path(__file__).parents[2]
ITEMS, STEPS = 4, 2
CUTOFFS = {"subsample": 12000, "decimate": 2000, "stft_hard": 12000}  # Hz, where the task gives them
SHUFFLED = {"n_critic": 1, "phase_shuffle": 1, "critic": {"channels": 2, "depth": 3, "phase_shuffle": 2}}
OTHERS = {  # losses that papers print and options, which no run of theirs has
    "qista/m printed": ("qista", "m", {"weights": {"mse": 1.0, "half_sum": 0.0}}),
    "tfnet/tfnet printed": ("tfnet", "tfnet", {"weights": {"mse": 0.0, "norm": 1.0, "decay": 1e-4}}),
    "fma_unet/unet accumulated": ("fma_unet", "unet", {"training": {"accumulate": STEPS}}),
    "audioedsr/gan shuffled": ("audioedsr", "gan_x2", {"options": SHUFFLED}),
}
INITIAL = ("icnr", "replicator")  # options of how a network begins, or what it hears
TOLERANCE = 2e-4  # of the largest gradient: some differ by 3e-5 in float32 where the items only change places

# What one process does ------------------------------------------------------------------------------------


@cache
def config_of(paper: str) -> dict:
    return configure(paper, "smoke")


@cache
def cases() -> dict[str, tuple[str, str, dict]]:
    """By name a paper, a run and what is changed of it: all that differ in more than the size of a number."""
    found = {}
    for paper in ("qista", "tfnet", "fma_unet", "audioedsr", "audiosr"):
        runs = config_of(paper)["runs"]
        for name, run in runs.items():
            if any("released" in runs[each] for each in (name, *run["uses"].values())):
                continue
            terms = [term for term, weight in run["weights"].items() if weight]
            options = {key: value for key, value in run["options"].items() if key not in INITIAL}
            options = {
                key: value if isinstance(value, str) else bool(value) for key, value in options.items()
            }
            key = json.dumps([run["stage"], terms, options, sorted(run["uses"])])
            found.setdefault(key, (paper, name))
    return {f"{paper}/{name}": (paper, name, {}) for paper, name in found.values()} | OTHERS


def built(config: dict, name: str) -> Stage:
    """Of a run at its beginning. It all but stays so: in every step gradients are of the same weights."""
    run = config["runs"][name]
    optimizer = {"lr": 1e-20, "betas": (0.5, 0.9), "weight_decay": 0.0, "clip": 0.0}
    optimizer |= {"warmup": 0, "decay": 1.0, "decay_every": 1000}
    used = {part: built(config, other) for part, other in run["uses"].items()}
    stage = build_stage({**run, "optimizer": optimizer}, 0, config["data"]["rate"], used)
    for module in stage.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return stage


def pairs(config: dict, name: str) -> list[Pair]:
    """Joined batches of noise, of which no part has the moments of the whole, and one item is shorter."""
    rate, data = config["data"]["rate"], config["runs"][name]["data"]
    options = dict(data["degradation"])
    if options.get("cutoff", 0) is None:
        options["cutoff"] = CUTOFFS[options["name"]]
    module = PairDataModule(degradation(**options), rate=rate, peaks=data.get("peaks", False))
    margin, window = module.degradation.margin(rate), data["window"]
    lengths = torch.tensor([window, window, window // 4, window])
    draws, batches = torch.Generator().manual_seed(0), []
    for step in range(STEPS):
        wave = 0.1 * torch.randn(ITEMS, 1, window + 2 * margin, generator=draws)
        wave *= torch.linspace(0.5, 2, ITEMS).view(-1, 1, 1)
        high = Signal(silence_padding(wave, lengths + margin), rate, lengths)
        seeds = torch.arange(ITEMS) + ITEMS * step
        batch = Batch(high, [str(seed) for seed in seeds.tolist()], seeds, margin)
        batches.append(module.on_after_batch_transfer(batch, 0))
    return batches


def part(pair: Pair, rank: int, ranks: int) -> Pair:
    own = slice(rank, None, ranks)
    low, high = (Signal(s.wave[own], s.rate, s.lengths[own]) for s in (pair.low, pair.high))
    return Pair(low, high, pair.cutoff[own], pair.ids[own], pair.seeds[own])


class Gradients(lightning.Callback):
    """Of every step of every optimiser; and what has none in the first."""

    def __init__(self):
        self.seen, self.without = [], []

    def on_before_optimizer_step(self, trainer, module, optimizer):
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        if not self.seen:
            self.without = [n for n, p in module.named_parameters() if p.requires_grad and p.grad is None]
        self.seen.append([p.grad.clone() for p in parameters])


def train(case: str, rank: int = 0, ranks: int = 1) -> dict:
    paper, name, changes = cases()[case]
    config = config_of(paper)
    run = config["runs"][name]
    run = run | {key: run[key] | changed for key, changed in changes.items()}
    config = {**config, "runs": {**config["runs"], name: run}}
    stage, gradients, batches = built(config, name), Gradients(), pairs(config, name)
    kinds = [type(module) for module in stage.modules()]
    options = {"devices": ranks, "plugins": [LightningEnvironment()]}
    if ranks > 1:
        options["strategy"] = "ddp_find_unused_parameters_true" if stage.finds_unused else "ddp"
        options["plugins"].append(JoinedBatchNorm())
    trainer = lightning.Trainer(
        accelerator="cpu",
        max_epochs=1,
        accumulate_grad_batches=run["training"].get("accumulate", 1),
        callbacks=gradients,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        **options,
    )
    trainer.fit(stage, DataLoader([part(pair, rank, ranks) for pair in batches], batch_size=None))
    assert [type(module) for module in stage.modules()] == kinds
    if rank == 0:  # alone
        with torch.no_grad(), pytest.MonkeyPatch.context() as patch:
            patch.delattr(torch.distributed, "all_reduce")
            held_out = stage.eval().held_out(batches[0])
    return {
        "gradients": gradients.seen,
        "without": [] if stage.finds_unused else gradients.without,
        "state": stage.state_dict(),
        "held_out": held_out if rank == 0 else {},
    }


# Normalisations, as PyTorch has them in one process -------------------------------------------------------

NORMS = {
    "[B, C]": (lambda: nn.BatchNorm1d(3), (8, 3)),
    "[B, C, T]": (lambda: nn.BatchNorm1d(3, momentum=None), (4, 3, 5)),
    "[B, C, N, F]": (lambda: nn.BatchNorm2d(3, affine=False), (4, 3, 5, 2)),
    "no moments kept": (lambda: nn.BatchNorm1d(3, track_running_stats=False), (4, 3, 5)),
}


def normalised(name: str, rank: int = 0, ranks: int = 1) -> dict[str, list[Tensor]]:
    """The second of two batches; of a rank its part. By item: what comes out, and its gradient."""
    build, shape = NORMS[name]
    net = nn.Sequential(build().double())
    net.trainer = SimpleNamespace(strategy=SimpleNamespace(root_device=torch.device("cpu")))
    joined = JoinedBatchNorm()
    if ranks > 1:
        net = joined.apply(net)
        assert type(net[0]) is JoinedNorm
    draws = torch.Generator().manual_seed(0)
    for _ in range(2):
        x = 5 + torch.randn(shape, generator=draws, dtype=torch.double).cumsum(0)
        x = x[rank::ranks].requires_grad_()
        out = net(x)
        loss = over_ranks((out * x.detach().sin()).sum())
        gradients = torch.autograd.grad(loss, [x, *net.parameters()])
    if ranks > 1:
        net = joined.revert(net)
        assert isinstance(net[0], nn.BatchNorm1d | nn.BatchNorm2d)
    of_x, *of_net = [gradient / ranks for gradient in gradients]  # each rank's loss is that of all
    return {"items": [out.detach(), of_x], "gradients": of_net, "state": list(net.state_dict().values())}


def units(rank: int) -> dict:
    """What needs two processes and no stage."""
    assert rank_of() == (rank, 2)
    wave = torch.tensor([3.0, 0.0] if rank == 0 else [0.0, 4.0], requires_grad=True)
    norm = norm_over_ranks(wave.norm())
    nothing = torch.zeros(2, requires_grad=True)
    zero = norm_over_ranks(nothing.norm())
    (norm + zero).backward()
    lone = JoinedNorm(2).bfloat16()(torch.ones(2, 2, dtype=torch.bfloat16))
    return {
        "sum": over_ranks(torch.tensor([rank, 2**40 + rank])),
        "norm": [norm.detach(), wave.grad],
        "zero": [zero.detach(), nothing.grad],
        "precision": lone.dtype,
        "normalised": {name: normalised(name, rank, 2) for name in NORMS},
    }


# Two processes --------------------------------------------------------------------------------------------


def main(rank: int, folder: Path) -> None:
    torch.distributed.init_process_group("gloo", rank=rank, world_size=2)
    torch.save(units(rank), folder / f"units {rank}.pt")
    for number, case in enumerate(cases()):
        torch.save(train(case, rank, 2), folder / f"{number} {rank}.pt")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """What both wrote."""
    folder = tmp_path_factory.mktemp("ranks")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environ = os.environ | {"PYTHONPATH": str(ROOT), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    environ |= {"WORLD_SIZE": "2", "NODE_RANK": "0", "OMP_NUM_THREADS": "1"}
    command, logs = [sys.executable, __file__], [folder / f"{rank}.log" for rank in range(2)]
    processes = [
        subprocess.Popen(
            [*command, str(rank), str(folder)],
            env=environ | {"LOCAL_RANK": str(rank)},
            stderr=logs[rank].open("w"),
            stdout=subprocess.DEVNULL,
        )
        for rank in range(2)
    ]
    try:
        codes = [process.wait(timeout=280) for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert codes == [0, 0], "\n".join(log.read_text()[-3000:] for log in logs)
    return folder


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def loaded(folder: Path, name: str | int) -> list[dict]:
    return [torch.load(folder / f"{name} {rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.slow
@pytest.mark.parametrize("case", cases())
@pytest.mark.filterwarnings("ignore")
def test_two_processes_train_as_one(case, folder):
    one, (two, other) = train(case), loaded(folder, list(cases()).index(case))
    assert len(one["gradients"]) == len(two["gradients"]) == len(other["gradients"])
    for ours, theirs, others in zip(one["gradients"], two["gradients"], other["gradients"], strict=True):
        scale = max(gradient.abs().max() for gradient in ours)
        assert scale > 0
        for a, b, c in zip(ours, theirs, others, strict=True):
            assert torch.equal(b, c)  # and so the parameters stay the same on both
            torch.testing.assert_close(b, a, rtol=0, atol=TOLERANCE * scale)
    assert one["without"] == []  # or `finds_unused` is wrong
    assert list(one["state"]) == list(two["state"])
    for name, value in one["state"].items():
        assert torch.equal(two["state"][name], other["state"][name])
        torch.testing.assert_close(two["state"][name], value, rtol=1e-4, atol=1e-6)
    for name, value in one["held_out"].items():
        torch.testing.assert_close(two["held_out"][name], value, rtol=TOLERANCE, atol=1e-6)


@pytest.mark.slow
def test_sums_and_norms_over_two_processes(folder):
    for rank, found in enumerate(loaded(folder, "units")):
        assert found["sum"].tolist() == [1, 2**41 + 1]
        norm, gradient = found["norm"]
        assert norm == 5
        # Each rank's loss is the norm, so each gives half of what the mean over ranks is.
        torch.testing.assert_close(gradient, 2 * torch.tensor([0.6, 0.0] if rank == 0 else [0.0, 0.8]))
        zero, gradient = found["zero"]
        assert zero == 0
        assert gradient.tolist() == [0, 0]
        assert found["precision"] == torch.bfloat16


@pytest.mark.slow
@pytest.mark.parametrize("name", NORMS)
def test_normalisation_is_of_the_joined_batch(name, folder):
    whole, (even, odd) = normalised(name), [found["normalised"][name] for found in loaded(folder, "units")]
    joined = {
        "items": [
            torch.stack(both, 1).flatten(0, 1) for both in zip(even["items"], odd["items"], strict=True)
        ],
        "gradients": [a + b for a, b in zip(even["gradients"], odd["gradients"], strict=True)],
        "state": even["state"],
    }
    torch.testing.assert_close(joined, whole, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(odd["state"], even["state"], rtol=0, atol=0)


# One process ----------------------------------------------------------------------------------------------


def test_alone_nothing_is_changed_nor_copied():
    part = torch.ones(3)
    assert rank_of() == (0, 1)
    assert over_ranks(part) is part
    assert norm_over_ranks(part) is part


def test_on_a_gpu_normalisation_is_pytorchs_own():
    """Which has none for a CPU: what is here is that it comes and goes, with the same state."""
    net = nn.Sequential(nn.Conv1d(2, 3, 1), nn.BatchNorm1d(3), nn.Sequential(nn.BatchNorm2d(4)))
    net.trainer = SimpleNamespace(strategy=SimpleNamespace(root_device=torch.device("cuda")))
    before = {name: value.clone() for name, value in net.state_dict().items()}
    joined = JoinedBatchNorm()
    net = joined.apply(net)
    assert [type(net[1]), type(net[2][0])] == [nn.SyncBatchNorm] * 2
    net = joined.revert(net)
    assert not any(isinstance(module, nn.SyncBatchNorm) for module in net.modules())
    torch.testing.assert_close(dict(net.state_dict()), before, rtol=0, atol=0)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    main(int(sys.argv[1]), Path(sys.argv[2]))
