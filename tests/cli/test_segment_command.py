"""``medmaskrcnn segment`` where all goes well, and where it is used wrongly."""

from __future__ import annotations

import json
import os
import sys

import nibabel as nib
import numpy as np
import pytest

from medmaskrcnn.structures.store import load_case

SHAPE = (4, 40, 48)
"""Of the scan that the fixtures write, D, H, W."""

ALL_FILES = {"instances.npz", "run.json", "labels.nii.gz", "instances.csv", "result.json", "preview.png"}


def names(folder):
    return {path.name for path in folder.iterdir()}


def test_one_input_goes_into_the_folder_itself(run, scan, tiny_model, tmp_path):
    out = tmp_path / "deep" / "out"
    ran = run("segment", scan, "-o", out, "--model", tiny_model)
    assert ran.code == 0, ran.err
    assert names(out) == ALL_FILES
    result = load_case(out / "instances.npz")
    assert len(result.instances) > 0
    rows = [line.split() for line in ran.out.splitlines()]
    for i, label in enumerate(result.instances.labels, start=1):
        assert any(row[:2] == [str(i), result.instances.class_names[label].split()[0]] for row in rows)
    assert str(out) in ran.out
    labels = nib.load(out / "labels.nii.gz")
    assert labels.shape == SHAPE[::-1]
    np.testing.assert_allclose(labels.affine, nib.load(scan).affine)


def test_mirrored_images_are_averaged_but_never_across_sides(run, scan, tiny_model, tmp_path):
    """The model's classes are the liver and a left kidney."""
    ran = run("segment", scan, "-o", tmp_path / "out", "--model", tiny_model, "--flips", "H", "--quiet")
    assert ran.code == 0, ran.err
    assert load_case(tmp_path / "out" / "instances.npz").record.settings["views"] == 2
    for flips, told in (("H,W", "left kidney"), ("D", "no axis D"), ("X", "choose from")):
        ran = run("segment", scan, "-o", tmp_path / "other", "--model", tiny_model, "--flips", flips)
        assert ran.code == 2 and "--flips" in ran.err and told in " ".join(ran.err.split()), ran.err


def test_several_inputs_get_a_folder_each(run, tiny_model, tmp_path, write_scan):
    first, second = write_scan(tmp_path / "a" / "scan.nii.gz"), write_scan(tmp_path / "b" / "scan.nii.gz")
    ran = run("segment", first, second, "-o", tmp_path / "out", "--model", tiny_model)
    assert ran.code == 0, ran.err
    assert names(tmp_path / "out") == {"a_scan", "b_scan"}
    assert names(tmp_path / "out" / "a_scan") == ALL_FILES
    assert "2 of 2 cases" in ran.out


def test_an_input_that_fails_does_not_stop_the_others(run, scan, tiny_model, tmp_path):
    missing = tmp_path / "missing.nii.gz"
    ran = run("segment", missing, scan, "-o", tmp_path / "out", "--model", tiny_model)
    assert ran.code == 1
    assert "missing.nii.gz" in ran.err
    assert names(tmp_path / "out") == {"scan"}
    assert "1 of 2 cases" in ran.out


def test_json_is_all_that_stdout_gets(run, scan, tiny_model, tmp_path):
    ran = run("segment", scan, "-o", tmp_path / "out", "--model", tiny_model, "--json", "--format", "csv")
    assert ran.code == 0
    document = json.loads(ran.out)
    assert document["model"]["name"] == "tiny"
    assert len(document["instances"]) == len(load_case(tmp_path / "out" / "instances.npz").instances)
    assert names(tmp_path / "out") == {"instances.npz", "run.json", "instances.csv"}


def test_json_equals_the_file(run, scan, tiny_model, tmp_path):
    ran = run("segment", scan, "-o", tmp_path / "out", "--model", tiny_model, "--json")
    assert ran.out == (tmp_path / "out" / "result.json").read_text()


def test_json_of_several_cases_tells_of_each(run, scan, tiny_model, tmp_path):
    ran = run("segment", scan, tmp_path / "missing", "-o", tmp_path / "out", "--model", tiny_model, "--json")
    assert ran.code == 1
    good, bad = json.loads(ran.out)
    assert good["case"] == "scan"
    assert good["result"]["instances"]
    assert "missing" in bad["error"]
    assert "result" not in bad


def test_json_of_a_failed_case_is_empty(run, tiny_model, tmp_path):
    ran = run("segment", tmp_path / "missing", "-o", tmp_path / "out", "--model", tiny_model, "--json")
    assert (ran.code, ran.out) == (1, "")


