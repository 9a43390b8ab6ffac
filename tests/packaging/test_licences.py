"""No GPL in what the package brings along: the core's requirements and the extras a user would install."""

from __future__ import annotations

import re
from collections.abc import Iterable
from importlib.metadata import Distribution, PackageNotFoundError, distribution

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

# `test` and `dev` are for developers: PyQt6 (GPL) is in `test` alone.
USER_EXTRAS = ["", "napari", "cluster", "pacs", "tune", "openvino", "onnx", "prune", "bundle"]
GPL = re.compile(r"(?<![L])\b[A]?GPL|GNU (Affero )?General Public", re.IGNORECASE)
LGPL = re.compile(r"\bLGPL|GNU (Lesser|Library) General Public", re.IGNORECASE)
LICENCE_NAME_LENGTH = 200  # some packages put the whole text of every bundled library into License; a name is shorter


def closure(root: str, extra: str) -> tuple[dict[str, Distribution], set[str]]:
    """Every distribution that ``root[extra]`` requires, directly or not; and the names that are not installed here."""
    found: dict[str, Distribution] = {}
    absent: set[str] = set()
    seen: set[tuple[str, frozenset[str]]] = set()
    waiting = [Requirement(f"{root}[{extra}]" if extra else root)]
    while waiting:
        wanted = waiting.pop()
        name = canonicalize_name(wanted.name)
        if (name, frozenset(wanted.extras)) in seen:
            continue
        seen.add((name, frozenset(wanted.extras)))
        try:
            found[name] = distribution(name)
        except PackageNotFoundError:
            absent.add(name)
            continue
        waiting.extend(active_requirements(found[name], {"", *wanted.extras}))
    return found, absent


def active_requirements(owner: Distribution, extras: Iterable[str]) -> list[Requirement]:
    """The requirements of ``owner`` that hold on this platform with these extras."""
    wanted = [Requirement(line) for line in owner.requires or []]
    return [r for r in wanted if r.marker is None or any(r.marker.evaluate({"extra": extra}) for extra in extras)]


def licence_names(owner: Distribution) -> str:
    """The licence as the distribution's metadata names it: expression, classifiers, short License field."""
    metadata = owner.metadata
    names = [line for line in metadata.get_all("Classifier") or [] if line.startswith("License ::")]
    names.append(metadata.get("License-Expression") or "")
    free_text = metadata.get("License") or ""
    names.append(free_text if len(free_text) < LICENCE_NAME_LENGTH else free_text.splitlines()[0])
    return "; ".join(name for name in names if name)


def is_gpl(names: str) -> bool:
    """Whether it is GPL or AGPL; not LGPL, not GPL with GCC's runtime exception, not one choice of several."""
    if re.search(r"GPL[^;]*\bWITH GCC-exception", names) or " OR " in names:
        return False
    return bool(GPL.search(LGPL.sub("", names)))


@pytest.mark.parametrize("extra", USER_EXTRAS)
def test_no_gpl_in_what_a_user_installs(extra, record_property):
    found, _ = closure("medmaskrcnn", extra)
    assert "torch" in found  # the walk went somewhere
    licences = {name: licence_names(owner) for name, owner in found.items()}
    record_property("lgpl", sorted(name for name, words in licences.items() if LGPL.search(words)))
    assert {name: words for name, words in licences.items() if is_gpl(words)} == {}


@pytest.mark.parametrize("extra", ["", "napari"])
def test_the_walk_sees_every_requirement(extra):
    """`cluster`, `pacs` and `tune` are not installed for the tests; these are, so nothing may go unlooked at."""
    _, absent = closure("medmaskrcnn", extra)
    assert absent == set()


def test_no_licence_is_unknown():
    found, _ = closure("medmaskrcnn", "napari")
    del found["medmaskrcnn"]
    unnamed = {name for name, owner in found.items() if not licence_names(owner)}
    # NVIDIA's umbrella package names none; what it pulls in is NVIDIA's own and comes with torch.
    assert unnamed <= {"cuda-toolkit"}


def test_no_qt_binding_and_no_gpl_decoder_comes_along():
    found, _ = closure("medmaskrcnn", "napari")
    assert not {"pyqt5", "pyqt6", "pyside2", "pyside6", "pylibjpeg-libjpeg"} & set(found)


def test_the_rule_would_catch_pyqt6():
    assert is_gpl(licence_names(distribution("PyQt6")))


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ("GPL-3.0-only", True),
        ("License :: OSI Approved :: GNU General Public License v3 (GPLv3)", True),
        ("AGPL-3.0-or-later", True),
        ("GNU Affero General Public License v3", True),
        ("LGPL-3.0-only", False),
        ("License :: OSI Approved :: GNU Lesser General Public License v3 (LGPLv3)", False),
        ("GPL-2.0-only OR MIT", False),
        ("BSD-3-Clause AND GPL-3.0-or-later WITH GCC-exception-3.1", False),
        ("Apache-2.0", False),
    ],
)
def test_rule(names, expected):
    assert is_gpl(names) is expected
