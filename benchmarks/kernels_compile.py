"""Compiles the Triton kernels for GPUs that need not be here, and shows what they cost there.

    python benchmarks/kernels_compile.py --json kernels_compile.json

One line for each kernel, feature type and target: registers, spilled bytes and shared memory, from ``ptxas -v`` for
NVIDIA (sm_80: A100, sm_90: H100, H200) and from the code object's metadata for AMD (gfx942: MI300). A spill is a
failure: exit code 1.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from medmaskrcnn_kernels import triton_nms, triton_paste, triton_roi_align

TARGETS = {
    "sm_80": GPUTarget("cuda", 80, 32),
    "sm_90": GPUTarget("cuda", 90, 32),
    "gfx942": GPUTarget("hip", "gfx942", 64),
}
LEVELS = 4
WARPS = {"num_warps": triton_roi_align.WARPS}
OPTIONS = {"_forward": WARPS, "_backward": WARPS, "_scan": {"num_warps": 8}, "_compare": {"enable_fp_fusion": False}}


def roi_align_arguments(kind: str, dims: int, dtype: str) -> dict[str, Any]:
    """Types of a launch over four levels, 7 bins along each axis, 256 channels in 2D and 64 in 3D."""
    maps = (f"*{dtype}",) * LEVELS
    shared = {"sizes": ("i32",) * 3 * LEVELS, "scales": ("fp32",) * 3 * LEVELS}
    constants = {
        "BINS0": 7 if dims == 3 else 1, "BINS1": 7, "BINS2": 7, "DIMS": dims, "ALIGNED": True, "BLOCK_BINS": 16,
        "BLOCK_CELLS": triton_roi_align.CELLS, "BLOCK_CHANNELS": triton_roi_align.CHANNELS if dims == 2 else 64,
    }  # fmt: skip
    numbers = {"images": "i32", "channels": "i32", "ratio": "i32"}
    if kind == "forward":
        types = {
            "maps": maps, **shared, "least_areas": ("fp32",) * (LEVELS - 1), "boxes": "*fp32", "batch_index": "*i64",
            "pooled": f"*{dtype}", **numbers, "stride_box": "i32", "stride_channel": "i32", "stride_bin": "i32",
        }  # fmt: skip
        return {**types, **constants, "PRECISION": "tf32x3"}
    types = {
        "gradients": maps, **shared, "first_programs": ("i32",) * (LEVELS - 1), "boxes": "*fp32", "order": "*i64",
        "offsets": "*i64", "pulled": f"*{dtype}", **numbers,
    }  # fmt: skip
    return {**types, **constants, "BLOCK_BOXES": triton_roi_align.BOXES_AT_ONCE, "PRECISION": "tf32x3"}


def launches() -> list[tuple[str, Any, dict[str, Any]]]:
    """Name, kernel and argument types (a number: a constant) of everything that is compiled."""
    found = []
    for dims in (2, 3):
        for dtype in ("fp32", "bf16"):
            for kind, kernel in (("forward", triton_roi_align._forward), ("backward", triton_roi_align._backward)):
                found.append((f"roi_align {kind} {dims}D {dtype}", kernel, roi_align_arguments(kind, dims, dtype)))
        compare = {"boxes": "*fp32", "labels": "*i64", "strikes": "*i32", "count": "i32", "words": "i32"}
        compare |= {"threshold": "fp32"}
        constants = {"DIMS": dims, "ROWS": triton_nms.ROWS, "WORD": triton_nms.WORD}
        found.append((f"nms compare {dims}D", triton_nms._compare, {**compare, **constants}))
        paste = {"probabilities": "*fp32", "boxes": "*fp32", "windows": "*i64", "first_voxels": "*i64"}
        paste |= {"crops": "*fp32", "cells0": "i32", "cells1": "i32", "cells2": "i32"}
        found.append((f"paste {dims}D", triton_paste._paste, {**paste, "DIMS": dims, "VOXELS": triton_paste.VOXELS}))
    scan = {"strikes": "*i32", "kept": "*i8", "count": "i32", "words": "i32", "WORD": triton_nms.WORD}
    found.append(("nms scan 6,144 boxes", triton_nms._scan, {**scan, "BLOCK_WORDS": 256}))
    return found


def compile_for(kernel: Any, arguments: dict[str, Any], target: GPUTarget) -> dict[str, int]:
    """Registers, spilled bytes and shared memory of a kernel on a target."""
    if target.backend == "hip" and "PRECISION" in arguments:
        arguments = {**arguments, "PRECISION": "ieee"}
    constants = {name: value for name, value in arguments.items() if isinstance(value, int) or name == "PRECISION"}
    signature = {name: "constexpr" if name in constants else arguments[name] for name in kernel.arg_names}
    source = ASTSource(kernel, signature=signature, constexprs=constants)
    compiled = triton.compile(source, target=target, options=OPTIONS.get(kernel.__name__, {}))
    cost = nvidia_cost(compiled.asm["ptx"]) if target.backend == "cuda" else amd_cost(compiled.asm["amdgcn"])
    return {**cost, "shared_bytes": int(compiled.metadata.shared)}


def nvidia_cost(ptx: str) -> dict[str, int]:
    """What ``ptxas -v`` says."""
    assembler = max((Path(triton.__file__).parent / "backends" / "nvidia" / "bin").glob("ptxas*"))  # the newest
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "kernel.ptx"
        source.write_text(ptx)
        name = re.findall(r"^\.target (\w+)", ptx, re.MULTILINE)[0]
        command = [str(assembler), "-v", f"--gpu-name={name}", str(source), "-o", str(Path(folder) / "kernel.cubin")]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    spills = sum(int(n) for n in re.findall(r"(\d+) bytes spill", said))
    return {"registers": int(re.findall(r"Used (\d+) registers", said)[-1]), "spilled_bytes": spills}


def amd_cost(assembly: str) -> dict[str, int]:
    """What the code object's metadata says; scalar registers live beside the vector ones."""
    read = {key: int(re.findall(rf"\.{key}:\s+(\d+)", assembly)[-1]) for key in ("vgpr_count", "vgpr_spill_count")}
    scalar = int(re.findall(r"\.sgpr_spill_count:\s+(\d+)", assembly)[-1])
    return {"registers": read["vgpr_count"], "spilled_bytes": 4 * (read["vgpr_spill_count"] + scalar)}


def main() -> None:
    """Compile everything, print a table, write JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--only", default="", help="only kernels whose name holds this")
    arguments = parser.parse_args()
    rows = []
    for name, kernel, types in launches():
        for target_name, target in TARGETS.items():
            if arguments.only in name:
                row = {"kernel": name, "target": target_name, **compile_for(kernel, types, target)}
                rows.append(row)
                print("{kernel:28s} {target:7s} {registers:4d} registers {spilled_bytes:5d} bytes spilled "
                      "{shared_bytes:6d} bytes shared".format(**row), flush=True)  # fmt: skip
    if arguments.json:
        document = {"triton": triton.__version__, "command": "python benchmarks/kernels_compile.py", "rows": rows}
        arguments.json.write_text(json.dumps(document, indent=1) + "\n")
    sys.exit(any(row["spilled_bytes"] for row in rows))


if __name__ == "__main__":
    main()
