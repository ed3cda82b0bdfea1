"""Threads: what the user says, else as many as cores are free, and the same after a resume."""

import os
import subprocess
import sys

import psutil
import pytest
import torch

from callbacks.checkpoints import Threads
from experiments import threads
from experiments.threads import choose_threads, free_cores

NOBODY = {"trainer": {"threads": None}}


@pytest.fixture
def nobody_says(monkeypatch):
    """A machine of four cores, two of them at work, whose user has set nothing."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(threads, "own_cores", lambda: {0, 1, 2, 3})
    monkeypatch.setattr(psutil, "cpu_percent", lambda interval, percpu: [100.0, 5.0, 3.0, 96.0])


def test_free_cores_are_those_of_nobody_else(nobody_says, monkeypatch):
    assert free_cores() == 2
    monkeypatch.setattr(threads, "own_cores", lambda: {0, 3})
    assert free_cores() == 1  # busy, but at least one


@pytest.mark.parametrize(("processes", "expected"), [(1, 2), (2, 1), (8, 1)])
def test_processes_share_the_free_cores(nobody_says, processes, expected):
    choose_threads(NOBODY, processes)
    assert torch.get_num_threads() == expected
    assert "OMP_NUM_THREADS" not in os.environ  # what is started looks for itself


def test_what_the_user_says_holds(nobody_says, monkeypatch):
    choose_threads({"trainer": {"threads": 3}})
    assert (torch.get_num_threads(), os.environ["OMP_NUM_THREADS"]) == (3, "3")
    torch.set_num_threads(1)
    choose_threads(NOBODY)
    assert torch.get_num_threads() == 1


@pytest.mark.parametrize(("fixed", "expected"), [(False, 2), (True, 1)])
def test_a_training_goes_on_with_its_threads(fixed, expected):
    torch.set_num_threads(2)
    state = Threads(fixed).state_dict()
    torch.set_num_threads(1)
    Threads(fixed).load_state_dict(state)
    assert torch.get_num_threads() == expected


@pytest.mark.parametrize(
    ("given", "spins"),
    [({}, "3000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "PASSIVE"}, "None")],
)
def test_threads_wait_briefly_where_the_user_has_set_nothing(given, spins):
    code = "import experiments, os, sys; print(os.environ.get('GOMP_SPINCOUNT'), 'torch' in sys.modules)"
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("GOMP_", "OMP_"))}
    done = subprocess.run([sys.executable, "-c", code], env=clean | given, capture_output=True, text=True)
    assert done.stdout.split() == [spins, "False"]
