"""Freed memory stays with a process of ours while it is asked to; anybody else's process is left alone."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys

import pytest

from medmaskrcnn.system.memory import _glibc

_PROBE = """
import json, resource
from pathlib import Path
import torch
from torch import nn
from medmaskrcnn.system.memory import allow_retaining, retain_freed_memory

allow_retaining()
torch.set_num_threads(1)
layers = [m for a, b in ((1, 8), (8, 12), (12, 16), (16, 8)) for m in (nn.Conv2d(a, b, 3, padding=1), nn.ReLU())]
network, images = nn.Sequential(*layers), torch.zeros(1, 1, 1024, 1024)

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    with torch.no_grad():
        network(images)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

found = {"before": [faults() for _ in range(4)]}
began = resident()
with retain_freed_memory():
    with retain_freed_memory():
        faults()
    found["kept"] = [faults() for _ in range(8)]
    found["held"] = resident() - began
found["left"] = resident() - began
found["after"] = [faults() for _ in range(4)]
print(json.dumps(found))
"""


_HOST = """
import ctypes
import numpy as np
import medmaskrcnn
from medmaskrcnn.system.memory import retain_freed_memory

library = ctypes.CDLL(None)
library.malloc.restype, library.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
library.free.argtypes = [ctypes.c_void_p]

class Figures(ctypes.Structure):  # of malloc.h, mallinfo(3)
    _fields_ = [(name, ctypes.c_int) for name in "arena ordblks smblks hblks hblkhd a b c d e".split()]

library.mallinfo.restype = Figures

def mapped_by_itself(size):
    before = library.mallinfo().hblks
    block = library.malloc(size)
    own = library.mallinfo().hblks - before
    library.free(block)
    return own

grid = medmaskrcnn.Grid((1, 64, 64), np.eye(4), spacing_known=False)
picture = medmaskrcnn.Volume(np.zeros((1, 1, 64, 64), np.uint8), grid)
for _ in range(2):
    medmaskrcnn.segment(picture, "nuclei", device="cpu", allow_out_of_domain=True)
with retain_freed_memory():
    assert mapped_by_itself(100 << 20) == 1  # larger than the limit can ever become
mapped_by_itself(31 << 20)  # glibc now expects more such blocks, and will not map them any more
print(mapped_by_itself(30 << 20))
"""


@pytest.mark.skipif(_glibc() is None, reason="only glibc has these parameters")
def test_the_allocator_of_a_host_still_adapts() -> None:
    done = subprocess.run([sys.executable, "-c", _HOST], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["0"], done.stderr


def test_the_command_line_is_a_process_of_ours() -> None:
    code = (
        "from medmaskrcnn.cli.main import main; from medmaskrcnn.system import memory\n"
        "try: main()\nexcept SystemExit: print(memory._allowed)"
    )
    done = subprocess.run([sys.executable, "-c", code, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.split()[-1] == "True"


@pytest.mark.skipif(_glibc() is None, reason="only glibc has these parameters")
def test_a_pass_asks_the_system_for_little_and_all_goes_back() -> None:
    done = subprocess.run([sys.executable, "-c", _PROBE], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    usual, kept = statistics.median(found["before"]), statistics.median(found["kept"])
    assert usual > 10_000  # pages
    assert kept < usual / 4
    assert found["held"] > 50 << 20
    assert found["left"] < 20 << 20
    assert statistics.median(found["after"]) > usual / 2
