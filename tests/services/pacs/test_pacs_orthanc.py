"""Runs with_orthanc.py where there is no network but this machine's: Orthanc listens on every address it finds."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PLUGINS = ("/usr/share/orthanc/plugins/libOrthancDicomWeb.so", "/usr/lib/orthanc/libOrthancDicomWeb.so")


def without_network() -> list[str]:
    """A prefix that leaves a program no network but itself, where the system allows that."""
    prefix = ["unshare", "-rn", "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]
    if shutil.which("unshare") and not subprocess.run([*prefix, "true"], capture_output=True, check=False).returncode:
        return prefix
    return []


@pytest.mark.needs("Orthanc", package="orthanc")
@pytest.mark.slow
def test_with_a_real_archive(tmp_path: Path):
    if not any(Path(plugin).exists() for plugin in PLUGINS):
        pytest.skip("needs Orthanc's DICOMweb plugin (system package orthanc-dicomweb)")
    tests = Path(__file__).with_name("with_orthanc.py")
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        *("-p", "no:cacheprovider", "-p", "no:napari", "-p", "no:pytest-qt"),
        f"--basetemp={tmp_path / 'in'}",
        str(tests),
    ]
    done = subprocess.run([*without_network(), *command], capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert re.search(r"[5-9] passed", done.stdout), done.stdout[-500:]
