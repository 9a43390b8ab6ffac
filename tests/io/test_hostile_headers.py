"""Headers of NRRD and MetaImage that were made to harm: each is refused, and neither this process nor time is lost."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from medmaskrcnn.errors import ReadError
from medmaskrcnn.io import itk_process
from medmaskrcnn.io.discover import find_scans
from medmaskrcnn.io.itk_process import read_with_itk
from medmaskrcnn.io.read import read_volume

NRRD = {
    "type": "short", "dimension": "3", "sizes": "4 3 2", "encoding": "raw", "endian": "little",
    "space": "left-posterior-superior", "space directions": "(1,0,0) (0,2,0) (0,0,3)", "space origin": "(0,0,0)",
}  # fmt: skip
META = {
    "ObjectType": "Image", "NDims": "3", "BinaryData": "True", "BinaryDataByteOrderMSB": "False",
    "ElementSpacing": "1 2 3", "DimSize": "4 3 2", "ElementType": "MET_SHORT",
}  # fmt: skip
VOXELS = np.arange(24, dtype="<i2").tobytes()


def nrrd(path: Path, *more: str, voxels: bytes = VOXELS, **changes: str | None) -> Path:
    fields = {**NRRD, **{name.replace("_", " "): value for name, value in changes.items()}}
    lines = ["NRRD0004", *(f"{n}: {v}" for n, v in fields.items() if v is not None), *more]
    path.write_bytes("\n".join(lines).encode() + b"\n" + (b"\n" + voxels if voxels else b""))
    return path


def meta(path: Path, *more: str, file: str = "LOCAL", voxels: bytes = VOXELS, **changes: str | None) -> Path:
    fields = {**META, **changes}
    lines = [*(f"{n} = {v}" for n, v in fields.items() if v is not None), *more, f"ElementDataFile = {file}"]
    path.write_bytes("\n".join(lines).encode() + b"\n" + voxels)
    return path


def refused(path: Path, match: str = "") -> None:
    began = time.monotonic()
    with pytest.raises(ReadError, match=match):
        read_volume(path)
    assert all(found.info.reason for found in find_scans(path.parent) if Path(found.info.path) == path)
    assert time.monotonic() - began < 5


def test_what_is_sound_is_read(tmp_path: Path):
    for path in (nrrd(tmp_path / "a.nrrd"), meta(tmp_path / "a.mha")):
        volume = read_volume(path)
        assert volume.array.shape == (1, 2, 3, 4) and volume.spacing_mm == (3, 2, 1)
        assert volume.array.ravel().tolist() == list(range(24))


@pytest.mark.parametrize("n", ["16", "20000", "-1", "0", "6", "3.5", "three", "", "99999999999999999999"])
def test_numbers_of_axes(tmp_path: Path, n: str):
    refused(nrrd(tmp_path / "a.nrrd", dimension=n))
    refused(meta(tmp_path / "a.mha", NDims=n))


@pytest.mark.parametrize(
    "changes",
    [
        {"sizes": "4 3"}, {"sizes": "4 3 2 1"}, {"sizes": "4 3 -2"}, {"sizes": "4 3 99999999999"}, {"sizes": "4 0 2"},
        {"spacings": "1 1", "space_directions": None}, {"space_directions": "(1,0,0)"}, {"kinds": "domain"},
        {"space_directions": "(1,0,0) (0,1,0) (0,0,1,0,0,0,0,0,0,0)"}, {"space_directions": "x y z"},
        {"type": "block"}, {"type": "int128"}, {"encoding": "zip"}, {"byte_skip": "-5"}, {"line_skip": "-1"},
        {"space_origin": "(" + "0," * 50 + "0)"}, {"measurement_frame": "(1,0) (0,1,0)"},
    ],
)  # fmt: skip
def test_numbers_of_nrrd(tmp_path: Path, changes: dict):
    refused(nrrd(tmp_path / "a.nrrd", **changes))


@pytest.mark.parametrize(
    "changes",
    [
        {"DimSize": "4 3"}, {"DimSize": "4 3 -2"}, {"DimSize": "4 3 99999999999"}, {"ElementSpacing": "1"},
        {"TransformMatrix": "1 0 0"}, {"Offset": "0"}, {"ElementNumberOfChannels": "-1"}, {"ElementType": "MET_OTHER"},
        {"ElementNumberOfChannels": "99999999"}, {"HeaderSize": "-7"}, {"CompressedDataSize": "99999999999"},
        {"ElementType": "MET_FLOAT_ARRAY"}, {"CenterOfRotation": "0 " * 500},
    ],
)  # fmt: skip
def test_numbers_of_meta(tmp_path: Path, changes: dict):
    refused(meta(tmp_path / "a.mha", **changes))


@pytest.mark.parametrize("line", ["sizes: 1 1 1", "SIZES: 1 1 1", "dimension: 1", "datafile: x", "sizes:=1 1 1"])
def test_a_field_given_twice(tmp_path: Path, line: str):
    more = (line, "data file: y") if line.startswith("datafile") else (line,)
    refused(nrrd(tmp_path / "a.nrrd", *more))


@pytest.mark.parametrize("line", ["DimSize = 1 1 1", "dimsize = 1 1 1", "NDims = 1", "DimSize : 1 1 1"])
def test_a_tag_given_twice(tmp_path: Path, line: str):
    refused(meta(tmp_path / "a.mha", line))


def test_axes_before_their_number(tmp_path: Path):
    path = meta(tmp_path / "a.mha")
    lines = path.read_bytes().split(b"\n", 2)
    path.write_bytes(b"DimSize = 4 3 2\n" + b"\n".join(lines).replace(b"DimSize = 4 3 2\n", b""))
    refused(path)


PATTERNS = [
    "%s%s%s%s%n 1 2 1", "x%n.raw 1 2 1", "%99999999d.raw 1 2 1", "%d%d.raw 1 2 1", "x%*d.raw 1 2 1", "%%.raw 1 2 1",
    "x%d.raw 1 999999999 1", "x%d.raw 1 2 0", "x%lld.raw 1 2 1", "%",
]  # fmt: skip


@pytest.mark.parametrize("pattern", PATTERNS)
def test_patterns_reach_no_printf(tmp_path: Path, pattern: str):
    refused(nrrd(tmp_path / "a.nhdr", f"data file: {pattern}", voxels=b""))
    refused(meta(tmp_path / "a.mhd", file=pattern, voxels=b""))


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder for headers, beside a secret."""
    (tmp_path / "secret.raw").write_bytes(VOXELS)
    (tmp_path / "scans").mkdir()
    (tmp_path / "scans" / "link.raw").symlink_to(tmp_path / "secret.raw")
    os.mkfifo(tmp_path / "scans" / "fifo.raw")
    (tmp_path / "scans" / "folder.raw").mkdir()
    return tmp_path / "scans"


