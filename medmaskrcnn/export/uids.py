"""UIDs that name what they are made from: the same work sent twice is the same object.

A UID is ``2.25.`` and a 128-bit number (DICOM PS3.5, B.2), here the head of a SHA-256 over everything that decides
what an object holds: the UIDs of its source, the model, the settings, the software's version and the content. So an
archive that receives a result a second time finds that it has it, and a result of other settings never takes the
place of this one.
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
    """The UID of a sequence of texts and bytes; no two different sequences are taken for one.

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
    """SHA-256 of what instances are: grid, names, classes, scores and masks, each voxel of them."""
    digest = hashlib.sha256(json.dumps([instances.grid.shape, instances.class_names]).encode())
    digest.update(instances.grid.affine_vox_to_ras.astype("<f8").tobytes())
    for i in range(len(instances)):
        digest.update(instance_digest(instances, i))
        digest.update(instances.scores[i].astype("<f4").tobytes())
    return digest.digest()


def instance_digest(instances: Instances, i: int) -> bytes:
    """SHA-256 of one instance: its class's name, its place and its mask."""
    mask = instances.masks[i]
    place = [*mask.start, *mask.array.shape]
    digest = hashlib.sha256(json.dumps([instances.class_names[instances.labels[i]], place]).encode())
    digest.update(mask.array.tobytes())
    return digest.digest()


class ResultUIDs:
    """The UIDs of the DICOM objects that one result becomes.

    Args:
        result: The result.
        series_uid: Series Instance UID of the scan it was made from.
        sop_instance_uids: SOP Instance UIDs of the scan's images.
        variant: Whatever else decides what the objects hold, e.g. that a person corrected the result.
    """

    def __init__(
        self, result: CaseResult, series_uid: str, sop_instance_uids: tuple[str, ...], *, variant: str = ""
    ) -> None:
        self._result = result
        self._source = (series_uid, *sop_instance_uids, variant)

    @cached_property
    def _work(self) -> str:
        """Everything that decides the result but the kind of object it is written as."""
        record, found = self._result.record, self._result.instances
        settings = to_first_names(record.settings)
        made = [record.software, record.model_name, record.model_sha256, settings, record.out_of_domain]
        text = json.dumps([*made, list(self._source)], sort_keys=True, default=str)
        return uid_of(text, instances_digest(found))

    def series(self, kind: str) -> str:
        """Series Instance UID of the objects of a kind (``"SEG"``)."""
        return uid_of(self._work, kind, "series")

    def instance(self, kind: str) -> str:
        """SOP Instance UID of the object of a kind."""
        return uid_of(self._work, kind, "instance")

    def other(self, kind: str, what: str) -> str:
        """Any other UID that an object of a kind needs."""
        return uid_of(self._work, kind, what)

    def tracking(self, i: int) -> str:
        """Tracking UID of the ``i``-th instance of the result: the same in SEG, RTSTRUCT and SR."""
        return uid_of(self._work, instance_digest(self._result.instances, i), str(i), "tracking")
