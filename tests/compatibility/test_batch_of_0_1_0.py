"""A batch that 0.1.0 began is gone on with: what is done stays, what is left is done as it would have been then."""

from __future__ import annotations

import csv
import json
import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from jsonschema import validate
from pydicom import dcmread
from typer.testing import Result

CommandLine = Callable[..., Result]

FILE_TIME_NS = 1_700_000_000_000_000_000  # of the files when the ledger entered them; git does not keep it

OPTIONS = (
    *("--score", "0.0", "--classes", "tumour", "--format", "csv,json,nifti,seg", "--resample-irregular"),
    *("--allow-out-of-domain", "--label-map-seg", "--deidentify", "--track", "--device", "cpu", "--quiet"),
)
"""Those that the batch was begun with, each another than the default: the ledger keeps a digest of them."""


def rows(out: Path, what: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(out / "ledger.sqlite")) as ledger:
        return ledger.execute(what).fetchall()


def begun(made: Path, folder: Path) -> Path:
    """One series done, one in hand when the program was killed, one queued; a fourth has come since."""
    out = Path(shutil.copytree(made / "batch", folder))
    assert rows(out, "SELECT status FROM series ORDER BY folder") == [("done",), ("running",), ("queued",)]
    return out


pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def gone_on(made: Path, tmp_path_factory: pytest.TempPathFactory, command_line: CommandLine) -> tuple[Path, str]:
    """The batch after the same command again, and what that said. The archive lies elsewhere now."""
    folder = tmp_path_factory.mktemp("batch")
    out, model = begun(made, folder / "out"), made / "models" / "sees_all.safetensors"
    archive = copy_archive(made, folder)
    return out, command_line("batch", archive, "-o", out, "--model", model, *OPTIONS).stdout


def test_ledger_of_0_1_0_goes_on(
    made: Path, gone_on: tuple[Path, str], assert_same_candidates: Callable[[Path, Path], None]
) -> None:
    out, said = gone_on
    assert "4 done, 0 left" in said
    ends = rows(out, "SELECT status, attempts FROM series ORDER BY folder")
    assert ends == [("done", 1), ("done", 2), ("done", 1), ("done", 1)]
    (first,) = {file.parent for file in (made / "batch").rglob("instances.npz")}
    done = {file.name: file.read_bytes() for file in first.iterdir()}
    kept = out / first.relative_to(made / "batch")
    assert {file.name: file.read_bytes() for file in kept.iterdir()} == done  # run.json, too, is the one of then
    for found in (made / "batch_finds").rglob("instances.npz"):  # the key makes the same folder of a new series, too
        result = out / found.parent.relative_to(made / "batch_finds")
        assert {file.name for file in result.iterdir()} == set(done)
        assert_same_candidates(result / "instances.npz", found)


def test_digest_of_batch_options_is_that_of_0_1_0(made: Path, gone_on: tuple[Path, str]) -> None:
    """It is made of the options' names and values: a renamed one would make a stranger of each batch under way."""
    about = "SELECT name, value FROM about WHERE name IN ('work', 'said', 'key', 'model') ORDER BY name"
    assert rows(gone_on[0], about) == rows(made / "batch", about)


def test_summary_keeps_the_contract_of_0_1_0(made: Path, gone_on: tuple[Path, str]) -> None:
    """Also of what 0.1.0 has done."""
    summary = json.loads((gone_on[0] / "summary.json").read_text(encoding="utf-8"))
    validate(summary, json.loads((made / "summary.schema.json").read_text()))
    assert summary["statuses"]["done"] == 4 and all(case["instances"] for case in summary["cases"])
    with (gone_on[0] / "summary.csv").open(newline="", encoding="utf-8") as file:
        columns = next(csv.reader(file))
    assert columns[:8] == ["case", "status", "reason", "modality", "slices", "instances", "out_of_domain", "warnings"]


def test_other_options_than_those_of_0_1_0_are_noticed(made: Path, tmp_path: Path, command_line: CommandLine) -> None:
    """The digest is looked at: else the tests above would prove nothing."""
    out, archive, model = (
        begun(made, tmp_path / "out"),
        copy_archive(made, tmp_path),
        made / "models" / "sees_all.safetensors",
    )
    others = [*OPTIONS]
    others.remove("--track")
    told = command_line("batch", archive, "-o", out, "--model", model, *others, code=1).stderr
    assert "another model or other settings" in " ".join(told.split())


def test_rules_of_0_1_0_are_followed(made: Path, tmp_path: Path, command_line: CommandLine) -> None:
    """Each key of the rules leaves out one series; one remains and is segmented."""
    archive = copy_archive(made, tmp_path)
    shutil.rmtree(archive / "patient3")
    change(archive / "patient1", SeriesDescription="Trunk, thin")
    change(archive / "patient2", ConvolutionKernel="H70f")
    for number, changes in enumerate(({"SeriesDescription": "Arm"}, {"Modality": "PT"}, {})):
        copied = shutil.copytree(archive / "patient0", archive / f"more{number}")
        change(copied, SeriesInstanceUID=f"2.25.77{number}", **changes)
    one_slice_less = sorted((archive / "more2" / "ct").iterdir())
    highest = max(one_slice_less, key=lambda file: float(dcmread(file).ImagePositionPatient[2]))
    highest.unlink()  # the study's series with most slices is taken
    two_slices = shutil.copytree(archive / "patient0", archive / "more3")
    change(two_slices, SeriesInstanceUID="2.25.773", StudyInstanceUID="2.25.774")
    for file in sorted((two_slices / "ct").iterdir(), key=lambda file: float(dcmread(file).ImagePositionPatient[2]))[
        2:
    ]:
        file.unlink()

    model, rules = made / "models" / "sees_all.safetensors", made / "rules.yaml"
    command_line(
        *("batch", archive, "-o", tmp_path / "out", "--model", model, "--rules", rules, "--format", "csv"),
        *("--device", "cpu", "--quiet"),
    )

    reasons = rows(tmp_path / "out", "SELECT status, coalesce(reason, ''), found FROM series")
    by_name = {json.loads(str(found))["files"][0].split("/")[-3]: (status, reason) for status, reason, found in reasons}
    not_taken = "the rules do not take it (no entry of take fits)"
    assert by_name == {
        "patient0": ("done", ""),
        "patient1": ("skipped", "the rules leave it out (leave, entry 1)"),
        "patient2": ("skipped", not_taken),
        "more0": ("skipped", not_taken),
        "more1": ("skipped", not_taken),
        "more2": ("skipped", "the rules take 1 of each study, others have more slices"),
        "more3": ("skipped", not_taken),
    }


def copy_archive(made: Path, folder: Path) -> Path:
    """Small phantoms as folders of DICOM, with the times that the ledger knows."""
    archive = Path(shutil.copytree(made / "archive", folder / "archive"))
    for file in archive.rglob("IM*"):
        os.utime(file, ns=(FILE_TIME_NS, FILE_TIME_NS))
    return archive


def change(folder: Path, **values: object) -> None:
    """Set attributes in every file below a folder."""
    for number, file in enumerate(sorted(folder.rglob("IM*"))):
        dataset = dcmread(file)
        for keyword, value in values.items():
            setattr(dataset, keyword, value)
        if "SeriesInstanceUID" in values:
            dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = (
                f"{values['SeriesInstanceUID']}.{number}"
            )
        dataset.save_as(file, enforce_file_format=True)
