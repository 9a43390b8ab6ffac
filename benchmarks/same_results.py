"""Proof that a change of the code leaves results as they are: ten fixed inputs, before and after.

    python benchmarks same-results make BEFORE --data DIR      with the code as it was
    python benchmarks same-results make AFTER --data DIR       with the code as it is now
    python benchmarks same-results compare BEFORE AFTER

``make`` runs ``medmaskrcnn segment`` as a program of its own, so that this file needs none of the package's names and
runs with any version: that of ``PYTHONPATH``, or the one installed. ``DIR`` is the folder of real scans that
``MEDMASKRCNN_DATA`` names; nothing of it is copied. Other inputs are made: phantoms by ``medmaskrcnn_datasets``, a
picture here. Everything runs on one thread of the CPU and in float32 (one input in bfloat16), so that sums are taken in
one order. It takes some three minutes on one core.

``compare`` says for each input and file ``same`` or what differs. It ends with exit code 1 if a scan, an array of
``instances.npz``, a voxel or affine of the label map, or a byte of the DICOM objects or the table differs. What may
change its form (names of keys in JSON, NIfTI's header, the preview's pixels, ...) is only told, as a ``note``; with
``--strict`` every file but ``run.json`` has to be the same, byte for byte.

DICOM objects need no fixed clock: their dates are the scan's and their UIDs hashes of scan, model, settings and
content. So a renamed key of the settings that are recorded makes other UIDs.

All in one file, though it is long: so it can be taken to any version and run there.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import os
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import entry_points
from itertools import zip_longest
from pathlib import Path
from typing import Any, Literal

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom import dcmread
from pydicom.dataset import Dataset

PLAIN = "nifti,csv,json,png"
DICOM = f"{PLAIN},seg,rtstruct,sr"
EVERYTHING = f"{DICOM},coco,stl,html"

ENVIRONMENT = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "COLUMNS": "120"}
INPUTS, RESULTS, MADE_BY = "inputs.json", "results", "made_by.json"
MOST_LINES = 20  # of what differs in one file


@dataclass(frozen=True)
class Input:
    """One scan, and how it is segmented.

    Attributes:
        name: Folder of its result.
        place: Where the scan lies: ``data`` (real scans) or ``made`` (phantoms and the picture).
        path: Relative to that place.
        words: Of the command line, after the scan and the output folder.
    """

    name: str
    place: Literal["data", "made"]
    path: str
    words: tuple[str, ...]


TEN = (
    Input("phantom_ct_dicom", "made", "study", ("--model", "phantom-ct", "--format", DICOM)),
    Input("abdomen_mr_nifti", "data", "AbdomenMR/imagesTr/chaos_15.nii.gz", ("--model", "abdomen-mr")),
    Input(
        "hippocampus_nifti",
        "data",
        "Task04_Hippocampus/imagesTr/hippocampus_003.nii.gz",
        ("--model", "hippocampus-mr", "--format", f"{PLAIN},coco,stl,html"),
    ),
    Input(
        "sarcoma_nifti",
        "data",
        "SarcomaMR/imagesTr/STS_014.nii.gz",
        ("--model", "sarcoma-mr", "--precision", "bf16", "--score", "0.1"),
    ),
    Input(
        "nuclei_png", "data", "nuclei/images/00071198d059ba7f.png", ("--model", "nuclei", "--format", f"{PLAIN},coco")
    ),
    Input(
        "sarcoma_dicom_everything",
        "data",
        "dicom/STS_001/MR_T1/image",
        ("--model", "sarcoma-mr", "--format", EVERYTHING),
    ),
    Input("phantom_sheared_nifti", "made", "sheared.nii.gz", ("--model", "phantom-ct", "--score", "0.3")),
    Input(
        "picture_of_16_bits",
        "made",
        "picture.tif",
        ("--model", "nuclei", "--score", "0.3", "--format", f"{PLAIN},html"),
    ),
    Input(
        "one_series_of_a_folder",
        "data",
        "dicom/STS_003",
        ("--model", "sarcoma-mr", "--series", "2", "--format", DICOM, "--label-map-seg", "--deidentify"),
    ),
    Input(
        "out_of_domain_jpeg2000",
        "data",
        "dicom/CT_JPEG2000",
        (
            *("--model", "phantom-ct", "--allow-out-of-domain", "--score", "0.1"),
            *("--classes", "liver,right lung,left lung,vertebra"),
        ),
    ),
)


# ------------------------------------------------------------------------------------------------------------- make


def make(out: Path, data: Path) -> None:
    """Segment the ten inputs; the results go into ``out/results``."""
    out.mkdir(parents=True, exist_ok=True)
    if any(out.iterdir()):
        raise SystemExit(f"{out} is not empty: give a new folder")
    began = time.monotonic()
    write_json(out / MADE_BY, {"code": str(package_folder()), "commit": commit_of(package_folder())})
    places = {"data": data, "made": out / "made"}
    make_inputs(places["made"])
    write_json(out / INPUTS, {one.name: digest_of(places[one.place] / one.path) for one in TEN})
    for one in TEN:
        started = time.monotonic()
        words = () if "--precision" in one.words else ("--precision", "fp32")
        run_medmaskrcnn(
            *("segment", str(places[one.place] / one.path), "-o", str(out / RESULTS / one.name)),
            *(*one.words, *words, "--device", "cpu", "--quiet"),
            folder=out,
        )
        with np.load(out / RESULTS / one.name / "instances.npz", allow_pickle=False) as arrays:
            found = len(arrays["scores"])
        print(f"{one.name:28}{found:4d} candidates {time.monotonic() - started:6.1f} s", flush=True)
        if not found:
            raise SystemExit(f"nothing was found in {one.name}: it would prove nothing")
    print(f"{time.monotonic() - began:.0f} s in all")


def make_inputs(folder: Path) -> None:
    """Write what is not taken from real scans: a phantom as DICOM, one as a sheared NIfTI, a picture."""
    folder.mkdir()
    datasets = [sys.executable, "-m", "medmaskrcnn_datasets"]
    run([*datasets, "study", "--slices", "40", "--matrix", "96", "-o", str(folder / "study")], folder)
    words = ["--count", "1", "--first-seed", "3", "--workers", "1", "--max-shape", "48,96,96"]
    run([*datasets, "phantoms", *words, "-o", str(folder / "phantoms")], folder)
    (phantom,) = (path for path in (folder / "phantoms").rglob("*.nii.gz") if "image" in str(path))
    write_sheared(phantom, folder / "sheared.nii.gz")
    write_picture(folder / "picture.tif")


def write_sheared(phantom: Path, target: Path) -> None:
    """The middle of a phantom, rotated by 8 degrees about the patient's long axis and with a gantry's tilt of 12."""
    scan = nib.nifti1.load(phantom)
    voxels = np.asanyarray(scan.dataobj)
    window = tuple(slice(n // 8, n - n // 8) for n in voxels.shape)
    angle, tilt = np.deg2rad(8), np.tan(np.deg2rad(12))
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    shear = np.array([[1, 0, 0], [0, 1, tilt], [0, 0, 1]])
    affine = scan.affine.copy()
    affine[:3, :3] = turn @ shear @ affine[:3, :3]
    sheared = nib.Nifti1Image(voxels[window], None, scan.header)
    sheared.set_sform(affine, 1)
    sheared.set_qform(None, 0)
    nib.save(sheared, target)


def write_picture(target: Path) -> None:
    """A picture of 16 bits without spacing: bright discs, some of which touch, on a dark ground with noise."""
    random = np.random.default_rng(0)
    rows, columns = np.mgrid[:200, :260]
    picture = random.normal(12, 4, (200, 260))
    for _ in range(24):
        row, column, radius = random.uniform(10, 190), random.uniform(10, 250), random.uniform(7, 15)
        inside = (rows - row) ** 2 + ((columns - column) * random.uniform(0.7, 1.2)) ** 2 < radius**2
        picture[inside] = random.uniform(90, 220) + random.normal(0, 6, inside.sum())
    Image.fromarray((200 * picture.clip(0, 255)).astype(np.uint16)).save(target)


def run_medmaskrcnn(*words: str, folder: Path) -> None:
    """Run the command line as a user does, with the interpreter that runs this."""
    module, _, function = console_script().partition(":")
    run([sys.executable, "-c", f"from {module} import {function}; {function}()", *words], folder)


def run(command: list[str], folder: Path) -> None:
    """Run a program in ``folder``, which is no checkout; end with its words if it fails."""
    done = subprocess.run(
        command, cwd=folder, env={**os.environ, **ENVIRONMENT}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")


def package_folder() -> Path:
    """Where the package that is at work lies."""
    found = importlib.util.find_spec("medmaskrcnn")
    if found is None or found.origin is None:
        raise SystemExit("the package medmaskrcnn is not installed, and PYTHONPATH does not name a checkout of it")
    return Path(found.origin).parent


def console_script() -> str:
    """``module:function`` of the program: from the checkout that is at work, else from what is installed."""
    checkout = package_folder().parent / "pyproject.toml"
    if checkout.exists():
        return str(tomllib.loads(checkout.read_text(encoding="utf-8"))["project"]["scripts"]["medmaskrcnn"])
    return next(iter(entry_points(group="console_scripts", name="medmaskrcnn"))).value


def commit_of(folder: Path) -> str | None:
    """The commit that a folder's checkout is at, with ``+`` where files differ from it; ``None`` outside of any."""
    git = ["git", "-C", str(folder)]
    head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    if head.returncode:
        return None
    changed = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True, check=False).stdout
    return head.stdout.strip() + ("+" if changed else "")


