"""The suite's own rules about what may be left out: `tests/conftest.py` at work in a suite of two tests."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

SUITE = """
    import pytest

    @pytest.mark.needs("a-program-nobody-has", package="its-package")
    def test_with_program():
        raise AssertionError("never reached")

    def test_with_data(medmaskrcnn_data):
        raise AssertionError("never reached")

    def test_with_nothing():
        pass
"""


@pytest.fixture
def suite(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A suite that has our conftest, no data and a program missing."""
    pytester.makeconftest((Path(__file__).parents[1] / "conftest.py").read_text(encoding="utf-8"))
    pytester.makeini("[pytest]\nmarkers =\n    needs\n    gpu\n")
    pytester.makepyfile(SUITE)
    monkeypatch.delenv("MEDMASKRCNN_DATA", raising=False)
    monkeypatch.delenv("MEDMASKRCNN_COVERAGE", raising=False)  # its plugin is not in the suite's folder
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # napari's and Qt's take seconds to load
    return pytester


def run(suite: pytest.Pytester) -> pytest.RunResult:
    return suite.runpytest_subprocess("-p", "no:cacheprovider", "--strict-markers")


def test_at_home_what_is_missing_is_skipped_and_told_at_the_end(suite, monkeypatch):
    monkeypatch.delenv("CI", raising=False)
    result = run(suite)
    result.assert_outcomes(passed=1, skipped=2)
    result.stdout.fnmatch_lines(
        ["*left out*", "*1 test *package its-package*", "*1 test *MEDMASKRCNN_DATA is not set*"],
        consecutive=False,
    )


def test_in_ci_a_missing_program_fails_and_missing_data_does_not(suite, monkeypatch):
    monkeypatch.setenv("CI", "true")
    result = run(suite)
    result.assert_outcomes(passed=1, skipped=1, errors=1)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["*was skipped, which CI does not allow: needs a-program-nobody-has*"])


def test_data_that_is_named_but_not_there_fails(suite, monkeypatch, tmp_path):
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setenv("MEDMASKRCNN_DATA", str(tmp_path / "nowhere"))
    result = run(suite)
    result.assert_outcomes(passed=1, skipped=1, errors=1)


def test_device_fixture_runs_on_the_cpu_everywhere(suite, monkeypatch):
    monkeypatch.delenv("CI", raising=False)
    suite.makepyfile(test_on_device="def test_on_device(device):\n    assert device.type in {'cpu', 'cuda'}\n")
    result = suite.runpytest_subprocess("-p", "no:cacheprovider", "-v", "test_on_device.py")
    assert result.ret == 0
    result.stdout.fnmatch_lines(["*test_on_device?cpu? PASSED*"])
