"""Functions in a process of their own: what dies there ends nothing here."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from signals.apart import Died, apart

HOUSE = Path(__file__).parents[2]
posix = pytest.mark.skipif(os.name != "posix", reason="needs the signals of POSIX")


def test_answers_and_errors_are_those_of_the_function():
    assert apart(divmod, 7, 2) == (3, 1)
    with pytest.raises(ZeroDivisionError, match="division"):
        apart(divmod, 7, 0)
    assert apart(divmod, 7, 2) == (3, 1)


def test_the_process_is_kept_between_calls():
    first = apart(os.getpid)
    assert first != os.getpid()
    assert apart(os.getpid) == first


@pytest.mark.parametrize(
    ("function", "args", "told"), [(os._exit, (3,), "exit status 3"), (os.abort, (), "SIGABRT")]
)
def test_the_death_of_a_function_is_told_and_the_next_one_answers(function, args, told):
    before = apart(os.getpid)
    with pytest.raises(Died, match=told):
        apart(function, *args)
    assert apart(os.getpid) not in (before, os.getpid())


def test_a_process_that_died_between_calls_is_started_again():
    os.kill(apart(os.getpid), signal.SIGTERM if os.name == "nt" else signal.SIGKILL)
    time.sleep(0.1)
    assert apart(divmod, 7, 2) == (3, 1)


def test_what_a_package_prints_is_no_answer(capfd):
    with pytest.raises(Died):
        apart(os._exit, 0)  # the next one has the standard error of this test
    assert apart(os.write, 1, b"words\n") == 6
    assert apart(print, "more words") is None
    assert apart(divmod, 7, 2) == (3, 1)
    assert "words" in capfd.readouterr().err


def test_threads_take_turns():
    found = {}

    def ask(number: int) -> None:
        found[number] = apart(divmod, number, 3)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {number: divmod(number, 3) for number in range(20)}


@posix
def test_a_forked_process_has_one_of_its_own():
    ours = apart(os.getpid)
    reader, writer = os.pipe()
    if (pid := os.fork()) == 0:
        try:
            os.write(writer, str(apart(os.getpid)).encode())
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    theirs = int(os.read(reader, 20))
    assert theirs != ours
    assert apart(os.getpid) == ours


def test_nothing_of_the_current_folder_is_executed(workplace):
    """A stranger's `signals` or `pickle` beside the recordings that are scored."""
    for name in ("signals/__init__.py", "signals/apart.py", "pickle.py"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_text("raise SystemExit('executed')")
    with pytest.raises(Died):
        apart(os._exit, 0)  # the next one starts here
    assert apart(os.getcwd) == str(workplace)


# A command that is interrupted, or killed -------------------------------------------------------------------

COMMAND = """
import os, sys, time
from signals.apart import apart
print(apart(os.getpid), flush=True)
try:
    apart(time.sleep, 60)
except KeyboardInterrupt:
    print("interrupted", apart(divmod, 7, 2), flush=True)
"""


@pytest.fixture
def command():
    """A process in the midst of a call, and the number of the process that it goes on in."""
    environment = os.environ | {"PYTHONPATH": str(HOUSE)}
    started = subprocess.Popen(
        [sys.executable, "-c", COMMAND], env=environment, stdout=subprocess.PIPE, text=True, process_group=0
    )
    yield started, int(started.stdout.readline())
    started.kill()
    started.wait()


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def wait_for_the_end(pid: int) -> None:
    end = time.monotonic() + 10
    while not gone(pid):
        assert time.monotonic() < end, "it goes on"
        time.sleep(0.05)


@posix
def test_an_interrupt_of_all_ends_the_call_at_once(command):
    """As Ctrl-C does, which reaches a command and all that it started."""
    started, other = command
    time.sleep(0.3)
    os.killpg(started.pid, signal.SIGINT)
    told, _ = started.communicate(timeout=10)
    assert told == "interrupted (3, 1)\n"  # and not the answer of the call that was interrupted
    assert started.returncode == 0
    wait_for_the_end(other)


@posix
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_what_a_scheduler_tells_all_of_a_job_is_the_commands_to_heed(number):
    pid = apart(os.getpid)
    os.kill(pid, number)
    assert apart(os.getpid) == pid


@posix
def test_a_killed_command_leaves_no_process(command):
    started, other = command
    os.kill(other, 0)
    started.kill()
    started.wait()
    wait_for_the_end(other)
