"""How many threads PyTorch computes with on a CPU that may do other things, too."""

import os
from collections.abc import Mapping

import torch

LOOK = 0.3  # seconds for which the machine is watched


def own_cores() -> set[int]:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))


def free_cores() -> int:
    """Cores whose time nobody else takes now; at least one. This process must be idle meanwhile."""
    import psutil

    shares = psutil.cpu_percent(LOOK, percpu=True)
    cores = own_cores() & set(range(len(shares)))
    return max(1, round(sum(100 - shares[core] for core in cores) / 100))


def choose_threads(config: Mapping | None = None, processes: int = 1) -> None:
    """`trainer.threads` or OMP_NUM_THREADS; where the user set neither, as many as cores are free now.

    The free cores are shared by `processes`. Threads that outnumber them mostly wait for each other: beside
    one busy process two threads on two cores train at less than half the speed of one.
    """
    if config and (threads := config["trainer"]["threads"]):
        torch.set_num_threads(threads)
        os.environ["OMP_NUM_THREADS"] = str(threads)  # for what this process starts, and for Lightning
    elif not chosen_by_user():
        torch.set_num_threads(max(1, free_cores() // processes))


def chosen_by_user() -> bool:
    """Whether the number of threads is not the suite's to choose."""
    return "OMP_NUM_THREADS" in os.environ
