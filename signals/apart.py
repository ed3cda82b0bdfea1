"""Functions called in a process of their own: code that is not ours, and dies, takes nothing with it.

The process is started at the first call and kept. It imports what the functions need, and not, as those of
`multiprocessing` would, the script of whoever calls: that may have no `if __name__ == "__main__"`. Nothing is
imported from the current folder.
"""

import os
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from queue import SimpleQueue


class Died(Exception):
    """The process ended in the midst of a call. The message says how: `SIGSEGV`, `exit status 3`."""


class Apart:
    """A process that calls functions one after the other; started again where it died."""

    def __init__(self):
        self.child: subprocess.Popen | None = None
        self.parent = 0  # where it was started: one that was forked from there has none yet
        self.turn = threading.Lock()

    def __call__(self, function: Callable, *args):
        """What a function of some module returns or raises. Raises Died."""
        question = pickle.dumps((function, args))
        with self.turn:
            if self.parent != os.getpid() or self.child.poll() is not None:
                self.start()
            try:
                pickle.dump(question, self.child.stdin)
                self.child.stdin.flush()
                returned, answer = pickle.load(self.child.stdout)
            except (EOFError, OSError, pickle.UnpicklingError):
                raise Died(self.end()) from None
            except BaseException:  # interrupted: the answer is nobody's
                self.child.kill()
                self.child.wait()
                raise
        if not returned:
            raise answer
        return answer

    def start(self) -> None:
        path = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        command = [sys.executable, "-P", "-m", "signals.apart"]  # -P: not from the current folder
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self.child, self.parent = subprocess.Popen(command, env=os.environ | path, **pipes), os.getpid()

    def end(self) -> str:
        """How the process ended, which no longer answers."""
        try:
            code = self.child.wait(timeout=1)  # its pipe is closed a little before
        except subprocess.TimeoutExpired:
            self.child.kill()
            code = self.child.wait()
        return signal.Signals(-code).name if code < 0 else f"exit status {code}"


apart = Apart()


def serve() -> None:
    """The life of that process: calls what it is told to, until whoever started it is gone."""
    for name in ("SIGINT", "SIGTERM", "SIGUSR1"):  # told to all of a job at once: for the others to heed
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what packages print is no answer
    questions: SimpleQueue[bytes] = SimpleQueue()
    threading.Thread(target=listen, args=(questions,), daemon=True).start()
    while True:
        function, args = pickle.loads(questions.get())
        try:
            told = pickle.dumps((True, function(*args)))
        except Exception as error:
            told = pickle.dumps((False, error))
        answers.write(told)
        answers.flush()


def listen(questions: SimpleQueue) -> None:
    """Hears every question, and the end even in the midst of a call."""
    try:
        while True:
            questions.put(pickle.load(sys.stdin.buffer))
    finally:
        os._exit(0)


if __name__ == "__main__":
    serve()
