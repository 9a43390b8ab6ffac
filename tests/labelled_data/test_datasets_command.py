"""``python -m medmaskrcnn_datasets``: what it prints, what it leaves, what it says when it cannot."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image
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


@pytest.fixture
def cells(tmp_path):
    """Ten pictures, each with a nucleus of value 1 in a cell of value 2, the last one with a spot of value 2 apart."""
    for number in range(10):
        mask = np.zeros((8, 9), np.uint8)
        mask[1:6, 1:6] = 2
        mask[2:4, 2:4] = 1
        mask[7, 8] = 2 if number == 9 else 0
        for kind, array in (("images", np.full_like(mask, number)), ("masks", mask)):
            (tmp_path / "cells" / kind).mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(tmp_path / "cells" / kind / f"w{number // 2}_{number}.png")
    return tmp_path / "cells"


def made(*arguments):
    """The manifest that a command writes."""
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    return json.loads(Path(result.stdout.split()[-1]).read_text())


def test_instances_with_patients_and_shares(cells, tmp_path):
    options = ["--class-name", "cell", "--licence", "CC0-1.0", "--patient", r"^(w\d)_", "--train", "w0"]
    manifest = made("instances", cells, "-o", tmp_path / "out", *options, "--test-share", 0.2, "--val-share", 0.2)
    assert (manifest["class_names"], manifest["licence"]) == (["cell"], "CC0-1.0")
    splits = {(c["patient"], c["split"]) for c in manifest["cases"]}
    assert len(splits) == 5 and ("w0", "train") in splits
    assert sorted(split for _, split in splits) == ["test", "train", "train", "train", "val"]


def test_a_file_of_splits_excludes_other_rules(cells, tmp_path):
    (tmp_path / "split.json").write_text('{"test": ["w1_3"]}')
    arguments = ["instances", cells, "-o", tmp_path / "out", "--split", tmp_path / "split.json"]
    assert [c["id"] for c in made(*arguments)["cases"] if c["split"] == "test"] == ["w1_3"]
    result = run(*arguments, "--folds", 3)
    assert result.exit_code == 1 and "either --split or" in result.output


def test_semantic_with_a_rule_for_each_class(cells, tmp_path):
    options = [
        "--classes",
        "1=nucleus,2=cell",
        "--rule",
        "one",
        "--class-rule",
        "cell=components",
        "--within",
        "nucleus=cell",
    ]
    manifest = made("semantic", cells, "-o", tmp_path / "out", *options, "--least-voxels", 2, "--folds", 5, "--fold", 1)
    assert [[i["class"] for i in c["instances"]] for c in manifest["cases"]] == [["nucleus", "cell"]] * 10
    assert sorted(c["fold"] for c in manifest["cases"]) == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert {c["split"] for c in manifest["cases"] if c["fold"] == 1} == {"val"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["semantic", "--classes", "liver"], "--classes wants NAME=NAME"),
        (["semantic", "--classes", "liver=1"], "--classes wants VALUE=NAME"),
        (
            ["semantic", "--classes", "1=a", "--class-rule", "a=each"],
            "components, whole, instances, value, one, got 'each'",
        ),
        (["semantic", "--classes", "1=a", "--within", "b=a"], "rules speak of classes ['b']"),
        (["instances", "--patient", "("], "--patient must be a regular expression"),
        (["instances", "--patient", "x+"], "matches nothing in the case 'w0_0'"),
        (["instances", "--test-share", 0.5, "--val-share", 0.5], "leave a rest for training"),
        (["coco"], "cannot read"),
        (["nnunet"], "raw layout?"),
        (["dicom"], "holds no labelled series"),
    ],
)
def test_options_that_cannot_be_followed(cells, tmp_path, arguments, said):
    result = run(arguments[0], cells, "-o", tmp_path / "out", *arguments[1:])
    assert result.exit_code == 1 and said in result.output and "Traceback" not in result.output


def test_auto_tells_what_it_assumes(cells, tmp_path):
    result = run("auto", cells, "-o", tmp_path / "out")
    assert result.exit_code == 0 and "instance masks" in result.stderr and "called 'object'" in result.stderr


@pytest.mark.parametrize(
    "command", ["phantoms", "study", "msd", "nnunet", "coco", "instances", "semantic", "dicom", "auto"]
)
def test_help_shows_an_example(command):
    result = run(command, "--help")
    assert result.exit_code == 0
    assert f"python -m medmaskrcnn_datasets {command}" in " ".join(result.output.split())
