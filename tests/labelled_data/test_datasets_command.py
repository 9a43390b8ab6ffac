"""``python -m medmaskrcnn_datasets``: what it prints, what it leaves, what it says when it cannot."""

from __future__ import annotations

import json

import pydicom
import pytest
from typer.testing import CliRunner

from medmaskrcnn_datasets.command import app


def run(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments])


def test_phantoms(tmp_path):
    result = run("phantoms", "--count", 3, "--first-seed", 5, "--val", 1, "--workers", 1, "--max-shape", "12,32,32",
                 "-o", tmp_path / "set")  # fmt: skip
    assert result.exit_code == 0, result.output
    cases = json.loads((tmp_path / "set" / "manifest.json").read_text())["cases"]
    assert [(c["id"], c["split"]) for c in cases] == [
        ("phantom_0005", "train"), ("phantom_0006", "train"), ("phantom_0007", "val")
    ]  # fmt: skip
    assert "manifest.json" in result.stdout


def test_study(tmp_path):
    result = run("study", "--seed", 3, "--slices", 6, "--matrix", 32, "-o", tmp_path / "study")
    assert result.exit_code == 0, result.output
    files = sorted((tmp_path / "study").iterdir())
    assert len(files) == 6
    assert str(pydicom.dcmread(files[0]).PatientName) == "PHANTOM^SEED0003"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["phantoms", "--max-shape", "12,32"], "three whole numbers"),
        (["phantoms", "--max-shape", "1,32,32"], "at least 2"),
        (["phantoms", "--count", "4", "--val", "3", "--test", "1"], "training"),
        (["phantoms", "--count", "0"], "count"),
    ],
)
def test_wrong_use_is_2(tmp_path, arguments, said):
    result = run(*arguments, "-o", tmp_path / "set")
    assert result.exit_code == 2
    assert said in result.output
    assert not (tmp_path / "set").exists()


def test_what_cannot_be_read_is_1(tmp_path):
    result = run("msd", tmp_path, "-o", tmp_path / "out")
    assert result.exit_code == 1
    said = result.output.replace("\n", "")  # a long path is wrapped
    assert "dataset.json" in said and "Traceback" not in said


def test_real_data_set(medmaskrcnn_data, tmp_path):
    source = medmaskrcnn_data / "AbdomenMR"
    result = run("msd", source, "-o", tmp_path, "--folds", 7, "--fold", 2, "--patient", r"chaos_\d+")
    assert result.exit_code == 0, result.output
    cases = json.loads((tmp_path / "manifest.json").read_text())["cases"]
    assert sum(c["split"] == "val" for c in cases) == 2
    unknown = run("msd", source, "-o", tmp_path / "no", "--test", "chaos_99")
    assert unknown.exit_code == 1 and "chaos_99" in unknown.output


@pytest.mark.parametrize("command", ["phantoms", "study", "msd"])
def test_help_shows_an_example(command):
    result = run(command, "--help")
    assert result.exit_code == 0
    assert f"python -m medmaskrcnn_datasets {command}" in " ".join(result.output.split())