def digest_of(path: Path) -> str:
    """SHA-256 of a file, or of all files below a folder with their names."""
    if not path.exists():
        raise SystemExit(f"there is no {path}: does --data name the folder of real scans?")
    digest = hashlib.sha256()
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if file.is_file():
            digest.update(f"{file.relative_to(path)}\0{file.stat().st_size}\0".encode())
            digest.update(file.read_bytes())
    return digest.hexdigest()


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a small JSON file."""
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


# ---------------------------------------------------------------------------------------------------------- compare


@dataclass(frozen=True)
class Finding:
    """What differs between two files.

    Attributes:
        text: A sentence.
        counts: True where results are no longer the same, False where only their form is.
    """

    text: str
    counts: bool


def compare(before: Path, after: Path, *, strict: bool) -> bool:
    """Print what is the same and what differs; whether the results are the same."""
    for folder in (before, after):
        if not (folder / INPUTS).exists():
            raise SystemExit(f"{folder} holds no results of `same-results make`")
        print(f"{folder}: {json.dumps(read_json(folder / MADE_BY))}")
    scans = [read_json(folder / INPUTS) for folder in (before, after)]
    totals = {"same": 0, "note": 0, "DIFFERS": 0}
    for name in sorted(scans[0].keys() | scans[1].keys()):
        if scans[0].get(name) != scans[1].get(name):
            print(f"{name:28}{'(the scan)':40}DIFFERS\n    the scan itself is another one")
            totals["DIFFERS"] += 1
        folders = [folder / RESULTS / name for folder in (before, after)]
        for file in sorted({str(p.relative_to(f)) for f in folders for p in f.rglob("*") if p.is_file()}):
            findings = list(compare_files(folders[0] / file, folders[1] / file))
            counts = any(one.counts for one in findings) or (strict and bool(findings) and file != "run.json")
            verdict = "DIFFERS" if counts else "note" if findings else "same"
            totals[verdict] += 1
            print(f"{name:28}{file:40}{verdict}")
            for one in findings[:MOST_LINES]:
                print(f"    {one.text}")
            if len(findings) > MOST_LINES:
                print(f"    ... and {len(findings) - MOST_LINES} more")
    print(", ".join(f"{count} {verdict}" for verdict, count in totals.items()))
    return not totals["DIFFERS"] and totals["same"] > 0


def compare_files(before: Path, after: Path) -> Iterator[Finding]:
    """What differs between two files of a result; nothing where they are the same."""
    for path, when in ((before, "before"), (after, "after")):
        if not path.exists():
            yield Finding(f"not there {when}", counts=True)
            return
    if before.read_bytes() == after.read_bytes():
        return
    by_name: dict[str, Callable[[Path, Path], Iterator[Finding]]] = {
        ".npz": compare_arrays,
        ".gz": compare_label_maps,
        ".dcm": compare_dicom,
        ".csv": compare_tables,
        ".json": compare_json_files,
    }
    try:
        yield from by_name.get(before.suffix, compare_bytes)(before, after)
    except Exception as error:  # whatever a reader meets in a damaged file: the comparison goes on
        yield Finding(f"one of them cannot be read: {' '.join(str(error).split())[:200]}", counts=True)


def compare_arrays(before: Path, after: Path) -> Iterator[Finding]:
    """``instances.npz``: every array's type, shape and bytes; the header, which is JSON, by its keys."""
    with np.load(before, allow_pickle=False) as old, np.load(after, allow_pickle=False) as new:
        for name in sorted({*old.files, *new.files}):
            if name not in old.files or name not in new.files:
                yield Finding(f"array {name} only {'before' if name in old.files else 'after'}", counts=True)
            elif name == "header":
                documents = [json.loads(arrays[name].tobytes()) for arrays in (old, new)]
                yield from compare_documents(*documents, where="header")
            elif difference := array_difference(old[name], new[name]):
                yield Finding(f"array {name}: {difference}", counts=True)


