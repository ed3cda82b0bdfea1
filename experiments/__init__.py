import os

# Big buffers on huge pages, where the system has them: on CPUs a third of AudioSR's time was page faults.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
