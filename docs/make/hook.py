"""Adds to the site what comes from the code: model cards, commands, all names, imports, a trace, concepts' figures.

MkDocs calls :func:`on_files` at every build, so that nothing of it can be out of date, and nothing of it is committed.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

sys.path.insert(0, str(Path(__file__).resolve().parent))  # the folder holds scripts, it is no package

import ablations
import commands
import example_trace
import figures
import imports
import model_cards
import rooms


def generated() -> dict[str, str | bytes]:
    """Everything that is made from the code, by its path on the site."""
    made: dict[str, str | bytes] = {
        module.TARGET: module.text() for module in (model_cards, commands, imports, ablations, example_trace)
    }
    made[imports.PICTURE] = imports.picture()
    return made | rooms.pages() | figures.drawings()


def on_files(files: Files, *, config: MkDocsConfig, **_: Any) -> Files:
    """Put the generated files beside those of ``docs/``."""
    for path, content in generated().items():
        files.append(File.generated(config, path, content=content))
    return files
