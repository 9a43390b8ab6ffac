"""What an exception tells outside: no value of a file."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from pydicom.valuerep import DA, DS

from medmaskrcnn.batch_runs.reasons import explain, is_memory
from medmaskrcnn.cli.failures import logging_to
from medmaskrcnn.errors import ReadError
from medmaskrcnn.io.guard import convert_read_errors
from medmaskrcnn.system.exceptions import traceback_of, words_of

SECRET = "DOE^JANE"


def caught(make) -> BaseException:
    try:
        make()
    except Exception as error:
        return error
    raise AssertionError("nothing was raised")


def ours() -> None:
    raise ValueError("rows and columns differ")


def told() -> None:
    raise ReadError("scan.dcm is cut short")


QUOTING = {
    "a date of pydicom": lambda: DA(f"19{SECRET}"),
    "a number of pydicom": lambda: DS(SECRET, validation_mode=2),
    "an int": lambda: int(SECRET),
    "a float": lambda: float(SECRET),
    "a key": lambda: {}[SECRET],
    "an encoding": lambda: SECRET.encode("utf-16").decode("ascii"),
    "a name": lambda: [].index(SECRET),
}


@pytest.mark.parametrize("make", QUOTING.values(), ids=QUOTING)
def test_values_stay_inside(make, tmp_path: Path):
    error = caught(make)
    with pytest.raises(ReadError) as read, convert_read_errors(tmp_path / "a.dcm", "DICOM"):
        raise error
    log = tmp_path / "log.txt"
    with logging_to(log):
        logging.getLogger("medmaskrcnn").error("failed", exc_info=error)
    for text in (words_of(error), traceback_of(error), explain(error, "a.dcm"), str(read.value), log.read_text()):
        assert SECRET not in text and "DOE" not in text
        assert type(error).__name__ in text


def test_what_says_nothing_of_a_file_is_told():
    assert words_of(caught(ours)) == "ValueError: rows and columns differ"
    assert words_of(caught(told)) == "ReadError: scan.dcm is cut short"
    assert words_of(RuntimeError("shape mismatch\nmore")) == "RuntimeError: shape mismatch"
    assert words_of(KeyError()) == "KeyError"


def test_causes_stay_inside_too():
    def both() -> None:
        try:
            int(SECRET)
        except ValueError as error:
            raise RuntimeError("no header") from error

    text = traceback_of(caught(both))
    assert "RuntimeError: no header" in text and "ValueError" in text and SECRET not in text


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(), OSError(12, "Cannot allocate memory"), RuntimeError("CPUAllocator: can't allocate memory"),
        RuntimeError("can't start new thread"), ImportError("libx.so: failed to map: Cannot allocate memory"),
    ],
)  # fmt: skip
def test_a_limit_on_memory_is_no_defect_of_the_program(error: Exception):
    assert is_memory(error)
    assert explain(error, "scan.nii") == "scan.nii: not enough memory for this scan"
    assert not is_memory(RuntimeError("shapes differ"))
