"""Copies of reviews with unsaved changes, from which they are restored after a crash; without napari or Qt.

Each review has a folder below the one for all: ``instances.npz`` and ``run.json``, as every result has them, and
``review.json`` with its title, its own folder, and the process that holds it. A folder whose process is gone was
abandoned, and its review can be restored. What was saved or given up by the user is deleted.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4
from weakref import WeakKeyDictionary

import psutil

from medmaskrcnn.errors import MedMaskRCNNError
from medmaskrcnn.export.write import write_result
from medmaskrcnn.structures.case_result import CaseResult
from medmaskrcnn.structures.volume import Volume
from medmaskrcnn.system.files import make_folder, write_bytes
from napari_medmaskrcnn.core.review_model import ReviewModel

REVIEW_FILE = "review.json"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Abandoned:
    """A copy of a review whose process has ended without saving it.

    Attributes:
        folder: The copy's folder.
        title: The review's title.
        when: When it was last written, seconds since the epoch.
        target: Where the review was saved before; ``None`` if nowhere.
    """

    folder: Path
    title: str
    when: float
    target: Path | None


class Autosave:
    """Writes copies on a thread, one at a time, so that the viewer does not wait for them.

    Args:
        home: The folder for all copies; it is made when the first one is written, readable by its owner alone.
    """

    def __init__(self, home: Path) -> None:
        self.home = home
        self._folders: WeakKeyDictionary[ReviewModel, Path] = WeakKeyDictionary()
        self._writer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="medmaskrcnn autosave")
        self._last: Future[None] | None = None

    def keep(self, review: ReviewModel) -> None:
        """Write a copy of a review as it is now, or delete the copy if everything in it is saved."""
        if not review.unsaved:
            self.forget(review)
            return
        folder = self._folders.setdefault(review, self.home / uuid4().hex)
        told = {"title": review.title, "target": str(review.folder) if review.folder else None, **_this_process()}
        self._last = self._writer.submit(_write, folder, review.to_result(), review.volume, told)

    def forget(self, review: ReviewModel) -> None:
        """Delete the copy of a review: it was saved, or given up by the user."""
        folder = self._folders.pop(review, None)
        if folder is not None:
            self._last = self._writer.submit(shutil.rmtree, folder, ignore_errors=True)

    def wait(self) -> None:
        """Wait until everything asked for so far is on the disk."""
        if self._last is not None:
            self._last.result()

    def abandoned(self) -> list[Abandoned]:
        """The copies that other processes left behind, the latest first."""
        found = [one for file in self.home.glob(f"*/{REVIEW_FILE}") if (one := _read(file)) is not None]
        return sorted(found, key=lambda one: -one.when)

    def adopt(self, copy: Abandoned, review: ReviewModel) -> None:
        """A review was restored from a copy, which is from now on the copy of that review."""
        self._folders[review] = copy.folder
        self.keep(review)


def discard(copy: Abandoned) -> None:
    """Delete an abandoned copy."""
    shutil.rmtree(copy.folder, ignore_errors=True)


def _write(folder: Path, result: CaseResult, volume: Volume, told: Mapping[str, Any]) -> None:
    try:
        make_folder(folder.parent)
        if os.name != "nt":
            folder.parent.chmod(0o700)  # run.json names the scan's files
        write_result(result, volume, folder, formats=[], overwrite=True)
        write_bytes(folder / REVIEW_FILE, json.dumps({**told, "when": time.time()}).encode())
    except (MedMaskRCNNError, OSError) as error:  # a full disk must not end the review
        logger.warning("the review could not be copied to %s: %s", folder, error)


def _this_process() -> dict[str, Any]:
    process = psutil.Process()
    return {"pid": process.pid, "started": process.create_time()}


def _read(file: Path) -> Abandoned | None:
    """The copy that a file describes; ``None`` if its process is alive, or the file is damaged."""
    try:
        told = json.loads(file.read_text(encoding="utf-8"))
        if _is_alive(int(told["pid"]), float(told["started"])):
            return None
        target = told["target"]
        return Abandoned(file.parent, str(told["title"]), float(told["when"]), Path(target) if target else None)
    except (OSError, ValueError, KeyError, TypeError) as error:
        logger.info("%s: no copy of a review: %s", file, error)
        return None


def _is_alive(pid: int, started: float) -> bool:
    """Whether the process of that number is the one that began then; numbers are used again."""
    try:
        return abs(psutil.Process(pid).create_time() - started) < 1.0
    except psutil.Error:
        return False
