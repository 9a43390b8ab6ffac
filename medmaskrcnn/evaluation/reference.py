"""The reference of a labelled case under the names that are evaluated: its objects, and its regions to ignore."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from medmaskrcnn.data.case_labels import LabelledScan
from medmaskrcnn.io.labels.label_set import LabelledObject, collect
from medmaskrcnn.structures.class_names import ClassMatch
from medmaskrcnn.structures.instances import Instances
from medmaskrcnn.structures.mask import BoolArray


@dataclass(frozen=True, eq=False)
class Reference:
    """What the prediction of a case is compared with.

    Attributes:
        instances: M instances with score 1 on the scan's grid: the objects, then the regions to ignore, one for each
            class for which they are to be ignored.
        crowd: ``(M,)`` which of them are regions to ignore.
        annotated: Evaluated classes that were annotated, with every class of the manifest that is one with them.
    """

    instances: Instances
    crowd: BoolArray
    annotated: tuple[str, ...]


def reference_of(scan: LabelledScan, match: ClassMatch) -> Reference:
    """The reference of a scan; ``match.second`` are the manifest's classes. Other classes are left out."""
    objects = [LabelledObject(match.second[o.class_name], o.mask) for o in scan.objects if o.class_name in match.second]
    regions = [
        LabelledObject(name, region.mask)
        for region in scan.ignored
        for name in match.names
        if region.class_name is None or match.second.get(region.class_name) == name
    ]
    found = collect(scan.volume.grid, [*objects, *regions], class_names=match.names).instances
    unknown = {shared for name, shared in match.second.items() if name not in scan.annotated}
    return Reference(
        found,
        np.arange(len(found)) >= len(objects),
        tuple(name for name in match.names if name not in unknown),
    )
