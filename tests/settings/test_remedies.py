"""What to do about an error is data; each interface has its own words for it."""

from __future__ import annotations

import pickle

import pytest

from medmaskrcnn.batch_runs.reasons import IN_SUMMARY
from medmaskrcnn.cli.failures import ON_COMMAND_LINE
from medmaskrcnn.cli.pacs import IN_WATCH
from medmaskrcnn.errors import IN_PYTHON, AmbiguousInputError, InvalidOptionError, ReadError, Remedy, with_remedy


@pytest.mark.parametrize("remedy", Remedy)
def test_the_command_line_and_python_know_every_remedy(remedy: Remedy) -> None:
    assert remedy in ON_COMMAND_LINE
    assert remedy in IN_PYTHON or remedy is Remedy.REPORT  # which is of errors that are not ours


def test_each_interface_speaks_of_its_own_options() -> None:
    for words in (IN_PYTHON, IN_SUMMARY):
        assert not any("--" in text for text in words.values())
    for words in (ON_COMMAND_LINE, IN_WATCH):
        assert not any("=" in text or "_" in text for text in words.values())


def test_python_hears_of_it_in_the_message() -> None:
    error = ReadError("/a: 1 slice is missing", Remedy.RESAMPLE_IRREGULAR)
    assert str(error) == "/a: 1 slice is missing. To interpolate even slices, pass resample_irregular=True"
    assert (error.reason, error.remedy) == ("/a: 1 slice is missing", Remedy.RESAMPLE_IRREGULAR)
    assert str(ReadError("/a is empty")) == "/a is empty"


def test_a_remedy_comes_on_a_line_of_its_own_behind_a_list() -> None:
    assert with_remedy("two:\n  1\n  2", Remedy.CHOOSE_SERIES, {Remedy.CHOOSE_SERIES: "Choose"}).endswith("  2\nChoose")
    assert with_remedy("one", Remedy.CHOOSE_SERIES, {}) == "one"  # an interface that cannot


@pytest.mark.parametrize(
    "error", [AmbiguousInputError("a", Remedy.CHOOSE_SERIES), ReadError("b"), InvalidOptionError("device", "c")]
)
def test_errors_go_from_process_to_process(error: Exception) -> None:
    back = pickle.loads(pickle.dumps(error))
    assert type(back) is type(error) and str(back) == str(error) and vars(back) == vars(error)
