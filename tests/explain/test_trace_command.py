"""``medmaskrcnn trace`` on the command line."""

from __future__ import annotations

import nibabel
import pytest
from typer.testing import CliRunner

from medmaskrcnn.cli.main import app


@pytest.fixture(scope="module")
def scan(tmp_path_factory, blobs):
    """The blobs as a NIfTI file."""
    path = tmp_path_factory.mktemp("scan") / "blobs.nii.gz"
    nibabel.save(nibabel.Nifti1Image(blobs.array[0], blobs.affine_vox_to_ras), path)
    return path


def run(*arguments):
    """The command in a wide terminal."""
    return CliRunner().invoke(app, ["trace", *map(str, arguments)], env={"COLUMNS": "250"})


def test_page_and_table(tiny_file, scan, tmp_path):
    done = run(scan, "--model", tiny_file(2), "-o", tmp_path / "t.html", "--slice", 7, "--device", "cpu")
    assert done.exit_code == 0, done.output
    assert "How tiny read slice 7" in done.output
    assert "Region proposal network" in done.output and "Region for the mask" in done.output
    assert "How tiny read slice 7" in (tmp_path / "t.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["--slice", "20"], 2, "slices 0 to 19, got slice 20"),
        (["--model", "nothing-like-it"], 1, "nothing-like-it"),
        (["-o", "no/such/folder/t.html"], 1, "no/such/folder"),
        (["--engine", "openvino"], 2, "--engine: openvino does not show the backbone's maps"),
        (["--precision", "int8"], 2, "--precision: precision int8 needs engine openvino"),
    ],
)
def test_failures_are_told(tiny_file, scan, tmp_path, monkeypatch, arguments, code, told):
    monkeypatch.chdir(tmp_path)
    given = arguments if "--model" in arguments else ["--model", tiny_file(2), *arguments]
    done = run(scan, *given)
    assert done.exit_code == code, done.output
    assert told in done.output
