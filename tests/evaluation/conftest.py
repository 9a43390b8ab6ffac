"""The labelled case and the small model that tests of several rooms share, and a way to run the command line."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from labelled_case import labelled
from small_networks import tiny_file
from typer.testing import CliRunner, Result

from medmaskrcnn.cli.main import app

__all__ = ["labelled", "tiny_file"]


@pytest.fixture
def run_cli() -> Callable[..., Result]:
    """``run_cli("evaluate", ...)``: an end by anything but an exit fails the test."""

    def run(*words: object) -> Result:
        done = CliRunner().invoke(app, [str(word) for word in words])
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        return done

    return run
