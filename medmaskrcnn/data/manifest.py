"""The manifest, the input of training: a list of labelled cases on disk (a MONAI-style datalist in JSON).

The adapters of the package ``medmaskrcnn_datasets`` write it from common formats of labelled data.
"""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, ValidationError, model_validator

from medmaskrcnn.errors import ReadError
from medmaskrcnn.settings import Settings
from medmaskrcnn.system.text_files import decode_json_text

VERSION: Literal[1] = 1

Split = Literal["train", "val", "test"]
FOR_TRAINING: tuple[Split | None, ...] = ("train", None)
"""Splits whose cases may influence decisions about a model before it is trained."""

Paths = str | Annotated[tuple[str, ...], Field(min_length=1)]


class ManifestInstance(Settings):
    """One labelled object.

    Attributes:
        value: Its voxel value in the label map; 0 is the background.
        class_name: Its class (key ``class`` in the file); ``None`` (of any class) only where ``ignore`` is true.
        part_of: Value of the object it lies in (the liver of a tumour), whose mask then includes it.
        map: Index of the case's label map that holds it, from 0.
        ignore: It is no object to be found, and what is found there is not false: a crowd (COCO's ``iscrowd``), voxels
            that nobody labelled (nnU-Net's ``ignore``), a finding on which readers disagree.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", validate_by_alias=True, validate_by_name=True)

    value: Annotated[int, Field(ge=1)]
    class_name: str | None = Field(default=None, alias="class")
    part_of: int | None = None
    map: Annotated[int, Field(ge=0)] = 0
    ignore: bool = False

    @model_validator(mode="after")
    def _check(self) -> ManifestInstance:
        if self.class_name is None and not self.ignore:
            raise ValueError(f"the instance of value {self.value} has no class; only one to ignore may have none")
        return self


class ManifestCase(Settings):
    """One scan with its instances.

    Attributes:
        id: Id, unique in the manifest.
        patient: Patient id; scans of one patient belong in one split.
        data_set: The data set that it comes from, where several were joined.
        image: Path, relative to the manifest's folder or absolute; several are sequences on one grid, whose channels
            are stacked in this order.
        label: Path of the instance label map on the image's grid; several where objects overlap; ``None`` for a scan
            without any object.
        split: The split it belongs to, or ``None`` if undecided.
        fold: Its fold in cross-validation, from 0, or ``None``.
        case_labels: Labels of the case as a whole, ``{"pathology": "benign"}``.
        instances: Meaning of the values of the label maps; values that no instance names are background.
        annotated: Classes that were annotated in this case; one that is not named is unknown here, neither object nor
            background. ``None``: all classes of the manifest.
        weight: How often it is drawn in training, relative to the other cases.
    """

    id: str
    patient: str
    image: Paths
    label: Paths | None = None
    split: Split | None = None
    fold: Annotated[int, Field(ge=0)] | None = None
    case_labels: dict[str, str | int | float | bool | None] = Field(default_factory=dict)
    instances: tuple[ManifestInstance, ...] = ()
    annotated: tuple[str, ...] | None = None
    weight: Annotated[float, Field(gt=0)] = 1.0
    data_set: str | None = None

    @property
    def images(self) -> tuple[str, ...]:
        """The image files, one or several."""
        return (self.image,) if isinstance(self.image, str) else self.image

    @property
    def label_maps(self) -> tuple[str, ...]:
        """The label maps: none, one or several."""
        if self.label is None:
            return ()
        return (self.label,) if isinstance(self.label, str) else self.label

    @model_validator(mode="after")
    def _check(self) -> ManifestCase:
        maps = len(self.label_maps)
        beyond = sorted({i.map for i in self.instances if i.map >= maps})
        if beyond:
            raise ValueError(f"case {self.id} has {maps} label maps, its instances speak of the maps {beyond}")
        for index in range(maps):
            values = [i.value for i in self.instances if i.map == index]
            twice = sorted(value for value, n in Counter(values).items() if n > 1)
            if twice:
                raise ValueError(f"case {self.id} gives one value to two instances: {twice}")
            strangers = {i.part_of for i in self.instances if i.map == index} - {None, *values}
            if strangers:
                raise ValueError(f"case {self.id} has instances that are part of none of its instances: {strangers}")
        if self.annotated is not None:
            if len(set(self.annotated)) != len(self.annotated):
                raise ValueError(f"case {self.id} names an annotated class twice: {list(self.annotated)}")
            held = {i.class_name for i in self.instances if i.class_name is not None and not i.ignore}
            if not held <= set(self.annotated):
                raise ValueError(
                    f"case {self.id} holds instances of classes that it does not name as annotated: "
                    f"{sorted(held - set(self.annotated))}"
                )
        return self


class Manifest(Settings):
    """A labelled data set.

    Attributes:
        version: Version of the format.
        name: Name of the data set.
        modality: DICOM modality, or ``None`` for any.
        licence: Licence of the data.
        class_names: Names of the classes.
        channel_names: Names of the scans' channels, in order, if they are several sequences; empty if unknown.
        left_out: Sentences about what the data set holds and no case has, such as labels whose scan is missing.
        cases: The scans.
        folder: Folder of the manifest; filled in on reading, not written.
    """

    version: Literal[1] = VERSION
    name: str
    modality: str | None = None
    licence: str = ""
    class_names: tuple[str, ...]
    channel_names: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    cases: tuple[ManifestCase, ...]
    folder: str = Field(default=".", exclude=True)

    def path(self, relative: str) -> Path:
        """Full path of a file that a case names."""
        return Path(self.folder) / relative

    def annotated_in(self, case: ManifestCase) -> tuple[str, ...]:
        """Classes that were annotated in a case, in the order of :attr:`class_names`."""
        return tuple(name for name in self.class_names if case.annotated is None or name in case.annotated)

    @model_validator(mode="after")
    def _check(self) -> Manifest:
        twice = sorted(name for name, n in Counter(case.id for case in self.cases).items() if n > 1)
        if twice:
            raise ValueError(f"these case ids occur twice: {twice}")
        if len(set(self.class_names)) != len(self.class_names):
            raise ValueError(f"a class name occurs twice: {self.class_names}")
        for case in self.cases:
            named = {i.class_name for i in case.instances if i.class_name is not None} | set(case.annotated or ())
            unknown = sorted(named - set(self.class_names))
            if unknown:
                raise ValueError(f"case {case.id} names classes that class_names lacks: {unknown}")
        return self


def read_manifest(path: str | os.PathLike[str]) -> Manifest:
    """Read and check a manifest.

    Raises:
        ReadError: if it is missing, not JSON, its fields are not those of a manifest, or they contradict each other.
    """
    path = Path(path)
    try:
        text = decode_json_text(path.read_bytes())
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
