"""Synthetic CT scans of a trunk with organs and tumours, every instance labelled. Start reading here.

``settings -> anatomy -> tumours -> painting -> Phantom``. It is not derived from patient data: a test object for
software, not a model of disease.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medmaskrcnn.structures.volume import PHANTOM_GENERATOR, Provenance, Volume
from medmaskrcnn_datasets.anatomy import CLASS_NAMES, TUMOUR, Structure, make_anatomy, scale_to
from medmaskrcnn_datasets.painting import paint, random_body, random_textures
from medmaskrcnn_datasets.phantom_settings import PhantomSettings, random_settings
from medmaskrcnn_datasets.tumours import place_tumours

__all__ = ["CLASS_NAMES", "Phantom", "PhantomInstance", "PhantomSettings", "make_phantom", "random_settings"]

LEAST_LABELLED_MM3 = 2000.0
"""An organ cut off by the scan's edge to less than this stays unlabelled, since it is not recognisable."""


@dataclass(frozen=True)
class PhantomInstance:
    """One labelled object.

    Attributes:
        value: Its value in the label map.
        class_name: One of :data:`CLASS_NAMES`.
        part_of: Value of the organ it lies in (tumours), else ``None``. The organ includes it.
        diameter_mm: Longest axis of a tumour, else ``None``.
        volume_mm3: Volume within the scan including its parts, partial voxels by their share.
    """

    value: int
    class_name: str
    part_of: int | None
    diameter_mm: float | None
    volume_mm3: float


@dataclass(frozen=True, eq=False)
class Phantom:
    """A synthetic scan with its ground truth.

    Attributes:
        settings: Its settings.
        volume: int16 HU, ``(1, D, H, W)``, modality CT.
        labels: ``(D, H, W)`` uint16 on the volume's grid; 0 is unlabelled. A tumour's voxels carry the tumour's
            value, not its organ's.
        instances: The labelled objects by ascending value; each has at least one voxel.
    """

    settings: PhantomSettings
    volume: Volume
    labels: NDArray[np.uint16]
    instances: tuple[PhantomInstance, ...]


def make_phantom(settings: PhantomSettings) -> Phantom:
    """Make the phantom described by the settings; the same settings give the same bytes.

    Example:
        >>> phantom = make_phantom(PhantomSettings(seed=7, shape=(24, 64, 64), spacing_mm=(12.0, 6.0, 6.0)))
        >>> phantom.volume.array.shape, phantom.labels.shape
        ((1, 24, 64, 64), (24, 64, 64))
    """
    person, growth, texture, noise = (np.random.default_rng([settings.seed, 2, part]) for part in range(4))
    anatomy = make_anatomy(person)
    body = random_body(settings.grid, scale_to(settings.body_width_mm, person), person)
    tumours = place_tumours(body, anatomy, count=settings.tumours, touching=settings.touching, rng=growth)
    structures = [*tumours, *anatomy]
    textures = random_textures(settings.grid, texture)
    hu, owner, volumes = paint(body, structures, textures, noise_hu=settings.noise_hu, rng=noise)
    labels, instances = _label(owner, structures, volumes, len(tumours))
    volume = Volume(
        hu[None],
        settings.grid,
        modality="CT",
        window=(50.0, 400.0),
        provenance=Provenance(generator=PHANTOM_GENERATOR),
    )
    return Phantom(settings, volume, labels, instances)


def _label(
    owner: NDArray[np.uint16], structures: Sequence[Structure], volumes: NDArray[np.float64], n_tumours: int
) -> tuple[NDArray[np.uint16], tuple[PhantomInstance, ...]]:
    """Number the labelled structures, organs first in the order of :data:`CLASS_NAMES`, tumours last."""
    seen = np.bincount(owner.ravel(), minlength=len(structures) + 1)[1:] > 0
    total = volumes.copy()
    hosts = {i: n_tumours + s.host for i, s in enumerate(structures) if s.host is not None and seen[i]}
    for tumour, host in hosts.items():
        total[host] += volumes[tumour]
    kept = [
        i
        for i, s in enumerate(structures)
        if s.class_name
        and seen[i]
        and (s.class_name == TUMOUR or total[i] >= LEAST_LABELLED_MM3 or i in hosts.values())
    ]
    kept.sort(key=lambda i: (CLASS_NAMES.index(structures[i].class_name or ""), i))
    value = {i: n + 1 for n, i in enumerate(kept)}
    table = np.zeros(len(structures) + 1, np.uint16)
    for i, number in value.items():
        table[i + 1] = number
    instances = tuple(
        PhantomInstance(
            value=value[i],
            class_name=structures[i].class_name or "",
            part_of=value[hosts[i]] if i in hosts else None,
            diameter_mm=structures[i].diameter_mm,
            volume_mm3=float(total[i]),
        )
        for i in kept
    )
    return table[owner], instances
