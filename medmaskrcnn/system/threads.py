"""Threads of this process and of those it starts: together no more than the machine has cores to spare.

torch takes as many threads as there are cores in every process. Two processes that each do so are slower than one,
since threads that wait for each other at the end of each operation wait for those that the system has put aside.
"""

from __future__ import annotations

import os

_LEARNING_THREADS = 2  # at least, where there are so many cores: drawing samples takes a small part of one


def use_one_thread(*_: object) -> None:
    """Let torch in this process use one thread; the initializer of processes of which there are several."""
    import torch  # here: programs that start no such process need no torch

    torch.set_num_threads(1)


def threads_beside(workers: int) -> int:
    """Threads for a process that learns while ``workers`` processes with one thread each draw samples for it."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(cores - workers, min(cores, _LEARNING_THREADS))
