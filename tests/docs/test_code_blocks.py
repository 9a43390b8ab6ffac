"""Every block of Python or shell in the documentation runs, or says why it is not run.

The blocks of a page run one after the other in one folder, in which ``study`` (or ``archive``) is the CT series of a
small phantom; the model ``phantom-ct`` is the one that ships, made to look at coarser voxels. Before a block that
cannot run stands ``<!-- not run: REASON -->``.
"""

from __future__ import annotations

import re
import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from medmaskrcnn.cli.main import app

DOCS = Path(__file__).parents[2] / "docs"
BLOCK = re.compile(
    r"(?:^[ \t]*<!--\s*not run:\s*(?P<reason>[^>]*?)\s*-->\s*\n+)?^(?P<indent>[ \t]*)```(?P<kind>\w*)[^\n]*\n"
    r"(?P<body>.*?)^(?P=indent)```",
    re.MULTILINE | re.DOTALL,
)
RUN = {"python", "bash"}
NOT_CODE = {"text", "json", "yaml", "toml", ""}


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its lines, and why it is not run if it is not."""

    kind: str
    body: str
    reason: str | None


def blocks_of(path: Path) -> list[Block]:
    """All fenced blocks of a page."""
    found = []
    for match in BLOCK.finditer(path.read_text(encoding="utf-8")):
        indent = match["indent"]
        body = "\n".join(line.removeprefix(indent) for line in match["body"].splitlines())
        found.append(Block(match["kind"], body, match["reason"]))
    return found


PAGES = sorted(path for path in DOCS.rglob("*.md") if blocks_of(path))
RUNNING = [path for path in PAGES if any(b.kind in RUN and b.reason is None for b in blocks_of(path))]


def name_of(path: Path) -> str:
    """A page's name in the report."""
    return path.relative_to(DOCS).as_posix()


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_blocks_have_a_language_and_those_not_run_a_reason(page):
    fences = len(re.findall(r"^[ \t]*```", page.read_text(encoding="utf-8"), re.MULTILINE))
    assert fences == 2 * len(blocks_of(page)), "a block does not end, or is indented otherwise than it began"
    for block in blocks_of(page):
        assert block.kind in RUN | NOT_CODE, f"```{block.kind} is neither run nor known as no code"
        assert block.reason is None or len(block.reason) > 3


@pytest.mark.slow
@pytest.mark.parametrize("page", RUNNING, ids=name_of)
@pytest.mark.usefixtures("quick_phantom_ct")
def test_blocks_run(page, request, study, tmp_path, monkeypatch):
    text = page.read_text(encoding="utf-8")
    shutil.copytree(study, tmp_path / ("archive" if "archive/" in text else "study"))
    for name in ("Task04_Hippocampus", "patients"):
        if f"{name}/" in text:
            shutil.copytree(request.getfixturevalue("labelled") / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    names: dict[str, object] = {"__name__": "__main__"}
    for block in blocks_of(page):
        if block.reason is not None or block.kind not in RUN:
            continue
        if block.kind == "python":
            exec(compile(block.body, name_of(page), "exec"), names)
        else:
            for line in commands(block.body):
                run_line(line)


def commands(body: str) -> list[list[str]]:
    """The words of each command of a shell block, continued lines joined, comments left out."""
    lines = body.replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def run_line(words: list[str]) -> None:
    """Run a command in this process, so that nothing is imported anew."""
    if words[0] == "medmaskrcnn":
        done = CliRunner().invoke(app, words[1:])
        assert done.exit_code == 0, f"{shlex.join(words)}: {done.output} {done.exception!r}"
    elif words[:3] == ["python", "-m", "medmaskrcnn_datasets"]:
        from medmaskrcnn_datasets.command import app as datasets_app

        done = CliRunner().invoke(datasets_app, words[3:])
        assert done.exit_code == 0, f"{shlex.join(words)}: {done.output} {done.exception!r}"
    else:
        pytest.fail(f"no rule for `{shlex.join(words)}`: give it one, or say why the block is not run")
