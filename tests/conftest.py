"""Fixtures and rules that the whole suite shares.

- ``device``: each test that asks for it runs on ``cpu``, and on ``cuda`` too where there is one.
- ``medmaskrcnn_data``: the folder of real scans that the environment variable ``MEDMASKRCNN_DATA`` names.
- ``locked_folder``: a folder that may not be written into, also where the suite runs as root.
- ``@pytest.mark.needs("dciodvfy", package="dicom3tools")``, ``needs(display=True)``, ``needs(extra="openvino")``: what
  a test needs of the system or of an extra. Missing, it is skipped and the end of the run says what to install; in CI
  it fails.
- The order of files: those with tests marked ``slow`` first.
- What is imported when tests begin is left alone by garbage collections, which napari's fixtures ask for at every turn.
"""

from __future__ import annotations

import gc
import os
import re
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# One thread per test process, before torch starts its pool: two processes (-n 2) on two cores then do not fight, and
# sums are taken in one order. Subprocesses that tests start inherit it.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# For pytest-qt; an ini option would be an error without it.
os.environ.setdefault("PYTEST_QT_API", "pyqt6")

if os.environ.get("MEDMASKRCNN_COVERAGE"):
    pytest_plugins = ["coverage_by_room"]

# The binding that pytest-qt takes. Its setting in pyproject.toml would be an unknown one where pytest-qt is not
# installed, and the operators' tests need nothing but torch.
os.environ.setdefault("PYTEST_QT_API", "pyqt6")

IN_CI = os.environ.get("CI", "").lower() in {"1", "true"}

# Why a test may be left out in CI: it is about data or a device that CI does not have. Anything else fails there.
SKIPS_ALLOWED_IN_CI = re.compile(r"MEDMASKRCNN_DATA|\b(GPU|CUDA|ROCm|MPS|Windows|macOS)\b", re.IGNORECASE)

NOBODY = 65534  # the user who owns nothing, on Linux

# What an extra of the package installs, as it is imported; of those that some tests need.
MODULES_OF_EXTRA = {
    "bundle": ("fire",),
    "docs": ("mkdocs", "mkdocstrings", "grimp"),
    "onnx": ("onnx", "onnxscript", "onnxruntime"),
    "openvino": ("openvino", "nncf"),
    "prune": ("torch_pruning",),
    "wandb": ("wandb",),
}

settings.register_profile("dev", deadline=None)
settings.register_profile(
    "ci", deadline=None, derandomize=True, database=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("ci" if IN_CI else "dev")


@pytest.fixture(scope="session")
def medmaskrcnn_data() -> Path:
    """The folder of real labelled scans, or a skip that says how to give one."""
    folder = os.environ.get("MEDMASKRCNN_DATA")
    if not folder:
        pytest.skip("MEDMASKRCNN_DATA is not set: it names the folder of real scans that this test reads")
    if not Path(folder).is_dir():
        pytest.fail(f"MEDMASKRCNN_DATA={folder} is no folder")
    return Path(folder)


@pytest.fixture
def locked_folder() -> Iterator[Path]:
    """An empty folder that the test may not write into, not even as root (as in CI): root turns into nobody for it."""
    if sys.platform == "win32":
        pytest.skip("permissions of folders work otherwise on Windows")
    folder = Path(tempfile.mkdtemp(prefix="locked-"))  # not below tmp_path, which nobody may not even enter
    folder.chmod(0o555)
    was_root = os.geteuid() == 0
    if was_root:
        os.seteuid(NOBODY)
    try:
        yield folder
    finally:
        if was_root:
            os.seteuid(0)
        folder.chmod(0o755)
        shutil.rmtree(folder)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run tests that take ``device`` on every device there is."""
    if "device" not in metafunc.fixturenames:
        return
    import torch  # here: 2 s that a run of tests without tensors need not pay

    names = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
    marks = {"cpu": (), "cuda": (pytest.mark.gpu,)}
    metafunc.parametrize("device", [pytest.param(torch.device(n), marks=marks[n], id=n) for n in names])


def pytest_collection_finish() -> None:
    """Keep the collector from looking through a million objects of torch, MONAI and napari again and again."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files of long tests first, so that two processes end together."""
    long = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in long)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test whose ``needs`` marker names something that the system lacks."""
    for marker in item.iter_markers("needs"):
        missing = missing_needs(*marker.args, **marker.kwargs)
        if missing:
            pytest.skip(missing)


def missing_needs(*programs: str, package: str = "", display: bool = False, extra: str = "") -> str | None:
    """What is missing of what a test needs, as the reason of its skip; None where all is there."""
    if extra and not all(map(find_spec, MODULES_OF_EXTRA[extra])):
        return f"needs pip install 'medmaskrcnn[{extra}]'"
    absent = [program for program in programs if shutil.which(program) is None]
    if absent:
        return f"needs {', '.join(absent)} (package {package or absent[0]})"
    if display and sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        return "needs a display (system packages xvfb and xauth; then run under xvfb-run)"
    return None


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]):
    """In CI, turn every skip that is not about data or a device into a failure."""
    report = yield
    if IN_CI and report.skipped and not hasattr(report, "wasxfail"):
        reason = skip_reason(report)
        if not SKIPS_ALLOWED_IN_CI.search(reason):
            report.outcome = "failed"
            report.longrepr = f"{item.nodeid} was skipped, which CI does not allow: {reason}"
    return report


def skip_reason(report: pytest.TestReport) -> str:
    """The words a test was skipped with."""
    text = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return text.removeprefix("Skipped: ")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say at the end which tests were left out, and what would bring them in."""
    skipped = Counter(skip_reason(report) for report in terminalreporter.stats.get("skipped", []))
    if skipped:
        terminalreporter.section("left out")
        for reason, count in skipped.most_common():
            terminalreporter.line(f"{count:4d} test{'s' if count > 1 else ' '}  {reason}")
