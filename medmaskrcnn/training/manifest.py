"""The one thing that training reads: a list of labelled cases on disk (a MONAI-style datalist in JSON).

Adapters from the formats that labelled data comes in write it (package ``medmaskrcnn_datasets``).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from pydantic import ConfigDict, Field, ValidationError

from medmaskrcnn.config import Settings
from medmaskrcnn.errors import ReadError


class ManifestInstance(Settings):
    """One labelled object.

    Attributes:
        value: Its voxel value in the label map.
        class_name: Its class (key ``class`` in the file).
        part_of: Value of the object it lies in (a tumour's liver), whose mask then includes it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", validate_by_alias=True)

    value: int
    class_name: str = Field(alias="class")
    part_of: int | None = None


class ManifestCase(Settings):
    """One scan with its instance label map; paths are relative to the manifest."""

    id: str
    patient: str
    image: str
    label: str
    split: Literal["train", "val", "test"] | None = None
    instances: tuple[ManifestInstance, ...]


class Manifest(Settings):
    """A labelled data set."""

    version: Literal[1]
    name: str
    modality: str | None = None
    licence: str = ""
    class_names: tuple[str, ...]
    cases: tuple[ManifestCase, ...]
    folder: str = "."

    def path(self, relative: str) -> Path:
        """The file that a case names."""
        return Path(self.folder) / relative


def read_manifest(path: str | os.PathLike[str]) -> Manifest:
    """Read and check a manifest.

    Raises:
        ReadError: if it is missing, no JSON, or its fields are not those of a manifest.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ReadError(f"cannot read manifest {path}: {error.strerror}") from error
    try:
        manifest = Manifest.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        raise ReadError(f"{path} is no manifest: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error
    for case in manifest.cases:
        unknown = {i.class_name for i in case.instances} - set(manifest.class_names)
        if unknown:
            raise ReadError(f"{path}: case {case.id} names classes that class_names lacks: {sorted(unknown)}")
    return manifest.model_copy(update={"folder": str(path.resolve().parent)})
