"""Several processes for one command: rank 0 runs it, the others do with it what it says."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from datetime import timedelta

import torch
import torch.distributed as dist

from callbacks.checkpoints import OutOfTime
from experiments.places import Place, given_place
from experiments.records import cause
from lightning_modules import trust, trusted
from signals.errors import UserError

PATIENCE = timedelta(days=30)  # for rank 0's next word, which may be busy alone for long
STEP_PATIENCE = timedelta(minutes=30)  # for the others within a step


class Abandoned(SystemExit):
    """One process failed in the midst of what all did together: the command cannot go on."""


class Ranks:
    """The processes of one command, as one of them sees them.

    size: how many. place: where this one is, if others were started beside it; else rank 0 starts them, once
    there is something to do together.
    """

    def __init__(self, size: int = 1, place: Place | None = None):
        self.place = place or Place(0, size, 0, size)
        self.started_by_us = place is None
        self.children: list[subprocess.Popen] = []
        self.control: dist.ProcessGroup | None = None
        self.kept: dict = {}  # by the others, between two words of rank 0

    @property
    def size(self) -> int:
        return self.place.size

    def join(self) -> None:
        """Meets the other processes; rank 0 starts them where nobody did."""
        if self.control is not None or self.size == 1:
            return
        if self.started_by_us:
            self._start()
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        try:
            dist.init_process_group(backend, timeout=STEP_PATIENCE)
            self.control = dist.new_group(backend="gloo", timeout=PATIENCE)
        except (RuntimeError, ValueError) as error:
            self.abandon()
            raise Abandoned(f"{self.size} processes did not meet, {cause(error)}") from error

    def _start(self) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        os.environ |= environment(0, self.size, port)
        os.environ.pop("TORCHELASTIC_USE_AGENT_STORE", None)  # of a torchrun that started this process alone
        command = [sys.executable, "-P", "-m", "experiments.ranks", str(os.getpid()), *map(str, trusted())]
        for rank in range(1, self.size):
            path = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
            environ = os.environ | environment(rank, self.size, port) | path
            self.children.append(subprocess.Popen(command, env=environ, stdin=subprocess.DEVNULL))
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        """Ends this process where another one failed: what waits for it on a GPU would wait for long."""
        children = list(self.children)
        while self.children:
            failed = [rank for rank, child in enumerate(children, 1) if child.poll()]
            if failed and self.children:
                time.sleep(5)  # in which rank 0 may notice for itself, and say more
                if self.children:
                    print(f"process {failed[0]} of {self.size} failed, see above", file=sys.stderr)
                    sys.stderr.flush()
                    os._exit(1)
            time.sleep(0.5)

    def together(self, mine: Callable[[], object], work: Callable, *args, in_step: bool = False) -> list:
        """What `mine()` returns and, from the other ranks at the same time, `work(ranks, *args)`; by rank.

        in_step: of work in which they wait for each other. There a failure of one ends the command
        (Abandoned); elsewhere it is raised once all have done.
        """
        if self.size == 1:
            return [mine()]
        self.join()
        try:
            self._say((work, args, in_step))
            try:
                answer = mine()
            except Exception as error:
                if in_step and not isinstance(error, OutOfTime):  # which is of all at the same step
                    raise
                answer = error
            told = [None] * self.size
            dist.gather_object(None if isinstance(answer, Exception) else answer, told, group=self.control)
        except BaseException as error:
            self.abandon()
            if not isinstance(error, Exception):
                raise
            raise Abandoned(f"of {self.size} processes one failed, {cause(error)}") from error
        for failure in (answer, *told):
            if isinstance(failure, Exception):
                raise failure
        return told

    def _say(self, word: object) -> None:
        dist.broadcast_object_list([word], group=self.control)

    def _hear(self) -> object:
        word = [None]
        try:
            dist.broadcast_object_list(word, group=self.control)
        except RuntimeError:  # rank 0 is gone, and has said why
            os._exit(1)
        return word[0]

    def agree(self, number: int) -> int:
        """The largest of what the ranks say at the same point."""
        if self.control is None:
            return number
        said = torch.tensor(number)
        dist.all_reduce(said, dist.ReduceOp.MAX, group=self.control)
        return int(said)

    def dismiss(self) -> None:
        """Rank 0: there is nothing more to do."""
        if self.control is None:
            return
        try:
            self._say(None)
        except RuntimeError:  # they are gone already
            self.abandon()
            return
        children, self.children = self.children, []
        self.leave()  # as the others do now: NCCL ends with all together
        for child in children:
            try:
                child.wait(timeout=60)
            except subprocess.TimeoutExpired:
                child.kill()

    def leave(self) -> None:
        self.control = None
        dist.destroy_process_group()
        self._forget()

    def abandon(self) -> None:
        """Rank 0: whatever the others are doing."""
        children, self.children = self.children, []
        for child in children:
            child.kill()  # SIGTERM lets a training go on to its next step, which waits for rank 0
        self.control = None
        self._forget()

    def _forget(self) -> None:
        if self.started_by_us:
            for key in environment(0, self.size, 0):
                os.environ.pop(key, None)

    def follow(self) -> None:
        """The life of every rank but 0: does what it is told, until there is nothing more."""
        from experiments.plan import quiet

        quiet()
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # rank 0 hears it, too
        self.join()
        while (word := self._hear()) is not None:
            work, args, in_step = word
            try:
                answer = work(self, *args)
            except OutOfTime as stop:
                answer = stop
            except Exception as error:
                traceback.print_exc()
                if in_step:
                    sys.stderr.flush()
                    os._exit(1)
                answer = UserError(f"process {self.place.rank} of {self.size}: {cause(error)}")
            dist.gather_object(answer, group=self.control)
        self.leave()


def environment(rank: int, size: int, port: int) -> dict[str, str]:
    """Of one of `size` processes on this machine, as torchrun makes it."""
    numbers = {"RANK": rank, "LOCAL_RANK": rank, "NODE_RANK": 0, "WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size}
    numbers |= {"MASTER_PORT": port}
    return {key: str(number) for key, number in numbers.items()} | {"MASTER_ADDR": "127.0.0.1"}


def ends_with(parent: int) -> None:
    """A killed rank 0 tells nobody: whoever it started looks after it."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


if __name__ == "__main__":
    ends_with(parent=int(sys.argv[1]))
    # As a module of its own name: what rank 0 says is found there.
    from experiments import ranks

    for file in sys.argv[2:]:
        trust(f"{file}:")
    ranks.Ranks(place=given_place()).follow()
