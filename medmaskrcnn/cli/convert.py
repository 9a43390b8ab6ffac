"""``medmaskrcnn convert``: labels from one form into another, and tilted scans onto an orthogonal grid.

    label map (NIfTI, NRRD, MHA, PNG)  <->  DICOM SEG  <->  RTSTRUCT  <->  instances.npz  <->  COCO JSON

What a file is, its content tells; what it becomes, the name of the output or ``--to``.
"""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from medmaskrcnn.cli.console import echo, print_status, stage_bars
from medmaskrcnn.cli.convert_forms import ConvertedLabels, read_any_labels, write_labels
from medmaskrcnn.cli.deidentify_files import deidentify_files
from medmaskrcnn.cli.failures import failing_as_one, logging_to
from medmaskrcnn.cli.options import DeidentifyOption, LabelMapSegOption, LogOption
from medmaskrcnn.errors import ReadError
from medmaskrcnn.export.deshear import is_tilted, regular_instances, regular_volume
from medmaskrcnn.export.nifti import write_nifti
from medmaskrcnn.io.read import read_volume
from medmaskrcnn.structures.volume import Provenance, Volume


class Form(StrEnum):
    """What labels can be written as."""

    NIFTI = "nifti"
    SEG = "seg"
    RTSTRUCT = "rtstruct"
    SR = "sr"
    NPZ = "npz"
    COCO = "coco"
    CSV = "csv"
    HTML = "html"


class Numbering(StrEnum):
    """What the numbers of a label map mean."""

    INSTANCE = "instance"
    SEMANTIC = "semantic"


EXAMPLES = (
    "medmaskrcnn convert RS.dcm masks.nii.gz --image ct_folder/",
    "medmaskrcnn convert masks.nii.gz seg.dcm --image ct_folder/ --names 1=liver,2=spleen",
    "medmaskrcnn convert result/instances.npz contours.dcm --to rtstruct --image ct_folder/",
    "medmaskrcnn convert tilted_ct/ straight.nii.gz --regular",
    "medmaskrcnn convert ct_folder/ ct_anonymous --deidentify",
)

_BY_SUFFIX = {
    ".nii": Form.NIFTI,
    ".gz": Form.NIFTI,
    ".dcm": Form.SEG,
    ".npz": Form.NPZ,
    ".json": Form.COCO,
    ".csv": Form.CSV,
    ".html": Form.HTML,
}


def convert_command(
    source: Annotated[Path, typer.Argument(metavar="IN", help="Labels, or with --regular a scan.")],
    target: Annotated[Path, typer.Argument(metavar="OUT", help="The file to write.")],
    image: Annotated[
        Path | None,
        typer.Option(metavar="SCAN", help="The scan that the labels belong to: for its grid, its headers, its values."),
    ] = None,
    series: Annotated[
        str | None, typer.Option(metavar="UID|N|largest", help="Which series of --image, or of a scan as IN.")
    ] = None,
    to: Annotated[
        Form | None, typer.Option(help="What to write.", show_default="by the name of OUT; .dcm is a SEG")
    ] = None,
    names: Annotated[str | None, typer.Option(metavar="1=A,2=B", help="Class names of a label map's numbers.")] = None,
    numbers: Annotated[
        Numbering, typer.Option(help="A label map's numbers name instances, or classes of several instances.")
    ] = Numbering.INSTANCE,
    regular: Annotated[
        bool, typer.Option("--regular", help="A tilted scan, and its labels, onto an orthogonal grid.")
    ] = False,
    label_map_seg: LabelMapSegOption = False,
    deidentify: DeidentifyOption = False,
    log: LogOption = None,
) -> None:
    """Convert labels between label map, DICOM SEG, RTSTRUCT, instances.npz and COCO JSON.

    The scan (--image) is needed to read and write DICOM SEG and RTSTRUCT, and to read COCO JSON. Instances that overlap
    stay whole in every form but label maps. Where the input names no score, scores are 1.

    A scan as input is written as NIfTI, on an orthogonal grid with --regular; or, with --deidentify and a folder as
    OUT, as DICOM without what identifies the patient. Pixels are not changed by that: names burned into pictures stay,
    and so do faces.
    """
    form = None if deidentify and to is None and not target.suffix else _form(target, to)
    numbered = _names(names)
    hidden = [source, *([image] if image else [])]
    with logging_to(log, hidden=hidden), failing_as_one(str(source)):
        if source.resolve() == target.resolve():
            raise typer.BadParameter("OUT is IN itself", param_hint="OUT")
        scan = None if image is None else read_volume(image, series=series)
        labels = read_any_labels(source, scan, names=numbered, kind=numbers.value)
        if labels is None and form is None:
            _deidentify(source, target)
        elif form is None:
            raise ReadError(f"{source} holds labels: OUT must be the name of a file")
        elif labels is None:
            _convert_scan(source, target, form, series, regular)
        else:
            _convert_labels(labels, target, form, regular, label_map_seg, deidentify)
        echo(f"written: {target}")


def _deidentify(source: Path, folder: Path) -> None:
    with stage_bars(str(source.name), shown=True) as progress:
        written, left_out = deidentify_files(source, folder, progress)
    for sentence in left_out:
        print_status("note", sentence)
    print_status("warning", "pixels were not changed: look for names burned into the pictures, and for faces")
    echo(f"{written} images de-identified")


def _convert_scan(source: Path, target: Path, form: Form, series: str | None, regular: bool) -> None:
    if form is not Form.NIFTI:
        raise ReadError(f"{source} is a scan, not labels: it can be written as NIfTI alone (OUT.nii.gz)")
    scan = read_volume(source, series=series)
    if regular and is_tilted(scan.grid):
        scan = regular_volume(scan)
    elif regular:
        print_status("note", f"{source} is not tilted; its voxels are written as they are")
    write_nifti(scan.array[0] if scan.array.shape[0] == 1 else scan.array, scan.grid, target)


def _convert_labels(
    labels: ConvertedLabels, target: Path, form: Form, regular: bool, label_map_seg: bool, deidentify: bool
) -> None:
    for note in labels.notes:
        print_status("note", note)
    if regular and is_tilted(labels.instances.grid):
        straight = regular_instances(labels.instances)
        scan = None if labels.scan is None else _without_source(regular_volume(labels.scan))
        labels = replace(labels, instances=straight, scan=scan, result=None)
    for note in write_labels(labels, target, form.value, label_map=label_map_seg, deidentify=deidentify):
        print_status("note", note)


def _without_source(scan: Volume) -> Volume:
    """A resampled scan, which no DICOM object may call its own: there are no images to refer to."""
    return replace(scan, provenance=Provenance("resampled", notes=scan.provenance.notes))


def _form(target: Path, to: Form | None) -> Form:
    form = to or _BY_SUFFIX.get(target.suffix.lower())
    if form is None:
        known = ", ".join(sorted(_BY_SUFFIX))
        raise typer.BadParameter(
            f"{target.name} ends in none of {known}; say with --to what to write", param_hint="OUT"
        )
    return form


def _names(text: str | None) -> dict[int, str] | None:
    if text is None:
        return None
    names = {}
    for part in text.split(","):
        number, equals, name = part.partition("=")
        if not (equals and number.strip().isdigit() and name.strip()):
            raise typer.BadParameter(f"{part!r} is not of the form 1=liver", param_hint="--names")
        names[int(number)] = name.strip()
    return names
