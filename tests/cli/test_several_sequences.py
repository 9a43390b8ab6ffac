"""A model of two sequences on files by nnU-Net's names: command line, batch and Python give the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from two_sequences import AFFINE, NAMES, save_model_of_two, write_cases

import medmaskrcnn
from medmaskrcnn.data.check import check_manifest
from medmaskrcnn.data.manifest import read_manifest
from medmaskrcnn.errors import ReadError, Remedy, UnsuitableScanError
from medmaskrcnn.hub.model_file import read_model_settings
from medmaskrcnn.structures.case_result import CaseResult
from medmaskrcnn.training.planner.planner import make_plan
from medmaskrcnn_datasets import nnunet_dataset

Run = Callable[..., Any]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_cases(tmp_path_factory.mktemp("Dataset001_Two")) / "imagesTr"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model_of_two(tmp_path_factory.mktemp("model") / "two.safetensors")


@pytest.fixture(scope="module")
def expected(data: Path, model: Path) -> CaseResult:
    return medmaskrcnn.segment([data / "a_0000.nii.gz", data / "a_0001.nii.gz"], model)


def assert_same(found: CaseResult, expected: CaseResult) -> None:
    assert len(found.candidates) and np.array_equal(found.candidates.boxes, expected.candidates.boxes)
    assert np.array_equal(found.candidates.scores, expected.candidates.scores)
    assert np.array_equal(found.label_map(), expected.label_map())


def test_python_takes_a_case_in_each_form(data: Path, model: Path, expected: CaseResult, tmp_path: Path) -> None:
    loaded = medmaskrcnn.load_model(model)
    first, second = data / "a_0000.nii.gz", data / "a_0001.nii.gz"
    arrays = [np.asanyarray(nib.load(file).dataobj) for file in (first, second)]
    whole = tmp_path / "whole.nii.gz"
    nib.save(nib.Nifti1Image(np.stack(arrays, axis=-1), AFFINE), whole)
    for source in (
        {"FLAIR": second, "T1": first},
        {"flair": nib.load(second), "t1": str(first)},
        data / "a",
        first,
        whole,
        medmaskrcnn.as_volume(nib.load(whole)),
    ):
        assert_same(medmaskrcnn.segment(source, loaded), expected)
    assert [one["name"] for one in expected.record.source["channels"]] == list(NAMES)
    swapped = medmaskrcnn.segment([second, first], loaded)
    assert not np.array_equal(swapped.candidates.scores, expected.candidates.scores)


def test_wrong_sequences_are_told(data: Path, model: Path) -> None:
    loaded = medmaskrcnn.load_model(model)
    first, second = data / "a_0000.nii.gz", data / "a_0001.nii.gz"
    for source in ({"T1": first, "T2": second}, {"T1": first}, [first], [first, second, second]):
        with pytest.raises(UnsuitableScanError, match=r"wants 2 \(T1, FLAIR\)"):
            medmaskrcnn.segment(source, loaded)
    with pytest.raises(UnsuitableScanError, match=r"holds 1 volumes.*wants 2 \(T1, FLAIR\)") as raised:
        medmaskrcnn.segment(medmaskrcnn.read_volume(first), loaded)
    assert raised.value.remedy is Remedy.GIVE_SEQUENCES
    with pytest.raises(ReadError, match="no scan that fit"):
        medmaskrcnn.segment(data, loaded, channels={"T1": "a_0000*", "FLAIR": "*flair*"})
    with pytest.raises(ReadError, match="one scan was chosen for several sequences"):
        medmaskrcnn.segment(data, loaded, channels={"T1": "a_0000*", "FLAIR": "a_0000*"})


def test_channels_choose_scans_of_a_folder(data: Path, model: Path, expected: CaseResult) -> None:
    found = medmaskrcnn.segment(data, model, channels={"FLAIR": "A_0001*", "T1": "a_0000*"})
    assert_same(found, expected)


def test_segment_takes_names_files_and_channels(
    data: Path, model: Path, expected: CaseResult, tmp_path: Path, run: Run
) -> None:
    first, second = data / "a_0000.nii.gz", data / "a_0001.nii.gz"
    given = {
        "files": [second, first],
        "channels": ["--channels", f"T1={first}", f"FLAIR={second}"],
        "repeated": ["--channels", f"FLAIR={second}", "--channels", f"T1={first}"],
        "of a folder": [data, "--channels", "T1=a_0000*", "FLAIR=a_0001*"],
    }
    for name, arguments in given.items():
        done = run("segment", *arguments, "-o", tmp_path / name, "--model", model, "-q", "--format", "json")
        assert done.code == 0, done.err
        assert_same(medmaskrcnn.load_case(tmp_path / name), expected)
    done = run("segment", data, "-o", tmp_path / "all", "--model", model, "--format", "json")
    assert done.code == 0 and "2 of 2 cases" in done.out
    assert_same(medmaskrcnn.load_case(tmp_path / "all" / "a"), expected)


def test_segment_tells_what_is_wrong(data: Path, model: Path, tmp_path: Path, run: Run) -> None:
    first, second = data / "a_0000.nii.gz", data / "a_0001.nii.gz"
    for arguments, words in (
        ([first], "_0001"),
        (["--channels", f"T1={first}", f"T2={second}"], "wants 2 (T1, FLAIR)"),
        (["--channels", f"T1={first}", "FLAIR=none.nii.gz"], "none.nii.gz"),
        (["--channels", f"T1={first}", f"T1={second}"], "T1"),
        (["--channels", "T1"], "NAME=VALUE"),
        ([], "scan"),
    ):
        done = run("segment", *arguments, "-o", tmp_path / "out", "--model", model, "-q")
        assert done.code != 0 and words in " ".join((done.out + done.err).split()), (arguments, done.err)


@pytest.mark.slow  # two batches, each with a worker of its own
def test_batch_makes_cases_of_sequences(data: Path, model: Path, expected: CaseResult, tmp_path: Path) -> None:
    (lonely := tmp_path / "more").mkdir()
    (lonely / "c_0000.nii.gz").write_bytes((data / "a_0000.nii.gz").read_bytes())
    cases = list(medmaskrcnn.batch([data, lonely], tmp_path / "out", model=model, plain_names=True, formats=()))
    assert [case.status for case in cases] == ["done", "done"]
    results = {case.folder.name: case.result() for case in cases}
    assert_same(results["a"], expected)
    by_pattern = list(
        medmaskrcnn.batch(
            data, tmp_path / "patterns", model=model, channels={"FLAIR": "a*_0001*", "T1": "a*_0000*"}, formats=()
        )
    )
    assert [case.status for case in by_pattern] == ["done"]
    assert_same(by_pattern[0].result(), expected)


@pytest.mark.slow  # trains
def test_trained_from_nnunet_files_and_run_on_them(data: Path, tmp_path: Path, run: Run) -> None:
    manifest = read_manifest(nnunet_dataset(data.parent, tmp_path / "manifest"))
    assert manifest.channel_names == NAMES
    plan, _ = make_plan(manifest, check_manifest(manifest, workers=0).case_fingerprints, memory_gb=4, dims=2)
    assert plan.preprocess.channel_names == NAMES
    plan = plan.model_copy(update={"train": plan.train.model_copy(update={"steps": 2, "batch": 1})})
    model = medmaskrcnn.train(manifest, plan, tmp_path / "run", check=False, device="cpu", workers=0).model
    assert read_model_settings(model).preprocess.channel_names == NAMES
    first, second = data / "a_0000.nii.gz", data / "a_0001.nii.gz"
    expected = medmaskrcnn.segment({"FLAIR": second, "T1": first}, model, score=0.0)
    done = run("segment", data, "-o", tmp_path / "cli", "--model", model, "-q", "--score", "0", "--format", "json")
    assert done.code == 0, done.err
    (case, _) = medmaskrcnn.batch(data, tmp_path / "batch", model=model, plain_names=True, score=0.0, formats=())
    for found in (medmaskrcnn.load_case(tmp_path / "cli" / "a"), case.result()):
        assert np.array_equal(found.candidates.boxes, expected.candidates.boxes)
        assert np.array_equal(found.candidates.scores, expected.candidates.scores)
