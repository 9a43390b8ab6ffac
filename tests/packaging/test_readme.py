"""What README.md and CONTRIBUTING.md tell a reader to type works: commands, options, extras, targets, links, Python."""

from __future__ import annotations

import re
import tomllib
from functools import cache
from pathlib import Path

import pytest
from typer.testing import CliRunner

from medmaskrcnn.cli.main import app

CHECKOUT = Path(__file__).parents[2]
DOCUMENTS = ["README.md", "CONTRIBUTING.md"]
FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
SHELLS = {"bash", "sh", "shell", "console", "powershell", "bat"}
STUDY = "study"  # the folder of DICOM that the README's Python snippets read


def blocks(document: str, languages: set[str]) -> list[str]:
    """The fenced code blocks of a document in any of these languages."""
    text = (CHECKOUT / document).read_text(encoding="utf-8")
    return [body for language, body in FENCE.findall(text) if language in languages]


def shell_lines(document: str) -> list[str]:
    """Commands of all shell blocks, without prompts and comments, continuations joined."""
    text = "\n".join(blocks(document, SHELLS)).replace("\\\n", " ")
    return [line.split(" #")[0].strip().removeprefix("$ ") for line in text.splitlines() if line.strip()]


@cache
def help_of(command: str) -> str:
    """The help of one command of medmaskrcnn."""
    wide = {"COLUMNS": "200", "TERM": "dumb", "NO_COLOR": "1"}
    done = CliRunner(env=wide).invoke(app, [command, "--help"])
    assert done.exit_code == 0, f"the documents name `medmaskrcnn {command}`: {done.output}"
    return done.output


@pytest.mark.parametrize("document", DOCUMENTS)
def test_commands_and_options_exist(document):
    for line in shell_lines(document):
        found = re.match(r"(?:\S*/)?medmaskrcnn\s+(\w+)(.*)", line)
        if found:
            known = set(re.findall(r"(?<![\w-])--?[A-Za-z][\w-]*", help_of(found[1])))
            for option in re.findall(r"(?<=\s)--?[A-Za-z][\w-]*", found[2]):
                assert option in known, (
                    f"{document}: `{line}` has {option}, which `medmaskrcnn {found[1]}` does not know"
                )


@pytest.mark.parametrize("document", DOCUMENTS)
def test_extras_that_are_named_exist(document):
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    text = (CHECKOUT / document).read_text(encoding="utf-8")
    for names in re.findall(r"(?:medmaskrcnn|install\s+(?:-e\s+)?[\"']?\.)\[([\w,-]+)\]", text):
        assert set(names.split(",")) <= set(project["optional-dependencies"])


@pytest.mark.parametrize("document", DOCUMENTS)
def test_make_targets_that_are_named_exist(document):
    makefile = (CHECKOUT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^(\w[\w-]*):", makefile, re.MULTILINE))
    text = (CHECKOUT / document).read_text(encoding="utf-8")
    assert set(re.findall(r"`make (\w+)", text)) <= targets


@pytest.mark.parametrize(
    "document", [*DOCUMENTS, *(f"docs/decisions/{p.name}" for p in (CHECKOUT / "docs/decisions").glob("*.md"))]
)
def test_links_to_files_lead_somewhere(document):
    text = (CHECKOUT / document).read_text(encoding="utf-8")
    targets = re.findall(r"\]\(([^)#\s]+)", text) + re.findall(r'src="([^"]+)"', text)
    local = [target for target in targets if not target.startswith(("http", "mailto:"))]
    assert [target for target in local if not (CHECKOUT / document).parent.joinpath(target).exists()] == []


@pytest.fixture(scope="module")
def folder_of_a_user(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which ``study`` is a CT study of a small phantom."""
    from medmaskrcnn_datasets.dicom_series import write_dicom_series
    from medmaskrcnn_datasets.phantom import PhantomSettings, make_phantom

    folder = tmp_path_factory.mktemp("user")
    write_dicom_series(
        make_phantom(PhantomSettings(seed=1, shape=(24, 96, 96), spacing_mm=(8.0, 4.0, 4.0))), folder / STUDY
    )
    return folder


@pytest.mark.slow
def test_python_of_the_readme_runs(folder_of_a_user, monkeypatch):
    monkeypatch.chdir(folder_of_a_user)
    snippets = blocks("README.md", {"python"})
    assert snippets, "the README shows no Python"
    names: dict[str, object] = {}
    for snippet in snippets:
        exec(compile(snippet, "README.md", "exec"), names)
