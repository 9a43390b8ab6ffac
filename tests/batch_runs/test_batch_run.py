"""A batch with real workers: what is right is done, what is wrong is told, and a rerun does only what is left."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from tiny_models import save_tiny, tiny_settings
from typer.testing import CliRunner

import medmaskrcnn
from medmaskrcnn.batch_runs.ledger import Ledger
from medmaskrcnn.cli.main import app
from medmaskrcnn.errors import MedMaskRCNNError, ModelFileError, OutputError, ReadError, Remedy

Batch = tuple[Path, Path, list]


@pytest.fixture(scope="module")
def finished(clean_archive: Path, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Batch:
    """Archive, output folder and cases of a batch over the five good series, a gap, garbage, and a scan that cheats."""
    root = tmp_path_factory.mktemp("batch")
    archive = Path(shutil.copytree(clean_archive, root / "archive"))
    sorted((archive / "Miller^Anna0" / "ct").iterdir())[2].unlink()
    cut = sorted((archive / "Miller^Anna1" / "ct").iterdir())[3]
    cut.write_bytes(cut.read_bytes()[:-100])
    (archive / "garbage.dcm").write_bytes(b"no image" * 99)
    (archive / "notes.txt").write_text("Anna Miller")
    four = np.zeros((8, 8, 4, 3), np.int16)  # passes every header, and no model wants it
    nib.save(nib.Nifti1Image(four, np.eye(4)), archive / "Miller_Anna_4D.nii.gz")
    out = root / "out"
    return archive, out, list(medmaskrcnn.batch(archive, out, model=tiny_model))


def test_what_is_right_is_done_and_what_is_wrong_is_told(finished: Batch):
    _, out, cases = finished
    assert sorted(case.status for case in cases) == ["done"] * 3 + ["refused"]
    assert "3 volumes" in next(case.reason for case in cases if case.status == "refused")
    summary = json.loads((out / "summary.json").read_text())
    assert summary["statuses"] == {"failed": 0, "refused": 4, "running": 0, "queued": 0, "done": 3, "skipped": 1}
    reasons = " ".join(case["reason"] for case in summary["cases"] if case["status"] == "refused")
    for words in ("slice is missing", "volumes", "without rows and columns", "ends before"):
        assert re.search(words, reasons), (words, reasons)


def test_what_may_be_done_is_told_as_data_and_in_the_summarys_words(finished: Batch):
    _, out, _ = finished
    gap = next(one for one in summary_of(out) if "slice is missing" in (one["reason"] or ""))
    assert "A new batch may interpolate even slices" in gap["reason"]


@pytest.mark.slow
def test_a_model_that_refuses_scans(clean_archive: Path, tmp_path: Path):
    model = save_tiny(tiny_settings(card={"name": "picky", "domain": "nobody's"}), tmp_path / "picky.safetensors")
    scan = next(clean_archive.iterdir())
    (case,) = medmaskrcnn.batch(scan, tmp_path / "out", model=model, device="cpu")
    assert (case.status, case.remedy) == ("refused", Remedy.ALLOW_OUT_OF_DOMAIN)
    assert "--" not in case.reason and "_" not in case.reason
    assert "allow scans out of the model's domain" in summary_of(tmp_path / "out")[0]["reason"]
    ran = CliRunner().invoke(app, ["batch", str(scan), "-o", str(tmp_path / "again"), "--model", str(model)])
    assert ran.exit_code == 1 and "give --allow-out-of-domain" in ran.stderr


@pytest.mark.slow
def test_python_can_ask_for_all_that_the_command_line_can(clean_archive: Path, tiny_model: Path, tmp_path: Path):
    (case,) = medmaskrcnn.batch(
        next(clean_archive.iterdir()), tmp_path / "out", model=tiny_model, device="cpu", precision="bf16",
        engine="torch", formats=["seg"], label_map_seg=True, plain_names=True,
    )  # fmt: skip
    assert case.status == "done", case.reason
    assert not case.folder.name.startswith("series-") and case.result().record.precision == "bf16"
    with pytest.raises(ValueError, match="precision must be"):
        next(medmaskrcnn.batch(clean_archive, tmp_path / "no", model=tiny_model, precision="fp8"))


def summary_of(out: Path) -> list[dict]:
    return json.loads((out / "summary.json").read_text())["cases"]


def test_results_are_whole_and_can_be_loaded(finished: Batch):
    _, out, cases = finished
    for case in (one for one in cases if one.status == "done"):
        assert {p.name for p in case.folder.iterdir()} == {
            "instances.npz", "instances.csv", "labels.nii.gz", "preview.png", "result.json", "run.json",
            "thumbnail.jpg",
        }  # fmt: skip
        assert len(case.result().instances) == sum(case.counts.values()) > 0
    assert cases[-1].progress.left == 0
    assert not (out / ".partial").exists()


def test_only_the_ledger_names_anyone(finished: Batch):
    archive, out, _ = finished
    for file in out.rglob("*"):
        assert "iller" not in file.name
        if file.is_file() and file.name != "ledger.sqlite":
            content = file.read_bytes()
            assert b"iller" not in content, file
            assert str(archive).encode() not in content, file
    assert b"Miller^Anna" in (out / "ledger.sqlite").read_bytes()  # else the test proves nothing


def test_the_table_has_a_line_a_series(finished: Batch):
    _, out, cases = finished
    lines = list(csv.DictReader((out / "summary.csv").open()))
    assert [line["status"] for line in lines] == ["refused"] * 4 + ["done"] * 3 + ["skipped"]
    by_case = {str(case.folder.relative_to(out)): case for case in cases}
    for line in lines[4:7]:
        counts = {name[2:]: int(line[name]) for name in line if name.startswith("n ") and int(line[name])}
        assert counts == by_case[line["case"]].counts


def test_a_rerun_does_nothing_twice(finished: Batch, tiny_model: Path, tree: Callable):
    archive, out, _ = finished
    before = tree(out)
    assert list(medmaskrcnn.batch(archive, out, model=tiny_model)) == []
    assert tree(out) == before


def test_another_model_or_setting_is_noticed(finished: Batch, tiny_model: Path, other_model: Path):
    archive, out, _ = finished
    with pytest.raises(OutputError, match=r"another model.*model_sha256.*redo=True"):
        list(medmaskrcnn.batch(archive, out, model=other_model))
    with pytest.raises(OutputError, match=r"score=None.*score=0\.9"):
        list(medmaskrcnn.batch(archive, out, model=tiny_model, score=0.9))


@pytest.mark.slow
def test_killed_interrupted_changed_and_redone(
    archive: Path, tiny_model: Path, other_model: Path, tmp_path: Path, children: Callable, rows: Callable
):
    """One life of an output folder, in three runs."""
    out, late = tmp_path / "out", tmp_path / "late"
    shutil.move(archive / "Miller^Anna4", late)
    running = medmaskrcnn.batch(archive, out, model=tiny_model)
    cases = [next(running)]
    (worker,) = children(os.getpid())
    os.kill(worker, signal.SIGKILL)  # what it had in hand is done by the next one
    cases += running
    assert [case.status for case in cases] == ["done"] * 4

    shutil.move(late, archive / "Miller^Anna4")
    os.utime(sorted((archive / "Miller^Anna1" / "ct").iterdir())[0], (1, 1))
    running = medmaskrcnn.batch(archive, out, model=tiny_model)  # the new one and the changed one are left
    assert next(running).progress.left == 1
    running.close()
    statuses = [row[0] for row in rows(out)]
    assert (statuses.count("done"), statuses.count("queued")) == (4, 1)

    anew = medmaskrcnn.batch(archive, out, model=other_model, redo=True)
    assert [case.result().record.model_name for case in anew] == ["tiny-1"] * 5


@pytest.mark.slow
def test_rules_leave_out_and_a_later_run_takes_in(archive: Path, tiny_model: Path, tmp_path: Path):
    (tmp_path / "rules.yaml").write_text("take: [{slices: {min: 7}}]")
    out = tmp_path / "out"
    with pytest.raises(ReadError, match=r"no series that can be segmented.*5 x the rules do not take it"):
        list(medmaskrcnn.batch(archive, out, model=tiny_model, rules=tmp_path / "rules.yaml"))
    assert json.loads((out / "summary.json").read_text())["statuses"]["skipped"] == 5
    (tmp_path / "rules.yaml").write_text("take: [{modality: CT}]")
    cases = list(medmaskrcnn.batch(archive / "Miller^Anna0", out, model=tiny_model, rules=tmp_path / "rules.yaml"))
    assert [case.status for case in cases] == ["done"]


@pytest.mark.slow
def test_a_case_over_its_time_fails_alone(archive: Path, tiny_model: Path, tmp_path: Path):
    big = np.zeros((512, 512, 480), np.int16)  # five times what is done in time on a quiet machine
    nib.save(nib.Nifti1Image(big, np.diag([0.7, 0.7, 2, 1])), archive / "Miller^Anna1" / "big.nii")
    for number in (0, 3, 4):
        shutil.rmtree(archive / f"Miller^Anna{number}")
    cases = list(medmaskrcnn.batch(archive, tmp_path / "out", model=tiny_model, max_seconds=6))
    assert sorted(case.status for case in cases) == ["done"] * 2 + ["failed"]
    assert "longer than the 6 s" in next(case.reason for case in cases if case.status == "failed")


@pytest.mark.slow
def test_a_case_over_its_memory_fails_after_a_try_alone(archive: Path, tiny_model: Path, tmp_path: Path):
    cases = list(medmaskrcnn.batch(archive / "Miller^Anna0", tmp_path / "out", model=tiny_model, max_memory_mb=100))
    assert [case.status for case in cases] == ["failed"]
    assert "MB of memory, more than the 100 allowed" in cases[0].reason


@pytest.mark.slow
def test_fail_fast_ends_with_the_first(archive: Path, tiny_model: Path, tmp_path: Path):
    four = nib.Nifti1Image(np.zeros((8, 8, 4, 3), np.int16), np.eye(4))
    for number in range(8):
        nib.save(four, archive / f"four{number}.nii")
    cases = list(medmaskrcnn.batch(archive, tmp_path / "out", model=tiny_model, fail_fast=True))
    assert "refused" in {case.status for case in cases}
    assert cases[-1].progress.left > 0


@pytest.mark.slow
def test_a_key_gives_the_same_tree_elsewhere(
    archive: Path, tiny_model: Path, key: Path, tmp_path: Path, tree: Callable
):
    for number in (0, 1, 2):
        shutil.rmtree(archive / f"Miller^Anna{number}")
    for name in ("one", "two"):
        list(medmaskrcnn.batch(archive, tmp_path / name, model=tiny_model, key_file=key, formats=["json", "seg", "sr"]))
    assert tree(tmp_path / "one") == tree(tmp_path / "two")
    (tmp_path / "other").write_text("another key, long enough")
    with pytest.raises(OutputError, match="another key"):
        list(medmaskrcnn.batch(archive, tmp_path / "one", model=tiny_model, key_file=tmp_path / "other",
                               formats=["json", "seg", "sr"]))  # fmt: skip


@pytest.mark.parametrize(
    ("change", "error", "told"),
    [
        ({"model": "nobody"}, ModelFileError, "unknown model"),
        ({"classes": ["brain"]}, ValueError, "no class brain"),
        ({"formats": ["docx"]}, ValueError, "docx"),
        ({"workers": 0}, ValueError, "at least 1"),
        ({"max_seconds": -1}, ValueError, "positive"),
        ({"sources": "nowhere"}, ReadError, "does not exist"),
    ],
)
def test_impossible_wishes_are_told(
    change: dict, error: type[Exception], told: str, clean_archive: Path, tiny_model: Path, tmp_path: Path
):
    wishes = {"sources": clean_archive, "out": tmp_path / "out", "model": tiny_model, **change}
    with pytest.raises(error, match=told):
        list(medmaskrcnn.batch(**wishes))


def test_output_inside_the_input_is_refused(archive: Path, tiny_model: Path):
    with pytest.raises(OutputError, match="lies inside the source"):
        list(medmaskrcnn.batch(archive, archive / "out", model=tiny_model))


def test_two_runs_on_one_output_at_once_are_refused(clean_archive: Path, tiny_model: Path, tmp_path: Path):
    first = Ledger(tmp_path / "out")
    with pytest.raises(OutputError, match="another run is writing"):
        list(medmaskrcnn.batch(clean_archive, tmp_path / "out", model=tiny_model))
    first.close()


@pytest.mark.slow
def test_a_device_that_is_not_there_is_told(clean_archive: Path, tiny_model: Path, tmp_path: Path):
    import torch

    if torch.backends.mps.is_available():
        pytest.skip("needs a machine without MPS")
    with pytest.raises(MedMaskRCNNError, match="mps"):
        list(medmaskrcnn.batch(clean_archive, tmp_path / "out", model=tiny_model, device="mps"))
