"""What can go wrong from the command line: exit code, one message that names the file, nothing left in OUT."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest

from medmaskrcnn.batch_runs.reasons import explain
from medmaskrcnn.errors import OutputError, ReadError
from medmaskrcnn.inference import pipeline


@pytest.fixture
def refused(run, tiny_model, tmp_path):
    """``refused(source)``: segments it, expects exit code 1, no output folder and the file's name; the message."""

    def check(source: Path, *, model: Path = tiny_model, code: int = 1, named: str | None = None) -> str:
        out = tmp_path / "out"
        ran = run("segment", source, "-o", out, "--model", model)
        assert ran.code == code, ran.err
        assert (named or source.name) in ran.err
        assert ran.out == ""
        assert not out.exists()
        return ran.err

    return check


def nifti_with_affine(path: Path, affine: np.ndarray) -> Path:
    """A NIfTI whose sform says ``affine`` and whose other geometry says nothing."""
    image = nib.Nifti1Image(np.zeros((8, 8, 4), np.int16), np.eye(4))
    content = bytearray(image.to_bytes())
    header = image.header.copy()
    header["sform_code"], header["qform_code"] = 1, 0
    for row, name in enumerate(("srow_x", "srow_y", "srow_z")):
        header[name] = affine[row]
    content[: len(header.binaryblock)] = header.binaryblock
    path.write_bytes(bytes(content))
    return path


def test_missing_path(refused, tmp_path):
    assert "there is no file or folder" in refused(tmp_path / "nowhere")


def test_empty_folder(refused, tmp_path):
    (tmp_path / "empty").mkdir()
    assert "empty" in refused(tmp_path / "empty")


def test_folder_without_images(refused, tmp_path):
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "report.txt").write_text("no image")
    assert "report.txt" in refused(tmp_path / "letters")


def test_text_file(refused, tmp_path):
    (tmp_path / "report.txt").write_text("no image")
    refused(tmp_path / "report.txt")


@pytest.mark.parametrize("share", [0.02, 0.3, 0.9])
def test_truncated_dicom(refused, ct_series, tmp_path, share):
    content = next(iter(sorted(ct_series.iterdir()))).read_bytes()
    (tmp_path / "slice.dcm").write_bytes(content[: int(len(content) * share)])
    refused(tmp_path / "slice.dcm")


@pytest.mark.parametrize("share", [0.01, 0.5, 0.95])
@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_truncated_nifti(refused, write_scan, tmp_path, share, ending):
    path = write_scan(tmp_path / f"cut{ending}")
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    refused(path)


@pytest.mark.parametrize("value", [0.0, np.nan])
def test_nifti_with_an_affine_of_zero_or_nan(refused, tmp_path, value):
    path = nifti_with_affine(tmp_path / "nowhere.nii", np.full((3, 4), value))
    assert "affine" in refused(path)


def test_header_that_claims_a_million_million_voxels(refused, write_scan, tmp_path):
    path = write_scan(tmp_path / "huge.nii")
    content = bytearray(path.read_bytes())
    content[42:48] = np.array([10000, 10000, 10000], "<i2").tobytes()  # dim[1..3] of the NIfTI-1 header
    path.write_bytes(bytes(content))
    assert "10000" in refused(path)


def test_4d_series_where_the_model_wants_one_volume(refused, tmp_path):
    nib.save(nib.Nifti1Image(np.zeros((40, 40, 4, 3), np.int16), np.eye(4)), tmp_path / "series.nii.gz")
    assert "3" in refused(tmp_path / "series.nii.gz")


def test_rtstruct_given_as_image(refused, ct_series, tmp_path):
    dataset = pydicom.dcmread(next(iter(sorted(ct_series.iterdir()))))
    for name in ("PixelData", "Rows", "Columns", "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"):
        delattr(dataset, name)
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.481.3"
    dataset.Modality = "RTSTRUCT"
    dataset.StructureSetLabel = "organs"
    dataset.save_as(tmp_path / "contours.dcm")
    assert "RTSTRUCT" in refused(tmp_path / "contours.dcm")


def test_unknown_model_is_wrong_use(refused, scan):
    refused(scan, model=Path("liver-of-everybody"), code=2, named="liver-of-everybody")


