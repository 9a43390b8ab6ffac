"""The one thing that training reads: a list of labelled cases on disk (a MONAI-style datalist in JSON).

Adapters from the formats that labelled data comes in write it (package ``medmaskrcnn_datasets``).
"""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, ValidationError, model_validator

from medmaskrcnn.config import Settings
from medmaskrcnn.errors import ReadError


class ManifestInstance(Settings):
    """One labelled object.

    Attributes:
        value: Its voxel value in the label map; 0 is the background.
        class_name: Its class (key ``class`` in the file).
        part_of: Value of the object it lies in (a tumour's liver), whose mask then includes it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", validate_by_alias=True)

    value: Annotated[int, Field(ge=1)]
    class_name: str = Field(alias="class")
    part_of: int | None = None


class ManifestCase(Settings):
    """One scan with its instance label map.

    Attributes:
        id: Unique in the manifest.
        patient: Whose it is; scans of one patient belong in one split.
        image, label: Paths, relative to the manifest's folder or absolute.
        split: Which set it belongs to, or ``None`` if that is open.
        instances: What the values of the label map mean; values that none names are background.
    """

    id: str
    patient: str
    image: str
    label: str
    split: Literal["train", "val", "test"] | None = None
    instances: tuple[ManifestInstance, ...]


class Manifest(Settings):
    """A labelled data set.

    Attributes:
        version: Of the format.
        name: Of the data set.
        modality: DICOM modality, or ``None`` for any.
        licence: Of the data.
        class_names: Names of the classes.
        cases: The scans.
        folder: Where the manifest lies; filled in on reading.
    """

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

    @model_validator(mode="after")
    def _check(self) -> Manifest:
        twice = sorted(name for name, n in Counter(case.id for case in self.cases).items() if n > 1)
        if twice:
            raise ValueError(f"these case ids occur twice: {twice}")
        for case in self.cases:
            unknown = sorted({i.class_name for i in case.instances} - set(self.class_names))
            if unknown:
                raise ValueError(f"case {case.id} names classes that class_names lacks: {unknown}")
            values = [i.value for i in case.instances]
            if len(set(values)) != len(values):
                raise ValueError(f"case {case.id} gives one value to two instances: {sorted(values)}")
            strangers = {i.part_of for i in case.instances} - {None, *values}
            if strangers:
                raise ValueError(f"case {case.id} has instances that are part of none of its instances: {strangers}")
        return self


def read_manifest(path: str | os.PathLike[str]) -> Manifest:
    """Read and check a manifest.

    Raises:
        ReadError: if it is missing, no JSON, its fields are not those of a manifest, or they contradict each other.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ReadError(f"cannot read manifest {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ReadError(f"{path} is no manifest: it is not a text file") from error
    try:
        manifest = Manifest.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise ReadError(f"{path} is no manifest: {where + ': ' if where else ''}{first['msg']}") from error
    return manifest.model_copy(update={"folder": str(path.resolve().parent)})
