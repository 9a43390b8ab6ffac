"""How fast and in how much memory a CT series is read, against what users would use instead.

    python benchmarks/reading.py --json reading.json

A series of 300 x 512 x 512 is written uncompressed, in JPEG-LS and in JPEG 2000. Each reader reads it in a process of
its own, several times, in turn with the others so that all see the same machine; the best time of each counts (import
does not). Peak memory is that of the process with one volume alive; what importing alone takes is told beside it.
Readers: ``read_volume``, MONAI's ``LoadImage`` with PydicomReader (and with ITKReader where ``itk`` is installed),
SimpleITK.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from ct_slice import ct_slice
from machine import machine
from pydicom import uid

SYNTAXES = {
    "uncompressed": uid.ExplicitVRLittleEndian,
    "JPEG-LS": uid.JPEGLSLossless,
    "JPEG 2000": uid.JPEG2000Lossless,
}
TARGETS = {"uncompressed": {"monai": 8.0, "simpleitk": 2.0}}
"""How many times as fast as each we want to be; in other syntaxes 1."""
PACKAGES = ("medmaskrcnn", "pydicom", "monai", "SimpleITK", "numpy", "pylibjpeg-openjpeg", "pyjpegls")

READERS = {
    "medmaskrcnn": """
from medmaskrcnn.io.read import read_volume
def read(folder):
    return read_volume(folder).array
""",
    "monai PydicomReader": """
from monai.transforms import LoadImage
loader = LoadImage(reader="PydicomReader", image_only=True)
def read(folder):
    return loader(folder)
""",
    "monai ITKReader": """
import itk
from monai.transforms import LoadImage
loader = LoadImage(reader="ITKReader", image_only=True)
itk.ImageSeriesReader  # itk loads its modules late; that is import time, not reading
def read(folder):
    return loader(folder)
""",
    "simpleitk": """
import SimpleITK as sitk
def read(folder):
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(folder))
    return sitk.GetArrayFromImage(reader.Execute())
""",
}

HARNESS = """
import json, logging, resource, sys, time, warnings
warnings.simplefilter("ignore")
logging.disable(logging.CRITICAL)
{reader}
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
imported = peak()
began = time.perf_counter()
array = read(sys.argv[1])
seconds = time.perf_counter() - began
print("RESULT" + json.dumps(dict(seconds=seconds, imported=imported, peak=peak(), workers=resource.getrusage(
    resource.RUSAGE_CHILDREN).ru_maxrss / 1024, shape=list(array.shape), dtype=str(array.dtype),
    sum=float(array.sum(dtype="float64")) if hasattr(array, "ctypes") else float(array.double().sum()))))
"""


def write_series(folder: Path, syntax: str, slices: int, side: int) -> None:
    """A CT-like series: smooth structures with noise, 12 bits deep, stored in 16."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:side, :side] * (512 / side)
    for i in range(slices):
        body = 1000 + 400 * np.sin(columns / 40 + i / 20) * np.cos(rows / 50)
        plane = (body + rng.normal(0, 15, body.shape)).astype(np.int16)
        one = ct_slice(i, plane, spacing_mm=(0.8, 0.8))
        if syntax != uid.ExplicitVRLittleEndian:
            one.compress(syntax, generate_instance_uid=False)
        one.save_as(folder / f"{(i * 7) % slices:04d}.dcm", enforce_file_format=True)


def read_once(reader: str, folder: Path) -> dict[str, Any]:
    """One reading in a fresh process."""
    command = [sys.executable, "-c", HARNESS.format(reader=READERS[reader]), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    line = next((text for text in done.stdout.splitlines() if text.startswith("RESULT")), None)
    if line is None:
        raise RuntimeError(f"{reader} failed on {folder.name}: {done.stderr[-800:]}")
    return dict(json.loads(line.removeprefix("RESULT")))


def compare(folder: Path, readers: list[str], repeats: int) -> dict[str, dict[str, Any]]:
    """Best time and peak memory of each reader on one series, taken in turn."""
    runs: dict[str, list[dict[str, Any]]] = {reader: [] for reader in readers}
    for _ in range(repeats):
        for reader in readers:
            runs[reader].append(read_once(reader, folder))
    return {
        reader: {
            **found[0],
            "seconds": round(min(run["seconds"] for run in found), 3),
            "all_seconds": [round(run["seconds"], 3) for run in found],
            "peak_mb": round(max(run["peak"] for run in found), 1),
            "import_mb": round(found[0]["imported"], 1),
            "worker_mb": round(max(run["workers"] for run in found), 1),
        }
        for reader, found in runs.items()
    }


def main() -> int:
    """Command line; exit code 1 where a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slices", type=int, default=300)
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--syntax", choices=list(SYNTAXES), action="append", help="default: all")
    parser.add_argument("--json", type=Path, metavar="FILE")
    args = parser.parse_args()
    readers = [r for r in READERS if "ITKReader" not in r or importlib.util.find_spec("itk")]
    report: dict[str, Any] = {"machine": machine(*PACKAGES), "slices": args.slices, "side": args.side, "results": {}}
    missed = []
    with tempfile.TemporaryDirectory(prefix="reading-") as folder:
        for name in args.syntax or SYNTAXES:
            series = Path(folder) / name.replace(" ", "_")
            write_series(series, SYNTAXES[name], args.slices, args.side)
            found = report["results"][name] = compare(series, readers, args.repeats)
            missed += show(name, found, args.slices * args.side**2 * 2)
    report["missed"] = missed
    if args.json:
        args.json.write_text(json.dumps(report, indent=1) + "\n")
    print("\n".join(missed) or "all targets met")
    return 1 if missed else 0


def show(name: str, found: dict[str, dict[str, Any]], array_bytes: int) -> list[str]:
    """Print one table; the targets that were missed."""
    ours, missed = found["medmaskrcnn"], []
    if len({round(run["sum"]) for run in found.values()}) != 1:
        missed.append(f"{name}: the readers do not agree on the voxels")
    print(f"\n{name}\n{'reader':22} {'seconds':>8} {'ratio':>6} {'peak MB':>8} {'import MB':>9}  array")
    for reader, run in found.items():
        ratio = run["seconds"] / ours["seconds"]
        print(
            f"{reader:22} {run['seconds']:8.3f} {ratio:6.2f} {run['peak_mb']:8.0f} {run['import_mb']:9.0f}  "
            f"{run['dtype']}"
        )
        wanted = TARGETS.get(name, {}).get(reader.split()[0], 1.0)
        if reader != "medmaskrcnn" and ratio < wanted:
            missed.append(f"{name}: {ratio:.2f} times as fast as {reader}, wanted {wanted:g}")
    extra = (ours["peak_mb"] - ours["import_mb"]) * 2**20 / array_bytes
    print(f"our peak beyond the imports: {extra:.2f} times the array; largest worker {ours['worker_mb']:.0f} MB")
    if extra > 2:
        missed.append(f"{name}: peak memory {extra:.2f} times the array, wanted 2")
    return missed


if __name__ == "__main__":
    sys.exit(main())
