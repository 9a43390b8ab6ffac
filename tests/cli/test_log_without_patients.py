"""The log: paths of inputs become numbers, and libraries that quote what they warn of are left out."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path

import pydicom
import pytest

from medmaskrcnn.cli.failures import logging_to

PYDICOM_FILE = str(Path(pydicom.__file__).with_name("valuerep.py"))


def test_libraries_that_quote_values_are_left_out(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    with logging_to(log):
        logging.getLogger("pydicom").warning("invalid value SECRET")
        logging.getLogger("highdicom.base").warning("the name SECRET")
        warnings.warn_explicit("invalid value SECRET", UserWarning, PYDICOM_FILE, 1)
        warnings.warn_explicit("worth knowing", UserWarning, str(tmp_path / "other.py"), 1)
        logging.getLogger("medmaskrcnn.io").warning("tilted by 8 degrees")
    text = log.read_text()
    assert "SECRET" not in text
    assert "worth knowing" in text
    assert "tilted by 8 degrees" in text


@pytest.mark.parametrize("relative", [False, True])
def test_paths_of_inputs_become_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, relative: bool) -> None:
    monkeypatch.chdir(tmp_path)
    names = ["SECRET JANE", "SECRET"]
    inputs = [Path(name) if relative else tmp_path / name for name in names]
    log = tmp_path / "log.txt"
    with logging_to(log, hidden=inputs):
        logger = logging.getLogger("medmaskrcnn")
        for path in inputs:
            logger.info("read %s and %s/IM1, %r", path, path.absolute(), str(path))
        try:
            raise ValueError(f"{inputs[0].absolute()} is damaged")
        except ValueError:
            logger.exception("failed")
    text = log.read_text()
    assert "SECRET" not in text
    assert "read <input 1> and <input 1>/IM1, '<input 1>'" in text
    assert "read <input 2> and <input 2>/IM1, '<input 2>'" in text
    assert "ValueError: <input 1> is damaged" in text