@pytest.mark.parametrize("damage", ["text", "empty", "cut header", "cut weights", "bits"])
def test_damaged_model(refused, scan, tiny_model, tmp_path, damage):
    path, content = tmp_path / "broken.safetensors", bytearray(tiny_model.read_bytes())
    if damage == "bits":
        content[-4000:] = b"\xff" * 4000  # float16 of ones alone is NaN
    damaged = {
        "text": b"these are no weights",
        "empty": b"",
        "cut header": content[:200],
        "cut weights": content[:-1000],
        "bits": content,
    }
    path.write_bytes(bytes(damaged[damage]))
    refused(scan, model=path, named=path.name)


def test_output_folder_is_a_file(run, scan, tiny_model, tmp_path):
    out = tmp_path / "out"
    out.write_text("mine")
    ran = run("segment", scan, "-o", out, "--model", tiny_model)
    assert ran.code == 1
    assert str(out) in ran.err
    assert out.read_text() == "mine"


def test_output_folder_below_a_file(run, scan, tiny_model, tmp_path):
    (tmp_path / "file").write_text("mine")
    out = tmp_path / "file" / "deep" / "out"
    ran = run("segment", scan, "-o", out, "--model", tiny_model)
    assert ran.code == 1
    assert str(out) in ran.err


@pytest.mark.skipif(sys.platform != "linux", reason="/proc, where nobody may write, is Linux's; not Windows, not macOS")
def test_output_folder_without_permission(run, scan, tiny_model):
    ran = run("segment", scan, "-o", "/proc/out", "--model", tiny_model)
    assert ran.code == 1
    assert "/proc" in ran.err


def test_the_output_folder_is_tried_before_the_model_is_loaded(run, scan, tiny_model, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("mine")
    monkeypatch.setattr("medmaskrcnn.hub.loaded_model.load_model", lambda *a, **k: pytest.fail("work was done"))
    assert run("segment", scan, "-o", tmp_path / "file", "--model", tiny_model).code == 1


@pytest.mark.skipif(sys.platform == "win32", reason="a limit on the size of files is POSIX's, not Windows'")
def test_a_file_that_cannot_be_written_whole_leaves_nothing(refused, scan, tmp_path):
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (600, hard))  # bytes; the system refuses what comes after them
    try:
        message = refused(scan, named=str(tmp_path / "out"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "Traceback" not in message


def test_full_disk_leaves_nothing(refused, scan, tmp_path, monkeypatch):
    real = os.replace

    def full(source, target, **options):
        if str(target).startswith(str(tmp_path / "out")):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target))
        return real(source, target, **options)

    monkeypatch.setattr(os, "replace", full)
    message = refused(scan, named=str(tmp_path / "out"))
    assert "full" in message or "space" in message


def test_an_unexpected_error_is_told_and_the_next_case_goes_on(
    run, scan, write_scan, tiny_model, tmp_path, monkeypatch
):
    other, real = write_scan(tmp_path / "in" / "other.nii.gz"), pipeline.segment

    def segment(volume, *arguments, **options):
        if "other" in volume.provenance.files[0]:
            raise ZeroDivisionError("nought")
        return real(volume, *arguments, **options)

    monkeypatch.setattr(pipeline, "segment", segment)
    ran = run("segment", other, scan, "-o", tmp_path / "out", "--model", tiny_model)
    assert ran.code == 1
    assert "internal error (ZeroDivisionError: nought)" in ran.err
    assert "--log" in ran.err
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["scan"]


def test_control_characters_in_a_file_name_do_not_reach_the_terminal(run, tmp_path):
    ran = run("info", tmp_path / "evil\x1b[2Jname")
    assert ran.code == 1
    assert "\x1b" not in ran.err
    assert "evil" in ran.err


def test_brackets_in_a_file_name_are_kept(run, tmp_path):
    assert "scan[bold]x[/red].nii" in run("info", tmp_path / "scan[bold]x[/red].nii").err


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (ReadError("/a/b.nii is cut short"), "/a/b.nii is cut short"),
        (OutputError("disk is full"), "/a/b.nii: disk is full"),
        (OSError(errno.EIO, "Input/output error", "/c"), "/a/b.nii: Input/output error (/c)"),
        (MemoryError(), "/a/b.nii: not enough memory for this scan"),
    ],
)
def test_explain_by_pencil(error, sentence):
    assert explain(error, "/a/b.nii") == sentence


def test_explain_says_what_to_do_about_a_full_disk():
    assert "make room" in explain(OSError(errno.ENOSPC, "No space left on device"), "/a")