NAMES = ["/etc/passwd", "../secret.raw", "./../secret.raw", "link.raw", "fifo.raw", "folder.raw", "/dev/zero", "a\0b",
         "scans/../../secret.raw", "..\\secret.raw", "absent.raw", "LISTING.raw", "."]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_voxels_come_from_plain_files_below_the_header(outside: Path, name: str):
    refused(nrrd(outside / "a.nhdr", f"data file: {name}", voxels=b""))
    refused(meta(outside / "a.mhd", file=name, voxels=b""))
    refused(nrrd(outside / "b.nhdr", "data file: LIST", name, name, voxels=b""))
    refused(meta(outside / "b.mhd", file="LIST", voxels=f"{name}\n{name}\n".encode()))


def test_an_absolute_secret_is_refused(outside: Path):
    secret = outside.parent / "secret.raw"
    refused(nrrd(outside / "a.nhdr", f"data file: {secret}", voxels=b""))
    refused(meta(outside / "a.mhd", file=str(secret), voxels=b""))


def test_files_of_slices_are_still_read(tmp_path: Path):
    for z in range(2):
        (tmp_path / f"s{z + 1:02d}.raw").write_bytes(VOXELS[24 * z : 24 * (z + 1)])
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "all.raw").write_bytes(VOXELS)
    headers = [
        nrrd(tmp_path / "a.nhdr", "data file: LIST", "s01.raw", "s02.raw", voxels=b""),
        nrrd(tmp_path / "b.nhdr", "data file: s%02d.raw 1 2 1", voxels=b""),
        nrrd(tmp_path / "c.nhdr", "data file: ./sub/all.raw", voxels=b""),
        meta(tmp_path / "d.mhd", file="LIST", voxels=b"s01.raw\ns02.raw\n"),
        meta(tmp_path / "e.mhd", file="s%02d.raw 1 2 1", voxels=b""),
        meta(tmp_path / "f.mhd", file="sub/all.raw", voxels=b""),
    ]
    for header in headers:
        assert read_volume(header).array.ravel().tolist() == list(range(24)), header


def test_files_of_slices_that_are_too_small_are_refused(tmp_path: Path):
    for z in range(2):
        (tmp_path / f"s{z + 1:02d}.raw").write_bytes(b"0")
    refused(nrrd(tmp_path / "a.nhdr", "data file: LIST", "s01.raw", "s02.raw", voxels=b""), "claims")
    refused(meta(tmp_path / "d.mhd", file="LIST", voxels=b"s01.raw\ns02.raw\n"), "claims")


def test_a_reader_that_dies_costs_its_file_alone(tmp_path: Path):
    good = tmp_path / "good.nrrd"
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((2, 3, 4), np.int16)), str(good))
    read_volume(good)
    bad = nrrd(tmp_path / "bad.nrrd", dimension="16")
    with pytest.raises((ReadError, RuntimeError)):  # past our own check, straight to ITK
        read_with_itk(bad, voxels=True)
    assert read_volume(good).array.shape == (1, 2, 3, 4)


def test_a_reader_that_hangs_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(itk_process, "_PATIENCE_S", 1.0)
    os.mkfifo(tmp_path / "fifo.raw")
    path = meta(tmp_path / "a.mhd", file="fifo.raw", voxels=b"")
    with pytest.raises(ReadError, match="the reader stopped"):
        read_with_itk(path, voxels=True)
