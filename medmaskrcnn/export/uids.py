"""Reproducible DICOM UIDs, derived from an object's content: the same result always gets the same UIDs.

A UID is ``2.25.`` and a 128-bit number (DICOM PS3.5, B.2), here the first bits of a SHA-256 over everything that
determines an object: the UIDs of its source, the model, the settings, the software's version and the content. An
archive that receives a result twice thus recognises it, and a result with other settings never replaces this one.
"""

from __future__ import annotations

import hashlib
import json
from functools import cached_property

from medmaskrcnn.settings.migration import to_first_names
from medmaskrcnn.structures.case_result import CaseResult
from medmaskrcnn.structures.instances import Instances

_BITS = 128


def uid_of(*parts: str | bytes) -> str:
    """The UID of a sequence of texts and bytes; it depends on where each part ends.

    Example:
        >>> uid_of("liver") == uid_of("liver"), uid_of("a", "bc") == uid_of("ab", "c")
        (True, False)
    """
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(b"%d:" % len(data))
        digest.update(data)
    return f"2.25.{int.from_bytes(digest.digest()[: _BITS // 8], 'big')}"


def instances_digest(instances: Instances) -> bytes:
    """SHA-256 of instances: grid, names, classes, scores and every voxel of the masks."""
    digest = hashlib.sha256(json.dumps([instances.grid.shape, instances.class_names]).encode())
    digest.update(instances.grid.affine_vox_to_ras.astype("<f8").tobytes())
    for i in range(len(instances)):
        digest.update(instance_digest(instances, i))
        digest.update(instances.scores[i].astype("<f4").tobytes())
    return digest.digest()


def instance_digest(instances: Instances, i: int) -> bytes:
    """SHA-256 of one instance: its class name, position and mask."""
    mask = instances.masks[i]
    place = [*mask.start, *mask.array.shape]
    digest = hashlib.sha256(json.dumps([instances.class_names[instances.labels[i]], place]).encode())
    digest.update(mask.array.tobytes())
    return digest.digest()


class ResultUIDs:
    """The UIDs of the DICOM objects made from one result.

    Args:
        result: The result.
        series_uid: Series Instance UID of the scan it was made from.
        sop_instance_uids: SOP Instance UIDs of the scan's images.
        variant: Anything else that determines the objects' content, e.g. that a person corrected the result.
    """

    def __init__(
        self, result: CaseResult, series_uid: str, sop_instance_uids: tuple[str, ...], *, variant: str = ""
    ) -> None:
        self._result = result
        self._source = (series_uid, *sop_instance_uids, variant)

    @cached_property
    def _work(self) -> str:
        """Everything that determines the objects except their kind."""
        record, found = self._result.record, self._result.instances
        settings = to_first_names(record.settings)
        made = [record.software, record.model_name, record.model_sha256, settings, record.out_of_domain]
        text = json.dumps([*made, list(self._source)], sort_keys=True, default=str)
        return uid_of(text, instances_digest(found))

    def series(self, kind: str) -> str:
        """Series Instance UID of objects of this kind (``"SEG"``)."""
        return uid_of(self._work, kind, "series")

    def instance(self, kind: str) -> str:
        """SOP Instance UID of the object of this kind."""
        return uid_of(self._work, kind, "instance")

    def other(self, kind: str, what: str) -> str:
        """Any other UID that an object of this kind needs."""
        return uid_of(self._work, kind, what)

    def tracking(self, i: int) -> str:
        """Tracking UID of the ``i``-th instance of the result: the same in SEG, RTSTRUCT and SR."""
        return uid_of(self._work, instance_digest(self._result.instances, i), str(i), "tracking")
