"""Chooses the implementation: Triton kernels on supported GPUs, the portable form everywhere else.

The choice is made once per device, at first use: Triton must be installed, must find the C compiler and the Python
headers that it needs to launch kernels, and its kernels must agree with the portable form on a small problem. If not,
the portable form runs on the GPU and a warning says why. The environment variable ``MEDMASKRCNN_KERNELS`` (``auto``,
``portable``, ``triton``) or :func:`use_implementation` force it.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import sysconfig
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

CHOICES = ("auto", "portable", "triton")
SelfCheck = Callable[[torch.device], str]
"""Says why Triton's kernels must not be used on a device; nothing where they may."""

_chosen: dict[str, tuple[str, str]] = {}
_self_checks: list[SelfCheck] = []
_forced: list[str] = []
_checked: list[bool] = [False]


def implementation(device: str | torch.device) -> tuple[str, str]:
    """Name of the implementation used on a device, and the reason.

    Args:
        device: Such as ``"cuda"`` or ``"cpu"``.

    Returns:
        ``("triton" or "portable", reason)``.
    """
    device = torch.device(device)
    forced = _forced[-1] if _forced else _from_environment()
    if forced == "triton":
        return "triton", "forced"
    if forced == "portable" or device.type != "cuda":
        return "portable", "forced" if forced == "portable" else f"runs on {device.type}"
    key = str(device)
    if key not in _chosen:
        reason = why_not_triton() or _disagreement(device)
        _chosen[key] = ("portable", reason) if reason else ("triton", "agrees with the portable form")
        if reason:
            warnings.warn(f"the portable operators run on {key}, more slowly: {reason}", RuntimeWarning, stacklevel=2)
    return _chosen[key]


def before_first_use(check: SelfCheck) -> SelfCheck:
    """Decorator: call this check before Triton is used on a device (it imports the operators, which import this)."""
    _self_checks.append(check)
    return check


def use_triton(device: torch.device) -> bool:
    """Whether tensors on this device are processed by Triton kernels."""
    return implementation(device)[0] == "triton"


@contextmanager
def use_implementation(name: str) -> Iterator[None]:
    """Force ``"portable"`` or ``"triton"`` within a ``with`` block; ``"auto"`` restores the choice by device.

    Raises:
        ValueError: for another name.
    """
    if name not in CHOICES:
        raise ValueError(f"the implementation must be one of {', '.join(CHOICES)}, got {name!r}")
    _forced.append(name)
    try:
        yield
    finally:
        _forced.pop()


@contextmanager
def checked() -> Iterator[None]:
    """Raise for bad rows on a GPU too, within a ``with`` block, at the cost of a host synchronisation for each call."""
    before, _checked[0] = _checked[0], True
    try:
        yield
    finally:
        _checked[0] = before


def values_are_checked(device: torch.device) -> bool:
    """Whether a bad row raises: always on the CPU, elsewhere within :func:`checked`."""
    return _checked[0] or device.type == "cpu"


def why_not_triton() -> str:
    """What Triton lacks on this machine; empty if nothing."""
    if importlib.util.find_spec("triton") is None:
        return "triton is not installed (pip install triton)"
    compiler = os.environ.get("CC", "")
    if compiler and shutil.which(compiler) is None:
        return f"triton needs a C compiler, and CC={compiler} is none"
    if not compiler and not any(shutil.which(name) for name in ("gcc", "clang", "cc")):
        return "triton needs a C compiler (gcc or clang), and there is none"
    header = Path(sysconfig.get_path("include")) / "Python.h"
    if not header.exists():
        return f"triton needs Python's headers, and {header} is not there (install python3-dev)"
    return ""


def _from_environment() -> str:
    name = os.environ.get("MEDMASKRCNN_KERNELS", "auto")
    if name not in CHOICES:
        raise ValueError(f"MEDMASKRCNN_KERNELS must be one of {', '.join(CHOICES)}, got {name!r}")
    return name


def _disagreement(device: torch.device) -> str:
    """Why Triton kernels must not be used here: what failed or disagreed with the portable form; empty if fine."""
    try:
        return next(filter(None, (check(device) for check in _self_checks)), "")
    except Exception as error:  # any error of compiler, driver or launch: fall back to the portable form
        return f"triton's kernels do not run here ({type(error).__name__}: {str(error).splitlines()[:1]})"
