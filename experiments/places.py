"""The place of this process among those that a launcher started: torchrun, srun, or pods of a cluster."""

import os
from typing import NamedTuple

from signals.errors import UserError


class Place(NamedTuple):
    """Of a process among all: its rank, of how many, and the same on its machine, of so many machines."""

    rank: int
    size: int
    local_rank: int
    local_size: int

    @property
    def nodes(self) -> int:
        return self.size // self.local_size


def beside_each_other() -> int:
    """How many processes were started, of which this is one. Agents of a sweep run alone.

    Raises UserError where the environment says it by half.
    """
    if "WANDB_SWEEP_ID" in os.environ:
        return 1
    told = number("WORLD_SIZE") if "RANK" in os.environ else 1
    return max(told, number("SLURM_STEP_NUM_TASKS", 1) if "SLURM_PROCID" in os.environ else 1)


def given_place() -> Place | None:
    """Of a process that was started beside others; None of one that was started alone.

    The environment becomes as torchrun would make it: of srun, and of a launcher that gives RANK and
    WORLD_SIZE alone, which starts one process on each machine. Raises UserError where that cannot be.
    """
    if "RANK" not in os.environ and number("SLURM_STEP_NUM_TASKS", 1) > 1:
        os.environ |= of_srun()
    if "RANK" not in os.environ or number("WORLD_SIZE", 1) == 1:
        return None
    rank, size = number("RANK"), number("WORLD_SIZE")
    local_size = number("LOCAL_WORLD_SIZE", None if "LOCAL_RANK" in os.environ else 1)
    if local_size < 1 or size % local_size:
        raise UserError(
            f"WORLD_SIZE={size} is no multiple of LOCAL_WORLD_SIZE={local_size}: "
            "as many processes are needed on each machine."
        )
    place = Place(rank, size, number("LOCAL_RANK", rank % local_size), local_size)
    for name, value, whole, of in (
        ("RANK", rank, "WORLD_SIZE", size),
        ("LOCAL_RANK", place.local_rank, "LOCAL_WORLD_SIZE", local_size),
    ):
        if value >= of:
            raise UserError(f"{name}={value} must be below {whole}={of}: ranks count from 0.")
    if "MASTER_ADDR" not in os.environ:
        raise missing("MASTER_ADDR")
    number("MASTER_PORT")
    node = os.environ.get("GROUP_RANK", rank // local_size)  # as torchrun calls it
    for name, value in (
        ("LOCAL_RANK", place.local_rank),
        ("LOCAL_WORLD_SIZE", local_size),
        ("NODE_RANK", node),
    ):
        os.environ.setdefault(name, str(value))
    return place


def of_srun() -> dict[str, str]:
    """What torchrun would tell a task of a SLURM step."""
    from lightning.fabric.plugins.environments import SLURMEnvironment

    environ = os.environ
    nodes = int(environ.get("SLURM_STEP_NUM_NODES", 1))
    return {
        "RANK": environ["SLURM_PROCID"],
        "LOCAL_RANK": environ["SLURM_LOCALID"],
        "NODE_RANK": environ["SLURM_NODEID"],
        "WORLD_SIZE": environ["SLURM_STEP_NUM_TASKS"],
        "LOCAL_WORLD_SIZE": str(int(environ["SLURM_STEP_NUM_TASKS"]) // nodes),
        "MASTER_ADDR": SLURMEnvironment.resolve_root_node_address(environ["SLURM_STEP_NODELIST"]),
        "MASTER_PORT": str(15_000 + int(environ["SLURM_JOB_ID"]) % 10_000),  # the same for all tasks
    }


def number(name: str, otherwise: int | None = None) -> int:
    """A number of the environment, or `otherwise`. Raises UserError where it is none or missing."""
    text = os.environ.get(name)
    if text is None and otherwise is None:
        raise missing(name)
    if text is not None and not text.isdecimal():
        raise UserError(f"{name}={text}: a launcher sets it to a number from 0 on.")
    return otherwise if text is None else int(text)


def missing(name: str) -> UserError:
    return UserError(
        f"{name} is not set, though RANK is: a launcher sets both, as torchrun does, or neither."
    )