def array_difference(old: NDArray[Any], new: NDArray[Any]) -> str:
    """How two arrays differ, bit for bit; empty where they do not."""
    if (old.dtype, old.shape) != (new.dtype, new.shape):
        return f"{old.dtype} {old.shape} before, {new.dtype} {new.shape} after"
    if old.tobytes() == new.tobytes():
        return ""
    other = int(np.count_nonzero(old != new))
    apart = np.abs(old.astype(np.float64) - new.astype(np.float64)).max()
    return f"{other} of {old.size} values differ, by {apart:.3g} at most"


def compare_label_maps(before: Path, after: Path) -> Iterator[Finding]:
    """``labels.nii.gz``: voxels and affine; the rest of the header is told."""
    old, new = nib.nifti1.load(before), nib.nifti1.load(after)
    if difference := array_difference(np.asanyarray(old.dataobj), np.asanyarray(new.dataobj)):
        yield Finding(f"voxels: {difference}", counts=True)
    if difference := array_difference(old.affine, new.affine):
        yield Finding(f"affine: {difference}", counts=True)
    for key in old.header:
        values = [image.header[key] for image in (old, new)]
        if values[0].tobytes() != values[1].tobytes():
            yield Finding(f"NIfTI header {key}: {values[0].tolist()} before, {values[1].tolist()} after", counts=False)


