"""A module of ours as a program of its own, spoken to through its standard input and output."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any


def start_module(name: str, **options: Any) -> subprocess.Popen[Any]:
    """Start ``python -m name`` with this process's import path; both its pipes are open.

    Args:
        name: Of the module.
        options: Further ones of :class:`subprocess.Popen`.
    """
    # -P: the current folder holds the user's files, none of which is to be imported.
    command = [sys.executable, "-P", "-m", name]
    paths = os.pathsep.join(str(Path(p).resolve()) for p in sys.path if p)
    environment = {**os.environ, "PYTHONPATH": paths}
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, **options)
