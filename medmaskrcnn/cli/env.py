"""``medmaskrcnn env``: versions, devices and decoders, for bug reports; no paths and no names of the user."""

from __future__ import annotations

import os
import platform
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any

import typer

from medmaskrcnn.cli.console import echo, print_json
from medmaskrcnn.cli.failures import failing_as_one, logging_to
from medmaskrcnn.system.version import __version__

PACKAGES = (
    "torch", "monai", "numpy", "scipy", "nibabel", "SimpleITK", "pydicom", "pylibjpeg", "pylibjpeg-openjpeg",
    "pylibjpeg-rle", "pyjpegls", "python-gdcm", "pillow", "safetensors", "pydantic", "typer", "rich",
    "torchvision", "triton", "napari", "highdicom", "openvino",
)  # fmt: skip

CPU_FEATURES = (
    "avx2", "fma", "avx512f", "avx512_vnni", "avx512_bf16", "amx_tile", "amx_bf16", "amx_int8", "asimd", "bf16", "sve",
)  # fmt: skip


EXAMPLES = (
    "medmaskrcnn env",
    "medmaskrcnn env --json > env.json",
)


def env_command(
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """Show versions, devices, CPU features and DICOM decoders.

    Paste it into bug reports: it holds no paths and no names.
    """
    with logging_to(None), failing_as_one("env"):
        facts = environment()
        if as_json:
            print_json(facts)
            return
        for section, values in facts.items():
            echo(f"{section}:")
            for name, value in values.items():
                echo(f"  {name + ': ':<32}{_text(value)}")


def environment() -> dict[str, dict[str, Any]]:
    """What a bug report needs, JSON-able, in sections."""
    return {
        "system": _system(),
        "packages": {name: _version(name) for name in PACKAGES},
        "devices": _devices(),
        "operators": _operators(),
        "DICOM decoders": _decoders(),
    }


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(str(v) for v in value) or "none"
    return "not installed" if value is None else str(value)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _system() -> dict[str, Any]:
    memory = _memory_gib()
    return {
        "medmaskrcnn": __version__,
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "system": f"{platform.system()} {platform.release()}",
        "machine": platform.machine(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory GiB": memory if memory is not None else "unknown",
        "CPU features": cpu_features(),
    }


def _memory_gib() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (AttributeError, OSError, ValueError):  # Windows has no sysconf
        return None


def cpu_features(cpuinfo: Path = Path("/proc/cpuinfo")) -> list[str]:
    """Which of :data:`CPU_FEATURES` the processor names; empty where the system does not tell (not Linux)."""
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    flags: set[str] = set()
    for line in lines:
        key, _, value = line.partition(":")
        if key.strip() in ("flags", "Features"):
            flags |= set(value.split())
    return [name for name in CPU_FEATURES if name in flags]


def _devices() -> dict[str, Any]:
    import torch  # here, so that no command's --help pays for it

    cuda = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
    return {
        "cpu": f"{torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} threads",
        "cuda": [f"{gpu.name} ({gpu.total_memory / 2**30:.0f} GiB, sm_{gpu.major}{gpu.minor})" for gpu in cuda],
        "mps": torch.backends.mps.is_available(),
        "torch built for CUDA": torch.version.cuda or "no",
        "torch built for ROCm": torch.version.hip or "no",
    }


def _operators() -> dict[str, Any]:
    """Which implementation of RoIAlign, NMS and mask pasting serves each device, and why."""
    import torch  # here, so that no command's --help pays for it

    from medmaskrcnn_kernels import implementation
    from medmaskrcnn_kernels.choice import why_not_triton

    devices = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
    served = {device: "{} ({})".format(*implementation(device)) for device in devices}
    return {**served, "Triton on a GPU": why_not_triton() or "can compile here"}


def _decoders() -> dict[str, Any]:
    """For each compressed DICOM transfer syntax the decoders that are there."""
    from pydicom import uid  # here for the same reason as torch above
    from pydicom.pixels.decoders.base import get_decoder

    families = (
        uid.RLETransferSyntaxes, uid.JPEGTransferSyntaxes, uid.JPEGLSTransferSyntaxes,
        uid.JPEG2000TransferSyntaxes, (uid.HTJ2KLossless, uid.HTJ2KLosslessRPCL, uid.HTJ2K),
    )  # fmt: skip
    found = {}
    for syntax in (syntax for family in families for syntax in family):
        with suppress(NotImplementedError):  # JPEG 2000 part 2: pydicom knows no decoder at all
            name = " ".join(syntax.name.replace("Image Compression", "").split())
            found[name] = list(get_decoder(syntax).available_plugins)
    return found
