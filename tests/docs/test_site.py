"""The site builds without a warning, every link on it leads somewhere, and it loads nothing from the net."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest

CHECKOUT = Path(__file__).parents[2]
pytestmark = [pytest.mark.slow, pytest.mark.needs(extra="docs")]


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The site, built as CI builds it."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "-d", str(folder)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1", "MPLBACKEND": "Agg"}
    done = subprocess.run(
        command, cwd=CHECKOUT, capture_output=True, text=True, check=False, env=environment, timeout=240
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WARNING" not in done.stdout + done.stderr
    return folder


class Page(HTMLParser):
    """Ids, links and what is loaded."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.ids |= {given.get("id", "")}
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        elif tag in {"script", "img", "iframe"} and given.get("src"):
            self.loaded.append(given["src"])
        elif tag == "link" and given.get("rel") in {"stylesheet", "icon", "preload", "preconnect", "modulepreload"}:
            self.loaded.append(given["href"])


def test_links_lead_somewhere(site):
    pages = {path: Page(path) for path in site.rglob("*.html")}
    assert len(pages) > 30
    for path, page in pages.items():
        if path.name == "404.html":
            continue
        for link in page.links:
            if re.match(r"(https?|mailto):", link):
                continue
            target, _, anchor = link.partition("#")
            there = (path.parent / unquote(target)).resolve() if target else path
            if there.is_dir():
                there /= "index.html"
            assert there.exists(), f"{path.relative_to(site)} links to {link}"
            if anchor and there in pages:
                assert unquote(anchor) in pages[there].ids, f"{path.relative_to(site)} links to {link}"


def test_nothing_is_loaded_from_the_net(site):
    for path in site.rglob("*.html"):
        assert [address for address in Page(path).loaded if address.startswith(("http", "//"))] == [], path
    for path in site.rglob("*.css"):
        assert not re.search(r"(url\(|@import)\s*[\"']?(https?:)?//", path.read_text(encoding="utf-8")), path


def test_reference_shows_what_docstrings_say(site):
    text = (site / "reference/network.html").read_text(encoding="utf-8")
    for words in ("detect", "(B, C, *spatial)", "every axis a multiple of the coarsest backbone stride"):
        assert words in text
    for page in (site / "reference").rglob("*.html"):
        assert not re.search(r":(func|meth|class|attr|data|mod):", page.read_text(encoding="utf-8")), page


def test_every_command_and_model_has_its_section(site):
    from medmaskrcnn.cli.main import app
    from medmaskrcnn.hub.model_file import shipped_models

    commands = Page(site / "reference/commands.html").ids
    assert {f"medmaskrcnn-{command.name}" for command in app.registered_commands} <= commands
    assert set(shipped_models()) <= Page(site / "models.html").ids


def test_example_trace_is_a_trace(site):
    text = (site / "example-trace.html").read_text(encoding="utf-8")
    assert "How phantom-ct read slice" in text and 'id="articles"' in text


def test_figures_are_drawn(site):
    for name in ("anchors", "levels", "roi-align", "coordinates"):
        assert (site / f"images/concepts/{name}.svg").stat().st_size > 5000
    assert "inference" in (site / "images/imports.svg").read_text(encoding="utf-8")


def test_every_public_name_is_in_the_reference(site):
    import medmaskrcnn

    ids = set().union(*(Page(page).ids for page in (site / "reference").glob("*.html")))
    homes = medmaskrcnn._HOMES
    assert [name for name, home in homes.items() if f"medmaskrcnn.{home}.{name}" not in ids] == []


def test_the_reference_shows_every_public_name(site):
    shown = {name for page in site.glob("reference/**/*.html") for name in Page(page).ids}
    packages = ("medmaskrcnn", "kernels/medmaskrcnn_kernels", "datasets/medmaskrcnn_datasets")
    packages += ("napari_plugin/napari_medmaskrcnn",)
    wanted = [name for package in packages for name in public_names(CHECKOUT / package)]
    assert len(wanted) > 1000
    assert [name for name in wanted if name not in shown] == []


def public_names(package: Path) -> Iterator[str]:
    """Dotted names of a package's public functions and classes, but those of files that are run."""
    for path in sorted(package.rglob("*.py")):
        if path.stem not in {"__init__", "__main__"}:
            module = path.relative_to(package.parent).with_suffix("").as_posix().replace("/", ".")
            for node in ast.parse(path.read_text(encoding="utf-8")).body:
                defined = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
                if defined and not node.name.startswith("_"):
                    yield f"{module}.{node.name}"
