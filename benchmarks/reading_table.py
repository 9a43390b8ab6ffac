"""What is read of public DICOM files and of every form that other tools make of them, beside dcm2niix and SimpleITK.

    python benchmarks/reading_table.py --out /tmp/table.md

The files are those in pydicom's wheel, and each uncompressed one of them again in every transfer syntax that DCMTK
(``dcmcjpeg``, ``dcmcjpls``, ``dcmcrle``, ``dcmconv``) and gdcm (``gdcmconv``) write; those of them that are not
installed are left out, and told. Each file stands in a folder of its own. A reader's answer is its voxels: two answers
are equal if every voxel value of one is that of the other, up to the loss of lossy compression.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
import SimpleITK as sitk
from numpy.typing import NDArray
from pydicom.data import get_testdata_files
from pydicom.uid import UID

from medmaskrcnn.errors import MedMaskRCNNError
from medmaskrcnn.io.read import read_volume

RECODERS = {
    "JPEG baseline": ("dcmcjpeg", "+eb"),
    "JPEG extended": ("dcmcjpeg", "+ee"),
    "JPEG lossless": ("dcmcjpeg", "+el"),
    "JPEG lossless SV1": ("dcmcjpeg", "+e1"),
    "JPEG-LS": ("dcmcjpls", "+el"),
    "JPEG-LS near": ("dcmcjpls", "+en"),
    "RLE": ("dcmcrle",),
    "implicit": ("dcmconv", "+ti"),
    "big endian": ("dcmconv", "+tb"),
    "deflated": ("dcmconv", "+td"),
    "JPEG 2000": ("gdcmconv", "--j2k"),
    "JPEG 2000 of gdcm, lossless JPEG": ("gdcmconv", "--jpeg"),
    "RLE of gdcm": ("gdcmconv", "--rle"),
}
"""Form, and the program that writes it with its options."""

LOSSY = ("JPEG baseline", "JPEG extended", "JPEG-LS near")
LOSSY_SHARE = 0.06
"""Largest difference of lossy forms, as a share of the range of values."""

SECONDS = 60


@dataclass(frozen=True)
class Answer:
    """What a reader says of a file.

    Attributes:
        values: Voxels with axes of length 1 removed; ``None`` if it was refused.
        reason: Why it was refused.
    """

    values: NDArray[Any] | None
    reason: str = ""


def ours(path: Path) -> Answer:
    """medmaskrcnn's answer."""
    try:
        array = read_volume(path).array
    except MedMaskRCNNError as error:
        return Answer(None, error.reason.replace(str(path), path.name))
    return Answer(np.squeeze(np.moveaxis(array, 0, -1)))


def simpleitk(path: Path) -> Answer:
    """SimpleITK's answer."""
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        return Answer(np.squeeze(sitk.GetArrayFromImage(reader.Execute())))
    except RuntimeError as error:
        return Answer(None, str(error).strip().splitlines()[-1][:120])


def dcm2niix(path: Path) -> Answer:
    """dcm2niix's answer: its first image, with rows and columns turned back as stored."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["dcm2niix", "-b", "n", "-z", "n", "-y", "n", "-f", "x", "-o", folder, str(path.parent)]
        try:
            said = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False).stdout
        except subprocess.TimeoutExpired:
            return Answer(None, "no answer in time")
        files = sorted(Path(folder).glob("*.nii"))
        if not files:
            return Answer(None, (said.strip().splitlines() or ["no file"])[-1][:120])
        image = nib.load(files[0])
        array = np.asanyarray(image.dataobj)
    if array.dtype.names:
        array = np.stack([array[name] for name in array.dtype.names], axis=-1)
        return Answer(np.squeeze(np.moveaxis(array, (0, 1, 2), (2, 1, 0))[:, ::-1]))
    return Answer(np.squeeze(array.T[..., ::-1, :]))


def same(one: NDArray[Any], other: NDArray[Any], *, lossy: bool) -> bool:
    """Whether two answers hold the same voxels; slices may be in either order, rows in either direction."""
    if one.shape != other.shape:
        return False
    a, b = one.astype(np.float64), other.astype(np.float64)
    allowed = LOSSY_SHARE * float(np.ptp(a) or 1) if lossy else 1e-4 * float(np.abs(a).max() or 1)
    slices_or_rows, rows = 0, max(b.ndim - 2, 0)
    turns = ((), (slices_or_rows,), (rows,), tuple({slices_or_rows, rows}))
    return any(bool(np.abs(a - np.flip(b, axes)).max() <= allowed) for axes in turns)


def verdict(mine: Answer, others: dict[str, Answer], *, lossy: bool) -> str:
    """Our answer in a word, judged by the others."""
    read = {name: answer for name, answer in others.items() if answer.values is not None}
    if mine.values is None:
        return f"refused: {mine.reason}"
    if not read:
        return "read by us alone"
    agree = [name for name, answer in read.items() if same(mine.values, answer.values, lossy=lossy)]
    return f"equal to {', '.join(agree)}" if agree else f"WRONG? differs from {', '.join(read)}"


def inputs(folder: Path) -> list[tuple[str, str, Path]]:
    """Name, form and path of every input, each in a folder of its own."""
    found = []
    missing = sorted({command[0] for command in RECODERS.values() if shutil.which(command[0]) is None})
    if missing:
        print(f"left out, because it is not installed: {', '.join(missing)}")
    for file in sorted(map(Path, get_testdata_files("*.dcm"))):
        try:
            header = pydicom.dcmread(file, stop_before_pixels=True)
        except Exception:  # no DICOM, on purpose
            continue
        if not header.get("Rows"):
            continue
        target = folder / file.stem / "as it is" / file.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, target)
        found.append((file.stem, "as it is", target))
        if UID(str(header.file_meta.get("TransferSyntaxUID", ""))).is_compressed:
            continue
        for form, (program, *options) in RECODERS.items():
            made = folder / file.stem / form / file.name
            made.parent.mkdir(parents=True, exist_ok=True)
            if program in missing:
                continue
            command = [program, *options, str(file), str(made)]
            done = subprocess.run(command, capture_output=True, check=False, timeout=SECONDS)
            if done.returncode == 0 and made.is_file():
                found.append((file.stem, form, made))
    return found


def main() -> None:
    """Write the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("reading-table.md"), help="the table, in Markdown")
    parser.add_argument("--most", type=int, default=0, help="stop after so many files")
    arguments = parser.parse_args()
    rows, counts = [], Counter[str]()
    with tempfile.TemporaryDirectory() as folder:
        many = inputs(Path(folder))
        many = many[: arguments.most] if arguments.most else many
        for number, (name, form, path) in enumerate(many, start=1):
            print(f"\r{number} of {len(many)}", end="", flush=True)
            mine, others = ours(path), {"dcm2niix": dcm2niix(path), "SimpleITK": simpleitk(path)}
            said = verdict(mine, others, lossy=form in LOSSY)
            counts[said.split(":")[0].split(" ")[0]] += 1
            cells = ["read" if answer.values is not None else "refused" for answer in others.values()]
            rows.append(f"| {name} | {form} | {said.replace('|', '/')} | {' | '.join(cells)} |")
    head = "| file | form | medmaskrcnn | dcm2niix | SimpleITK |\n|---|---|---|---|---|"
    total = ", ".join(f"{n} {what}" for what, n in counts.most_common())
    arguments.out.write_text(f"{len(rows)} files: {total}.\n\n{head}\n" + "\n".join(rows) + "\n", encoding="utf-8")
    print(f"\n{total}; see {arguments.out}")


if __name__ == "__main__":
    main()
