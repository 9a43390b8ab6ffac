"""What is left of memory: of the machine, of a control group, of the shell's limit."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import pytest

from medmaskrcnn.system import memory_budget
from medmaskrcnn.system.memory_budget import available_bytes


def test_there_is_some():
    left = available_bytes()
    assert left is not None and 2**20 < left < 2**50


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_a_limit_of_the_shell_counts():
    code = "from medmaskrcnn.system.memory_budget import available_bytes; print(available_bytes())"
    limit = 600 * 2**20
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)),
    )  # fmt: skip
    assert 0 < int(ran.stdout) < limit


@pytest.mark.parametrize("version", [1, 2])
def test_a_limit_of_a_group_counts_and_file_caches_are_free(tmp_path: Path, monkeypatch, version: int):
    folder = tmp_path / "own" if version == 2 else tmp_path / "memory" / "own"
    folder.mkdir(parents=True)
    names = ("memory.max", "memory.current", "inactive_file")
    if version == 1:
        names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
    for name, value in zip((*names[:2], "memory.stat"), ("1000", "700", f"anon 5\n{names[2]} 200\n"), strict=True):
        (folder / name).write_text(value)
    listed = tmp_path / "cgroup"
    listed.write_text("0::/own\n" if version == 2 else "4:cpu:/\n7:memory:/own\n")
    monkeypatch.setattr(memory_budget, "_GROUPS", tmp_path)
    read = Path.read_text
    monkeypatch.setattr(
        Path, "read_text", lambda self, *a, **k: read(listed if str(self) == "/proc/self/cgroup" else self, *a, **k)
    )
    assert available_bytes() == 500