def test_score_and_classes_choose_what_is_reported(run, scan, tiny_model, tmp_path):
    run("segment", scan, "-o", tmp_path / "all", "--model", tiny_model)
    everything = load_case(tmp_path / "all" / "instances.npz").instances
    threshold = float(np.median(everything.scores))
    args = ("--model", tiny_model, "--classes", "left kidney, ", "--score", threshold)
    assert run("segment", scan, "-o", tmp_path / "some", *args).code == 0
    some = load_case(tmp_path / "some" / "instances.npz").instances
    expected = (everything.labels == 1) & (everything.scores >= np.float32(threshold))
    assert len(some) == expected.sum()
    assert set(some.labels.tolist()) <= {1}


@pytest.mark.skipif(sys.platform != "linux", reason="names of any bytes are Linux's; not Windows, not macOS")
def test_a_file_name_that_is_no_utf8(run, scan, tiny_model, tmp_path):
    odd = tmp_path / os.fsdecode(b"M\xfcller.nii.gz")
    scan.rename(odd)
    ran = run("segment", odd, scan, "-o", tmp_path / "out", "--model", tiny_model, "--json")
    assert [one["case"] for one in json.loads(ran.out) if "result" in one] == ["M_ller"]
    assert names(tmp_path / "out" / "M_ller") == ALL_FILES
    assert run("info", odd).code == 0


def test_what_the_reader_noticed_is_told(run, scan, tiny_model, tmp_path):
    image = nib.load(scan)
    image.set_qform(np.diag([1.5, 1.5, 9.0, 1]), code=1)
    image.set_sform(np.diag([1.5, 1.5, 4.0, 1]), code=1)
    nib.save(image, tmp_path / "two-minds.nii.gz")
    ran = run("segment", tmp_path / "two-minds.nii.gz", "-o", tmp_path / "out", "--model", tiny_model)
    assert ran.code == 0
    assert ran.err.startswith("note: ")
    assert "qform" in ran.err
    assert "two-minds.nii.gz" in ran.err


def test_quiet_says_nothing(run, scan, tiny_model, tmp_path):
    ran = run("segment", scan, "-o", tmp_path / "out", "--model", tiny_model, "--quiet")
    assert (ran.code, ran.out, ran.err) == (0, "", "")


def test_a_dicom_folder_named_with_a_dot(run, ct_series, tiny_model, tmp_path, monkeypatch):
    monkeypatch.chdir(ct_series)
    asked = ("--quiet", "--allow-out-of-domain")  # the model is for MR
    ran = run("segment", ".", ct_series, "-o", tmp_path / "out", "--model", tiny_model, *asked)
    assert ran.code == 0, ran.err
    assert len(names(tmp_path / "out")) == 2


def test_model_for_mr_refuses_ct_or_warns_on_stderr_and_in_the_result(run, ct_series, tiny_model, tmp_path):
    asked = ("segment", ct_series, "-o", tmp_path / "out", "--model", tiny_model, "--quiet")
    ran = run(*asked)
    assert ran.code == 1 and "was made for MR, and this scan is CT" in ran.err and "--allow-out-of-domain" in ran.err
    ran = run(*asked, "--allow-out-of-domain")
    assert ran.code == 0
    assert ran.err.startswith("warning: ")
    assert "MR" in ran.err
    assert "CT" in ran.err
    assert str(ct_series) in ran.err
    assert load_case(tmp_path / "out" / "instances.npz").record.warnings


def test_a_scan_outside_the_model_s_domain_is_refused_then_stamped(run, scan, tmp_path, save_tiny):
    model = save_tiny(tmp_path / "phantoms-only.safetensors", domain="medmaskrcnn phantom")
    ran = run("segment", scan, "-o", tmp_path / "out", "--model", model)
    assert ran.code == 1
    assert "--allow-out-of-domain" in ran.err
    assert str(scan) in ran.err
    assert not (tmp_path / "out").exists()
    ran = run("segment", scan, "-o", tmp_path / "out", "--model", model, "--allow-out-of-domain")
    assert ran.code == 0
    assert "OUT OF DOMAIN" in ran.out
    assert "OUT OF DOMAIN" in ran.err
    assert json.loads((tmp_path / "out" / "result.json").read_text())["out_of_domain"] is True


def test_a_folder_with_several_scans_asks_which(run, tiny_model, tmp_path, write_scan):
    study = tmp_path / "study"
    write_scan(study / "a.nii.gz", np.zeros((2, 40, 40), np.int16))
    write_scan(study / "b.nii.gz")
    out = tmp_path / "out"
    ran = run("segment", study, "-o", out, "--model", tiny_model)
    assert ran.code == 1
    assert "--series" in ran.err
    assert not out.exists()
    for choice in ("2", "largest"):
        assert run("segment", study, "-o", out, "--model", tiny_model, "--series", choice).code == 0
        assert load_case(out / "instances.npz").candidates.grid.shape == SHAPE


