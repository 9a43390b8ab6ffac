"""Several labelled data sets with different classes as one manifest, from which one model learns all of them.

Each case stays annotated with its own data set's classes: what another set labels is unknown in it, neither object nor
background.
"""

from __future__ import annotations

import logging
import math
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from medmaskrcnn.data.manifest import Manifest, ManifestCase, ManifestInstance, Paths, read_manifest
from medmaskrcnn.errors import InvalidOptionError, ReadError
from medmaskrcnn.structures.class_names import one_spelling
from medmaskrcnn.system.files import make_folder
from medmaskrcnn_datasets.assemble import OnEvent
from medmaskrcnn_datasets.manifest import located, write_manifest

_LOG = logging.getLogger(__name__)


def join_datasets(
    manifests: Sequence[Path | str],
    out: Path | str,
    *,
    rename: Mapping[str, str] | None = None,
    name: str | None = None,
    shares: Sequence[float] | None = None,
    on_event: OnEvent | None = None,
) -> Path:
    """Write one manifest for several.

    Args:
        manifests: Their files.
        out: The manifest to write, ``joined.json``; paths in it are relative to its folder where they lie under it.
        rename: Classes that are called otherwise in one of the sets, and the name they have in the others. Names that
            differ only in their spelling (``kidney_right``, ``Right kidney``) are one class; the first spelling holds.
        name: Name of the data set; by default the names of the sets.
        shares: How often each set is drawn in training, relative to the others; by default by the square root of its
            number of training cases, so that a small set is not drowned by a large one.
        on_event: Called with what was assumed; by default it is logged.

    Returns:
        Path of the manifest. Ids and patients that occur in several sets have their set's name in front, so that
        patients of different sets stay apart.

    Raises:
        ReadError: if a manifest cannot be read, or the sets name other sequences as channels.
        InvalidOptionError: if ``rename`` names a class that no set has, or ``shares`` are not one positive number for
            each set.
        OutputError: if the file cannot be written.

    Example:
        >>> join_datasets(["abdomen/manifest.json", "lung/manifest.json"], "joined.json")  # doctest: +SKIP
    """
    tell = on_event or _LOG.warning
    sets = [read_manifest(path) for path in manifests]
    target = Path(out).resolve()
    make_folder(target.parent)
    spelling = one_spelling([one for each in sets for one in each.class_names], rename)
    for old, new in spelling.items():
        if old != new:
            tell(f"the class {old!r} is called {new!r}")
    labels = _set_names(sets)
    weights = _weights(sets, shares)
    several = {
        "id": _several(tuple(case.id for case in one.cases) for one in sets),
        "patient": _several(tuple(case.patient for case in one.cases) for one in sets),
    }
    class_names = tuple(dict.fromkeys(spelling[one] for each in sets for one in each.class_names))
    cases = tuple(
        _joined(case, one, label, weight, several, spelling, class_names, target.parent)
        for one, label, weight in zip(sets, labels, weights, strict=True)
        for case in one.cases
    )
    modalities = {one.modality for one in sets}
    channel_names = _channel_names(sets, labels)
    joined = Manifest(
        name=name or " + ".join(labels),
        modality=modalities.pop() if len(modalities) == 1 else None,
        licence="; ".join(dict.fromkeys(one.licence for one in sets if one.licence)),
        class_names=class_names,
        channel_names=channel_names,
        left_out=tuple(f"{label}: {text}" for one, label in zip(sets, labels, strict=True) for text in one.left_out),
        cases=cases,
    )
    drawn = [weight * len(_learnt(one)) for one, weight in zip(sets, weights, strict=True)]
    for one, label, samples in zip(sets, labels, drawn, strict=True):
        own = dict.fromkeys(spelling[name] for name in one.class_names)
        tell(
            f"{label}: {len(one.cases)} cases, annotated with {', '.join(own)}; "
            f"{samples / sum(drawn):.0%} of the training samples"
        )
    return write_manifest(joined, target)


def _learnt(one: Manifest) -> list[ManifestCase]:
    """Cases to train on; all where none is, so that shares are defined."""
    return [case for case in one.cases if case.split in (None, "train")] or list(one.cases)


def _weights(sets: Sequence[Manifest], shares: Sequence[float] | None) -> list[float]:
    """The weight of each case of each set; 1 for the set whose cases are drawn least."""
    if shares is None:
        shares = [math.sqrt(len(_learnt(one))) for one in sets]
    if len(shares) != len(sets) or not all(math.isfinite(share) and share > 0 for share in shares):
        what = f"one positive number for each of {len(sets)} data sets is needed, got {list(shares)}"
        raise InvalidOptionError("shares", what)
    each = [share / len(_learnt(one)) for share, one in zip(shares, sets, strict=True)]
    return [weight / min(each) for weight in each]


def _joined(
    case: ManifestCase,
    source: Manifest,
    label: str,
    weight: float,
    several: Mapping[str, set[str]],
    spelling: Mapping[str, str],
    class_names: Sequence[str],
    folder: Path,
) -> ManifestCase:
    """A case of one set as a case of all."""
    annotated = {spelling[name] for name in source.annotated_in(case)}

    def place(paths: Paths) -> Paths:
        names = (paths,) if isinstance(paths, str) else paths
        found = tuple(located(Path(os.path.abspath(source.path(one))), folder) for one in names)  # noqa: PTH100 - links stay
        return found[0] if isinstance(paths, str) else found

    return case.model_copy(
        update={
            "id": f"{label}_{case.id}" if case.id in several["id"] else case.id,
            "patient": f"{label}_{case.patient}" if case.patient in several["patient"] else case.patient,
            "image": place(case.image),
            "label": None if case.label is None else place(case.label),
            "data_set": case.data_set or label,
            "instances": tuple(_renamed(one, spelling) for one in case.instances),
            "weight": case.weight * weight,
            "annotated": None if annotated == set(class_names) else tuple(n for n in class_names if n in annotated),
        }
    )


def _renamed(instance: ManifestInstance, spelling: Mapping[str, str]) -> ManifestInstance:
    new = None if instance.class_name is None else spelling[instance.class_name]
    return instance.model_copy(update={"class_name": new})


def _channel_names(sets: Sequence[Manifest], labels: Sequence[str]) -> tuple[str, ...]:
    """The channels of all sets, if any names them.

    Raises:
        ReadError: if two sets name them differently, case apart: a network would take one for the other.
    """
    named = {label: one.channel_names for one, label in zip(sets, labels, strict=True) if one.channel_names}
    if len({tuple(name.casefold() for name in names) for names in named.values()}) > 1:
        each = "; ".join(f"{label}: {', '.join(names)}" for label, names in named.items())
        raise ReadError(f"the channels of data sets that are joined must be the same, in the same order. {each}")
    return next(iter(named.values()), ())


def _set_names(sets: Sequence[Manifest]) -> list[str]:
    """A name for each set, numbered where several have one."""
    often = Counter(one.name for one in sets)
    return [f"{one.name}-{n}" if often[one.name] > 1 else one.name for n, one in enumerate(sets, start=1)]


def _several(names: Iterable[Sequence[str]]) -> set[str]:
    """Names that occur in more than one set."""
    often = Counter(name for each in names for name in set(each))
    return {name for name, n in often.items() if n > 1}