def compare_dicom(before: Path, after: Path) -> Iterator[Finding]:
    """SEG, RTSTRUCT and SR: their bytes; which elements they are is told."""
    old, new = (dict(elements(dcmread(path))) for path in (before, after))
    other = [path for path in {**old, **new} if old.get(path) != new.get(path)]
    if not other:
        yield Finding("the bytes differ, the elements do not", counts=True)
    for path in other:
        yield Finding(f"{path}: {short(old.get(path))} before, {short(new.get(path))} after", counts=True)


def elements(dataset: Dataset, where: str = "") -> Iterator[tuple[str, Any]]:
    """Every element of a dataset and of the sequences in it, file meta information included, by keywords."""
    for element in (*getattr(dataset, "file_meta", ()), *dataset):
        path = f"{where}{element.keyword or element.tag}"
        if element.VR == "SQ":
            for number, item in enumerate(element.value):
                yield from elements(item, f"{path}[{number}].")
        else:
            yield path, element.value


def compare_tables(before: Path, after: Path) -> Iterator[Finding]:
    """``instances.csv``: its bytes; the lines that differ are told."""
    old, new = (path.read_text(encoding="utf-8").splitlines() for path in (before, after))
    for number, (one, other) in enumerate(zip_longest(old, new), start=1):
        if one != other:
            yield Finding(f"line {number}: {one} before, {other} after", counts=True)
    if old == new:
        yield Finding("ends of lines differ", counts=True)


