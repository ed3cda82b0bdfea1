"""The commands, and the papers as data.

What is set here, before PyTorch is imported, is set only where the user has set nothing.
"""

import os

from experiments.installed import check_pair

# Big buffers on huge pages, where the system has them: on CPUs a third of AudioSR's time was page faults.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
# PyTorch's threads wait actively for each other: briefly, where other processes need the cores, too.
if not os.environ.keys() & {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"}:
    os.environ["GOMP_SPINCOUNT"] = "3000"
check_pair()
