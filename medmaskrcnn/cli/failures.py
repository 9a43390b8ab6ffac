"""How the command line fails: one clear sentence on stderr, an exit code, and details in ``--log FILE`` alone."""

from __future__ import annotations

import errno
import logging
import platform
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import typer

import medmaskrcnn
from medmaskrcnn.cli.console import tell
from medmaskrcnn.errors import AmbiguousInputError, MedMaskRCNNError

EXIT_FAILED = 1

EXIT_CODES_HELP = "Exit codes: 0 all right, 1 some case failed or was refused, 2 wrong use."

LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"

logger = logging.getLogger(__name__)


def explain(error: Exception, about: str) -> str:
    """What to tell the user of ``error``: a sentence that names what it is about (a file, a folder).

    Errors that are ours or the operating system's explain themselves; any other is a defect of the program.
    """
    if isinstance(error, MedMaskRCNNError):
        reason = str(error)
        if isinstance(error, AmbiguousInputError):
            reason += "\nGive --series with a number or UID of these, or --series largest."
    elif isinstance(error, MemoryError):
        reason = "not enough memory for this scan"
    elif isinstance(error, OSError):
        reason = _explain_os_error(error)
    else:
        reason = f"internal error ({type(error).__name__}: {error}); please report it with what --log FILE writes"
    return reason if about in reason else f"{about}: {reason}"


def _explain_os_error(error: OSError) -> str:
    reason = error.strerror or str(error) or type(error).__name__
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        reason += "; make room or give another folder to -o"
    return f"{reason} ({error.filename})" if error.filename else reason


def report_failure(error: Exception, about: str) -> str:
    """Print the sentence on stderr, the traceback into the log, and return the sentence."""
    message = explain(error, about)
    logger.error("%s", message, exc_info=error)
    tell("error", message)
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


@contextmanager
def logging_to(file: Path | None) -> Iterator[None]:
    """While it lasts, log records and warnings of all libraries go to ``file`` instead of the terminal.

    Raises:
        typer.BadParameter: if the file cannot be written.
    """
    handler: logging.Handler = logging.NullHandler()
    if file is not None:
        try:
            handler = logging.FileHandler(file, mode="w", encoding="utf-8")
        except OSError as error:
            raise typer.BadParameter(f"cannot write {file}: {error.strerror}", param_hint="--log") from error
    handler.setFormatter(logging.Formatter(LOG_FORMAT))
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    if file is not None:
        root.setLevel(logging.DEBUG)
    with warnings.catch_warnings():
        warnings.simplefilter("default" if file is not None else "ignore")
        logging.captureWarnings(True)
        try:
            logger.info("medmaskrcnn %s, python %s, %s", medmaskrcnn.__version__, platform.python_version(), sys.argv)
            yield
        finally:
            logging.captureWarnings(False)
            root.setLevel(level)
            root.removeHandler(handler)
            handler.close()
