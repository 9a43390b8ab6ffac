"""How the command line fails: one clear sentence on stderr, an exit code, and details in ``--log FILE`` alone."""

from __future__ import annotations

import logging
import os
import platform
import re
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from pathlib import Path
from typing import Any

import typer

from medmaskrcnn.batch_runs.reasons import explain, remedy_of
from medmaskrcnn.cli.console import print_status
from medmaskrcnn.errors import Remedy, with_remedy
from medmaskrcnn.system.exceptions import QUOTING, traceback_of
from medmaskrcnn.system.version import __version__

EXIT_FAILED = 1

EXIT_CODES_HELP = "Exit codes: 0 all right, 1 some case failed or was refused, 2 wrong use."

ON_COMMAND_LINE: Mapping[Remedy, str] = {
    Remedy.ALLOW_OUT_OF_DOMAIN: "Choose another model, or give --allow-out-of-domain to run it all the same",
    Remedy.RESAMPLE_IRREGULAR: "Even slices are interpolated on request: --resample-irregular",
    Remedy.MERGE_SERIES: "They are read as one series on request: --merge-series",
    Remedy.DROP_DUPLICATES: "Each image is read once on request: --drop-duplicates",
    Remedy.CHOOSE_SERIES: "Give --series with a number or UID of these, or --series largest",
    Remedy.REDO: "Give another folder, or --redo",
    Remedy.OVERWRITE: "To replace what is there, give --overwrite",
    Remedy.REPORT: "Please report it with what --log FILE writes",
    Remedy.RESUME: "Go on with it (--resume), or train into another folder",
    Remedy.START_ANEW: "Start without --resume",
    Remedy.WRITE_DICOM: "Segment with --format seg,sr to have some",
    Remedy.USE_FP32: "Try --precision fp32, and if that does not help, another model",
    Remedy.USE_TORCH: "Without them run with --engine torch",
    Remedy.TRUST_CERTIFICATE: "Name the certificates to trust with --ca",
    Remedy.SET_TITLES: "See --called and --calling",
    Remedy.GIVE_ONE_VOLUME: "Give it one of them",
    Remedy.GIVE_SEQUENCES: "Say which file is which sequence with --channels, or give files by nnU-Net's names",
}
"""How the command line says what may be done about an error."""

LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"

logger = logging.getLogger(__name__)


def report_failure(error: Exception, about: str) -> str:
    """Print the sentence on stderr, the traceback into the log, and return the sentence."""
    message = with_remedy(explain(error, about), remedy_of(error), ON_COMMAND_LINE)
    logger.error("%s", message, exc_info=error)
    print_status("error", message)
    return message


@contextmanager
def failing_as_one(about: str) -> Iterator[None]:
    """Turns any error of the block into its sentence and exit code 1."""
    try:
        yield
    except Exception as error:
        if type(error).__module__.partition(".")[0] in ("click", "typer"):
            raise
        report_failure(error, about)
        raise typer.Exit(EXIT_FAILED) from error


class _WithoutPaths(logging.Formatter):
    """Writes ``<input 1>`` for each path of an input, however it is spelt, traceback included."""

    def __init__(self, hidden: Sequence[Path]) -> None:
        super().__init__(LOG_FORMAT)
        spelt = [
            (form, f"<input {number}>")
            for number, path in enumerate(hidden, start=1)
            for form in {str(path), str(path.absolute()), str(path.resolve())}
        ]
        self._spelt = sorted(spelt, key=lambda pair: len(pair[0]), reverse=True)

    def formatException(self, ei: Any) -> str:
        """A traceback whose messages quote no value of a file."""
        return traceback_of(ei[1]) if ei[1] is not None else ""

    def format(self, record: logging.LogRecord) -> str:
        """The record as a line, or lines with a traceback."""
        own = copy(record)
        own.exc_text = None  # another handler may have kept the traceback as Python words it
        text = super().format(own)
        for form, number in self._spelt:
            text = re.sub(rf"(?<![\w./\\-]){re.escape(form)}(?![\w.-])", number, text)
        return text


def _says_nothing_of_patients(record: logging.LogRecord) -> bool:
    """False for what the DICOM libraries log or warn of."""
    if record.name == "py.warnings":
        return not any(f"{os.sep}{library}{os.sep}" in record.getMessage() for library in QUOTING)
    return record.name.partition(".")[0] not in QUOTING


@contextmanager
def logging_to(file: Path | None, *, hidden: Sequence[Path] = ()) -> Iterator[None]:
    """While it lasts, log records and warnings of all libraries go to ``file`` instead of the terminal.

    A log is what users send along with a report of a defect, so it says nothing of the patient: paths of inputs, which
    often are patients' names, become ``<input 1>``, and the DICOM libraries, which quote the values that they warn of,
    are left out.

    Args:
        file: The log; ``None`` for none.
        hidden: Paths of inputs, as the user gave them.

    Raises:
        typer.BadParameter: if the file cannot be written.
    """
    handler: logging.Handler = logging.NullHandler()
    if file is not None:
        try:
            handler = logging.FileHandler(file, mode="w", encoding="utf-8")
        except OSError as error:
            raise typer.BadParameter(f"cannot write {file}: {error.strerror}", param_hint="--log") from error
    handler.setFormatter(_WithoutPaths(hidden))
    handler.addFilter(_says_nothing_of_patients)
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    if file is not None:
        root.setLevel(logging.DEBUG)
    with warnings.catch_warnings():
        warnings.simplefilter("default" if file is not None else "ignore")
        logging.captureWarnings(True)
        try:
            logger.info("medmaskrcnn %s, python %s, %s", __version__, platform.python_version(), sys.argv[1:])
            yield
        finally:
            logging.captureWarnings(False)
            root.setLevel(level)
            root.removeHandler(handler)
            handler.close()