def test_the_numbers_that_info_gives_are_those_that_series_takes(run, tiny_model, ct_series, tmp_path, write_scan):
    study = tmp_path / "study"
    write_scan(study / "b.nii.gz")
    (study / "a.txt").write_text("notes")
    (study / "c").symlink_to(ct_series)
    numbers = {one["path"]: one["number"] for one in json.loads(run("info", study, "--json").out)}
    assert numbers[str(study / "a.txt")] is None
    number = numbers[str(study / "b.nii.gz")]
    ran = run("segment", study, "-o", tmp_path / "out", "--model", tiny_model, "--series", number)
    assert ran.code == 0, ran.err
    assert load_case(tmp_path / "out" / "instances.npz").candidates.grid.shape == SHAPE


def test_the_log_has_the_details(run, tiny_model, tmp_path):
    log = tmp_path / "log.txt"
    assert run("segment", tmp_path / "missing", "-o", tmp_path / "out", "--model", tiny_model, "--log", log).code == 1
    text = log.read_text()
    assert "Traceback" in text
    assert "there is no file or folder <input 1>" in text
    assert "missing" not in text
    assert "medmaskrcnn" in text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--classes", "liver,spleen"), ["spleen", "left kidney"]),
        (("--classes", ","), ["left kidney"]),
        (("--format", "nifti,dicom"), ["dicom", "csv"]),
        (("--score", "1.5"), ["--score"]),
        (("--score", "nan"), ["--score"]),
        (("--device", "tpu"), ["tpu", "cuda"]),
        (("--log", "/"), ["--log", "/"]),
        (("--colour",), ["--colour"]),
    ],
)
def test_wrong_use_ends_with_2_before_anything_is_done(run, scan, tiny_model, tmp_path, arguments, words):
    out = tmp_path / "out"
    ran = run("segment", scan, "-o", out, "--model", tiny_model, *arguments)
    assert ran.code == 2
    assert all(word in ran.err for word in words), ran.err
    assert not out.exists()


@pytest.mark.parametrize("arguments", [(), ("scan.nii",), ("scan.nii", "-o", "out"), ("scan.nii", "--model", "tiny")])
def test_missing_arguments_are_wrong_use(run, arguments):
    ran = run("segment", *arguments)
    assert ran.code == 2
    assert "Missing" in ran.err


def test_a_device_that_is_not_there_is_wrong_use(run, scan, tiny_model, tmp_path, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    ran = run("segment", scan, "-o", tmp_path / "out", "--model", tiny_model, "--device", "cuda")
    assert ran.code == 2
    assert "cuda" in ran.err


def test_results_are_not_mixed_into_an_input_folder(run, ct_series, tiny_model):
    before = names(ct_series)
    ran = run("segment", ct_series, "-o", ct_series, "--model", tiny_model)
    assert ran.code == 2
    assert names(ct_series) == before


@pytest.mark.parametrize(
    ("options", "wrong"),
    [
        (["--device", "cuda"], "--device"),
        (["--precision", "int8", "--engine", "torch"], "--precision"),
        (["--engine", "openvino"], "--engine"),
    ],
)
def test_the_wrong_option_alone_is_blamed(run, scan, tiny_model, tmp_path, monkeypatch, options, wrong):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("medmaskrcnn.models.runtime.choice.find_spec", lambda name: None)
    ran = run("segment", scan, "-o", tmp_path / "out", "--model", tiny_model, *options)
    assert ran.code == 2
    assert {option for option in ("--device", "--precision", "--engine") if option in ran.err} == {wrong}


@pytest.mark.parametrize("command", [["segment"], ["batch"], ["pacs", "watch"], ["trace"], ["evaluate"]])
def test_what_runs_a_model_takes_precision_and_engine(run, command):
    shown = run(*command, "--help").out
    for option in ("--device", "--precision", "--engine", "--allow-out-of-domain"):
        assert option in shown


@pytest.mark.parametrize("command", [["segment"], ["batch"], ["pacs", "watch"]])
def test_what_segments_takes_the_same_options(run, command, tiny_model, tmp_path):
    shown = run(*command, "--help").out
    for option in ("--score", "--classes", "--resample-irregular", "--suv", "--track", "--format", "--label-map-seg"):
        assert option in shown
    source = ["--listen", "0"] if command[0] == "pacs" else [tmp_path]
    ran = run(*command, *source, "-o", tmp_path / "out", "--model", tiny_model, "--classes", "heart")
    assert ran.code == 2 and "--classes" in ran.err and "heart" in ran.err