def compare_json_files(before: Path, after: Path) -> Iterator[Finding]:
    """``result.json``, ``coco.json``; of ``run.json``, whose values differ from run to run, the keys alone."""
    values_count = before.name != "run.json"
    yield from compare_documents(read_json(before), read_json(after), where=before.name, values=values_count)


def compare_documents(old: Any, new: Any, *, where: str, values: bool = True) -> Iterator[Finding]:
    """What differs between two JSON documents: keys, and with ``values`` also what stands there. None of it counts."""
    if isinstance(old, dict) and isinstance(new, dict):
        gone, come = [[key for key in a if key not in b] for a, b in ((old, new), (new, old))]
        for key in gone:
            heir = next((other for other in come if old[key] == new[other]), None)
            if heir is not None:
                come.remove(heir)
            text = f"only before: {key}" if heir is None else f"renamed: {key} -> {heir} (it has the same value)"
            yield Finding(f"{where}: {text}", counts=False)
        for key in come:
            yield Finding(f"{where}: only after: {key}", counts=False)
        for key in (key for key in old if key in new):
            yield from compare_documents(old[key], new[key], where=f"{where}.{key}", values=values)
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for number, (one, other) in enumerate(zip(old, new, strict=True)):
            yield from compare_documents(one, other, where=f"{where}[{number}]", values=values)
    elif values and old != new:
        yield Finding(f"{where}: {short(old)} before, {short(new)} after", counts=False)


def compare_bytes(before: Path, after: Path) -> Iterator[Finding]:
    """Pictures, meshes, reports: whether they are the same bytes."""
    sizes = [path.stat().st_size for path in (before, after)]
    yield Finding(f"the bytes differ ({sizes[0]} bytes before, {sizes[1]} after)", counts=False)


def short(value: Any) -> str:
    """A value in a few words."""
    text = repr(value)
    return text if len(text) <= 70 else f"{text[:60]}... ({len(text)} characters)"


def read_json(path: Path) -> Any:
    """The content of a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


def main() -> None:
    """Make results, or compare two sets of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    making = commands.add_parser("make", help="segment the ten inputs")
    making.add_argument("out", type=Path, help="a new folder")
    making.add_argument("--data", type=Path, default=os.environ.get("MEDMASKRCNN_DATA"), help="folder of real scans")
    comparing = commands.add_parser("compare", help="compare the results of two runs of make")
    comparing.add_argument("before", type=Path)
    comparing.add_argument("after", type=Path)
    comparing.add_argument("--strict", action="store_true", help="let every file but run.json count, byte for byte")
    given = parser.parse_args()
    if given.command == "compare":
        raise SystemExit(0 if compare(given.before, given.after, strict=given.strict) else 1)
    if given.data is None:
        making.error("give --data, or set MEDMASKRCNN_DATA")
    make(given.out.resolve(), given.data.resolve())


if __name__ == "__main__":
    main()
