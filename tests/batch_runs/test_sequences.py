"""Series of a study, and files by nnU-Net's names, become cases of several sequences."""

from __future__ import annotations

from pathlib import Path

from medmaskrcnn.batch_runs.find import FoundSeries
from medmaskrcnn.batch_runs.sequences import WantedSequences, join_sequences

PATTERNS = WantedSequences(("T1", "FLAIR"), (("T1", "*t1*"), ("FLAIR", "*flair*")))


def series(folder: Path, description: str, *, study: str = "1", **changes: object) -> FoundSeries:
    (file := folder / f"{study}-{description}.dcm").touch()
    facts = {"identity": f"{study}-{description}", "verdict": "queued", "reason": None, "files": (str(file),)}
    facts |= {"fingerprint": "", "patient": study, "study": study, "name": file.name, "description": description}
    return FoundSeries(**facts | {"study_uid": study, "series_uid": f"{study}.{description}"} | changes)


def test_a_study_is_a_case(tmp_path: Path) -> None:
    found = [series(tmp_path, name) for name in ("ax FLAIR", "localizer", "ax T1")]
    skipped, case = join_sequences(found, PATTERNS)
    assert skipped.verdict == "skipped" and skipped.description == "localizer"
    assert case.verdict == "queued" and case.sequences == (("T1", 1), ("FLAIR", 1))
    assert case.files == found[2].files + found[0].files


def test_what_is_missing_or_there_twice_is_refused(tmp_path: Path) -> None:
    for names, words in (
        (("t1",), "0 series fit FLAIR"),
        (("t1 a", "t1 b", "flair"), "2 series fit T1"),
        (("t1 and flair",), "one series fits several sequences"),
    ):
        (case,) = join_sequences([series(tmp_path, name) for name in names], PATTERNS)
        assert case.verdict == "refused" and words in str(case.reason)


def test_nothing_that_was_found_is_lost(tmp_path: Path) -> None:
    zipped = series(tmp_path, "t1", archive=("a.zip", 0), files=())
    (refused,) = join_sequences([zipped], PATTERNS)
    assert refused.verdict == "refused" and "unpack" in str(refused.reason)
    refused_before = series(tmp_path, "t1", verdict="refused", reason="damaged")
    assert join_sequences([refused_before], PATTERNS) == [refused_before]


def test_names_of_files_make_cases(tmp_path: Path) -> None:
    wanted = WantedSequences(("T1", "FLAIR"))
    names = ("a_0001.nii.gz", "a_0000.nii.gz", "b_0000.nii.gz", "other.nii.gz")
    found = [series(tmp_path, name, files=(str(tmp_path / name),), series_uid="", name=name) for name in names]
    for one in found:
        Path(one.files[0]).touch()
    other, whole, part = join_sequences(found, wanted)
    assert other == found[3]
    assert (whole.name, whole.verdict, whole.files) == ("a", "queued", found[1].files + found[0].files)
    assert part.verdict == "refused" and "0 files are sequence FLAIR" in str(part.reason)
    assert join_sequences(found, WantedSequences(("only",))) == found
