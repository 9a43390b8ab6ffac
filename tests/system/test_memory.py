"""Freed memory stays with the process while it is asked to, and goes back afterwards."""

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
from medmaskrcnn.system.memory import memory_kept

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
with memory_kept():
    with memory_kept():
        faults()
    found["kept"] = [faults() for _ in range(8)]
    found["held"] = resident() - began
found["left"] = resident() - began
found["after"] = [faults() for _ in range(4)]
print(json.dumps(found))
"""


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
