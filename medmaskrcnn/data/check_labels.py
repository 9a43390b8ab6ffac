"""What the check finds in labels that can be read, and would ruin a training all the same.

Each function looks at the fingerprints of all cases and returns what is to be told.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Sequence

import numpy as np

from medmaskrcnn.data.case_fingerprint import CaseFingerprint, ObjectFacts
from medmaskrcnn.data.class_kinds import is_lesion, is_single_organ
from medmaskrcnn.data.findings import Finding, Level, count, some
from medmaskrcnn.data.manifest import FOR_TRAINING, Manifest

FEW_VOXELS = 5
"""Objects with fewer voxels than this are reported."""

_MOST = 0.5  # share of objects or cases from which it is not chance
_MANY = 0.05  # share of the cases
_PARTS = 0.2  # share of a class's objects in several parts
_BOXES = 0.9  # share of a class's objects that fill their boxes
_BOX_SIDE = 4  # voxels along at least two axes; smaller objects fill their boxes often
_FEWEST_OBJECTS, _MANY_OBJECTS = 5, 50
_FEWEST_PICTURES = 20
_ALIKE, _MORE_ALIKE = 0.8, 0.15  # correlation of pictures that follow each other, and by how much it exceeds chance
_NO_CLASS = re.compile(r"(label[ _]?)?255|background|ignored?|void|unlabel+ed|don'?t care", re.IGNORECASE)


def label_findings(manifest: Manifest, fingerprints: Sequence[CaseFingerprint]) -> list[Finding]:
    """All findings of this module."""
    looks: tuple[Callable[[Manifest, Sequence[CaseFingerprint]], list[Finding]], ...] = (
        _nothing_labelled,
        _no_classes,
        _parts,
        _specks,
        _boxes,
        _slices,
        _annotated,
        _ignored,
        _pictures_of_one_scan,
    )
    return [finding for look in looks for finding in look(manifest, fingerprints)]


def _nothing_labelled(manifest: Manifest, fingerprints: Sequence[CaseFingerprint]) -> list[Finding]:
    """No object at all is an error; in most cases none is a warning, in some a note."""
    learnt = [one for one in fingerprints if one.split in FOR_TRAINING]
    if learnt and not any(one.objects for one in learnt):
        text = f"no case for training holds an object: the labels of all {len(learnt)} are empty"
        return [Finding("error", None, text)]
    empty = [one.id for one in fingerprints if not one.objects]
    if not empty:
        return []
    if len(empty) > _MOST * len(fingerprints):
        text = f"most cases hold no object, {len(empty)} of {len(fingerprints)}: {some(empty)}"
        return [Finding("warning", None, f"{text}. Are their labels complete?")]
    return [Finding("note", None, f"no object, which is fine, in {count(len(empty), 'case')}: {some(empty)}")]


def _no_classes(manifest: Manifest, fingerprints: Sequence[CaseFingerprint]) -> list[Finding]:
    named = [name for name in manifest.class_names if _NO_CLASS.fullmatch(name.strip())]
    if not named:
        return []
    text = (
        f"{', '.join(named)}: named as a class, though the name says that it is none. Voxels to ignore (255 by custom) "
        "can be marked so in the conversion"
    )
    return [Finding("warning", None, text)]


def _parts(manifest: Manifest, fingerprints: Sequence[CaseFingerprint]) -> list[Finding]:
    """Classes whose objects lie in several separate parts each; not where slices between were left out."""
    found = []
    whole = [one for one in fingerprints if one.coverage is None or not one.coverage.gaps]
    for name, objects in _by_class(whole).items():
        several = [one for one in objects if one.parts > 1]
        if is_single_organ(name) or len(several) < _PARTS * len(objects):
            continue
        parts = sum(one.parts for one in objects)
        text = (
            f"{name}: {count(len(objects), 'object')} in {parts} separate parts. If each part is an object of its own, "
            "convert the data with the rule 'components'"
        )
        sure = is_lesion(name) or len(several) > _MOST * len(objects)
        found.append(Finding("warning" if sure else "note", None, text))
    return found


def _specks(manifest: Manifest, fingerprints: Sequence[CaseFingerprint]) -> list[Finding]:
    found = []
    for name, objects in _by_class(fingerprints).items():
        few = sum(one.voxels < FEW_VOXELS for one in objects)
        if len(objects) >= _MANY_OBJECTS and few > _MOST * len(objects):
            text = (
                f"{name}: {few} of {len(objects)} objects have fewer than {FEW_VOXELS} voxels. Labels that were "
                "compressed or resized by interpolation look like this; specks can be left out in the conversion"
            )
            found.append(Finding("warning", None, text))
    return found


def _boxes(manifest: Manifest, fingerprints: Sequence[CaseFingerprint]) -> list[Finding]:
    found = []
    for name, objects in _by_class(fingerprints).items():
        large = [one for one in objects if sum(side >= _BOX_SIDE for side in one.extent) >= 2]
        full = [one for one in large if one.voxels == np.prod(one.extent)]
        if len(large) >= _FEWEST_OBJECTS and len(full) >= _BOXES * len(large):
            text = f"{name}: {len(full)} of {len(large)} objects fill their boxes. Are these boxes, not outlines?"
            found.append(Finding("warning", None, text))
    return found


def _slices(manifest: Manifest, fingerprints: Sequence[CaseFingerprint]) -> list[Finding]:
    """Labels in a part of the slices."""
    found = []
    covered = [(one.id, one.coverage) for one in fingerprints if one.coverage]
    apart = [(name, c) for name, c in covered if c.gaps]
    if apart:
        name, c = apart[0]
        text = (
            f"labels lie in single slices with gaps between in {count(len(apart), 'case')}: {name} has them in "
            f"{c.labelled} of {c.slices} slices ({c.first + 1} to {c.last + 1}). In the gaps the objects would be "
            "learnt as background"
        )
        found.append(Finding("warning", None, f"{text}: {some([name for name, _ in apart])}"))
    cut = [(name, c) for name, c in covered if c.abrupt]
    if cut:
        name, c = cut[0]
        text = (
            f"labels end abruptly inside the scan in {count(len(cut), 'case')}: those of {name} cover {c.labelled} of "
            f"{c.slices} slices ({c.first + 1} to {c.last + 1}) and end with a large cross section. Were the other "
            "slices labelled? What is not labelled there would be learnt as background"
        )
        level: Level = "warning" if len(cut) >= _MANY * len(covered) else "note"
        found.append(Finding(level, None, f"{text}: {some([name for name, _ in cut])}"))
    return found


def _annotated(manifest: Manifest, fingerprints: Sequence[CaseFingerprint]) -> list[Finding]:
    """How much of the data is partly labelled."""
    found = []
    partly = [case for case in manifest.cases if len(manifest.annotated_in(case)) < len(manifest.class_names)]
    if not partly:
        return []
    nothing = [case.id for case in partly if not manifest.annotated_in(case)]
    if nothing:
        text = f"no class was annotated in {count(len(nothing), 'case')}, from which nothing is learnt: {some(nothing)}"
        found.append(Finding("warning", None, text))
    learnt = [case for case in manifest.cases if case.split in FOR_TRAINING]
    never = [name for name in manifest.class_names if not any(name in manifest.annotated_in(case) for case in learnt)]
    if never:
        found.append(Finding("warning", None, f"annotated in no case for training: {', '.join(never)}"))
    text = (
        f"partly labelled: {len(partly)} of {count(len(manifest.cases), 'case')} are annotated with some classes only; "
        f"the others are unknown there ({some([case.id for case in partly])})"
    )
    return [*found, Finding("note", None, text)]


def _ignored(manifest: Manifest, fingerprints: Sequence[CaseFingerprint]) -> list[Finding]:
    found = []
    holding = [one for one in fingerprints if one.ignored_share]
    much = [one.id for one in holding if one.ignored_share > _MOST]
    if much:
        text = f"more than half of the scan is to be ignored in {count(len(much), 'case')}: {some(much)}"
        found.append(Finding("warning", None, text))
    if holding:
        share = float(np.mean([one.ignored_share for one in holding]))
        text = f"regions to ignore in {count(len(holding), 'case')}, {share:.2%} of their voxels in the mean"
        found.append(Finding("note", None, text))
    return found


def _pictures_of_one_scan(manifest: Manifest, fingerprints: Sequence[CaseFingerprint]) -> list[Finding]:
    """Pictures that follow each other by name and look alike, though each is a patient of its own."""
    pictures = sorted((one for one in fingerprints if one.thumbnail is not None), key=lambda one: _natural(one.id))
    if len(pictures) < _FEWEST_PICTURES or len({one.patient for one in pictures}) < len(pictures):
        return []
    looks = np.array([one.thumbnail for one in pictures])
    following = (looks[:-1] * looks[1:]).mean(axis=1)
    chance = (looks * np.roll(looks, len(looks) // 2, axis=0)).mean(axis=1)
    alike, expected = float(np.median(following)), float(np.median(chance))
    if alike < _ALIKE or alike - expected < _MORE_ALIKE:
        return []
    text = (
        f"each of {len(pictures)} pictures is a patient of its own, but those that follow each other by name look "
        f"alike (correlation {alike:.2f}, of others {expected:.2f}). Slices of one scan? Say which patient each is of, "
        "so that no patient is in training and test"
    )
    return [Finding("warning", None, text)]


def _by_class(fingerprints: Sequence[CaseFingerprint]) -> dict[str, list[ObjectFacts]]:
    found: dict[str, list[ObjectFacts]] = defaultdict(list)
    for one in fingerprints:
        for item in one.objects:
            found[item.class_name].append(item)
    return found


def _natural(name: str) -> list[tuple[int, str]]:
    """Sorting key by which ``c2`` comes before ``c10``."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]
