"""One command for each format of labelled data."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, get_args

import typer

from medmaskrcnn_datasets.coco import coco_dataset
from medmaskrcnn_datasets.command_options import Adapter, Out, adapter_command, names_in
from medmaskrcnn_datasets.console import bar, report_errors, tell
from medmaskrcnn_datasets.convert import to_manifest
from medmaskrcnn_datasets.dicom_labels import dicom_dataset
from medmaskrcnn_datasets.folders import instances_dataset, semantic_dataset
from medmaskrcnn_datasets.join import join_datasets
from medmaskrcnn_datasets.msd import msd_dataset
from medmaskrcnn_datasets.nnunet import nnunet_dataset
from medmaskrcnn_datasets.objects import ClassRules, Rule

Default = Annotated[
    Rule,
    typer.Option(
        "--rule",
        help="An object is each connected part of a class (components), all of it in a case (whole), or each label "
        "value (instances); auto: parts or the whole, as the class's name and the labels show.",
    ),
]
ByClass = Annotated[str, typer.Option("--class-rule", help="Rules of single classes: liver=whole,tumour=components.")]
Ignore = Annotated[str, typer.Option(help="Label values whose voxels are to be ignored: 255.")]
Rename = Annotated[
    str, typer.Option(help="New names of classes: 'right kidney=kidney,left kidney=kidney'; an empty name leaves out.")
]
Within = Annotated[str, typer.Option(help="Classes that lie in others, whose masks then hold them: tumour=liver.")]
LeastVoxels = Annotated[int, typer.Option(min=1, help="Smaller connected parts are left out.")]
Name = Annotated[str | None, typer.Option(help="Name of the data set; by default that of the folder.")]
Modality = Annotated[str | None, typer.Option(help="DICOM modality, CT or MR; none for pictures.")]
Licence = Annotated[str, typer.Option(help="Licence of the data.")]
Dataset = Annotated[Path, typer.Argument(metavar="DATASET_DIR", help="The data set's folder; only read.")]


@adapter_command("cases")
def msd(
    folder: Dataset,
    out: Out,
    rule: Default = "auto",
    class_rule: ByClass = "",
    rename: Rename = "",
    within: Within = "",
    least_voxels: LeastVoxels = 1,
    ignore: Ignore = "",
) -> Adapter:
    """Cases in the layout of the Medical Segmentation Decathlon.

    `python -m medmaskrcnn_datasets msd AbdomenMR -o data/abdomen --test chaos_03,chaos_05`

    `python -m medmaskrcnn_datasets msd AbdomenMR -o data/fold0 --folds 5 --fold 0`
    """
    return partial(msd_dataset, folder, out, rules=_rules(rule, class_rule, rename, within, least_voxels, ignore))


@adapter_command("cases")
def nnunet(
    folder: Dataset,
    out: Out,
    rule: Default = "auto",
    class_rule: ByClass = "",
    rename: Rename = "",
    within: Within = "",
    least_voxels: LeastVoxels = 1,
    ignore: Ignore = "",
) -> Adapter:
    """Cases in nnU-Net's raw layout: imagesTr/CASE_0000.nii.gz, labelsTr/CASE.nii.gz, dataset.json.

    `python -m medmaskrcnn_datasets nnunet Dataset017_AMOS -o amos --rename "left kidney=kidney,right kidney=kidney"`
    """
    return partial(nnunet_dataset, folder, out, rules=_rules(rule, class_rule, rename, within, least_voxels, ignore))


@adapter_command("pictures")
def coco(
    file: Annotated[Path, typer.Argument(metavar="JSON", help="The COCO file; only read.")],
    out: Out,
    images: Annotated[Path | None, typer.Option(help="Folder of the pictures, where they do not lie nearby.")] = None,
    rename: Rename = "",
    name: Name = None,
) -> Adapter:
    """Pictures with a COCO JSON: polygons, run-length codes, overlapping objects.

    `python -m medmaskrcnn_datasets coco annotations/instances_train2017.json --images train2017 -o data/coco`
    """
    return partial(coco_dataset, file, out, images=images, rename=_pairs(rename, "--rename"), name=name)


@adapter_command("images")
def instances(
    folder: Dataset,
    out: Out,
    class_name: Annotated[str, typer.Option(help="What the objects are: --class-name nucleus.")] = "object",
    rule: Default = "auto",
    ignore: Ignore = "",
    name: Name = None,
    modality: Modality = None,
    licence: Licence = "unknown",
) -> Adapter:
    """Images with a number for each object, images/ and masks/; or a mask file for each object, in a folder per image.

    `python -m medmaskrcnn_datasets instances nuclei -o data/nuclei --class-name nucleus --split splits.json`
    """
    ignored = values_in_text(ignore, "--ignore") or None
    return partial(
        instances_dataset,
        folder,
        out,
        class_name=class_name,
        rule=rule,
        ignore=ignored,
        name=name,
        modality=modality,
        licence=licence,
    )


@adapter_command("images")
def semantic(
    folder: Dataset,
    out: Out,
    classes: Annotated[str, typer.Option(help="Class of each label value: 1=liver,2=kidney,3=kidney.")],
    rule: Default = "auto",
    class_rule: ByClass = "",
    within: Within = "",
    least_voxels: LeastVoxels = 1,
    ignore: Ignore = "",
    name: Name = None,
    modality: Modality = None,
    licence: Licence = "unknown",
) -> Adapter:
    """Images with maps of classes, images/ and labels/: a rule for each class says what one object is.

    `python -m medmaskrcnn_datasets semantic livers -o data/livers --classes 1=liver,2=tumour --class-rule liver=whole`
    """
    return partial(
        semantic_dataset,
        folder,
        out,
        classes=_classes(classes),
        rules=_rules(rule, class_rule, "", within, least_voxels, ignore),
        name=name,
        modality=modality,
        licence=licence,
    )


@adapter_command("series")
def dicom(
    folder: Dataset,
    out: Out,
    modality: Annotated[str | None, typer.Option(help="Which labelled series, CT or MR; needed for mixtures.")] = None,
    classes: Annotated[str, typer.Option(help="Regions or segments that are taken, by commas; default: all.")] = "",
    rename: Rename = "",
    name: Name = None,
    licence: Licence = "unknown",
) -> Adapter:
    """A folder of patients' DICOM series with RTSTRUCT or SEG; scans and labels are written as NIfTI.

    `python -m medmaskrcnn_datasets dicom archive -o data/sarcoma --modality MR --rename GTV_Mass=sarcoma`
    """
    return partial(
        dicom_dataset,
        folder,
        out,
        modality=modality,
        classes=names_in(classes),
        rename=_pairs(rename, "--rename"),
        name=name,
        licence=licence,
    )


def auto(
    path: Annotated[Path, typer.Argument(help="A data set of any of these formats; only read.")],
    out: Out,
) -> None:
    """Tell the format, convert with its defaults, and say what was assumed; what `medmaskrcnn train` does by itself.

    `python -m medmaskrcnn_datasets auto nuclei -o data/nuclei`
    """
    with report_errors(), bar("cases") as progress:
        manifest = to_manifest(path, out, on_event=tell, progress=progress)
    typer.echo(manifest)


def join(
    manifests: Annotated[list[Path], typer.Argument(metavar="MANIFEST...", help="Manifests of the data sets.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The manifest to write.")],
    rename: Rename = "",
    name: Name = None,
    shares: Annotated[
        str,
        typer.Option(
            metavar="NUMBERS",
            help="How often each set is drawn in training, in their order: --shares 5,2,3. "
            "By default by the square root of its number of training cases.",
        ),
    ] = "",
) -> None:
    """Several data sets with different classes as one: each case stays annotated with its own set's classes.

    `python -m medmaskrcnn_datasets join abdomen/manifest.json lung/manifest.json -o joined.json --rename lungs=lung`
    """
    with report_errors():
        asked = [_positive(word) for word in names_in(shares)] or None
        made = join_datasets(manifests, out, rename=_pairs(rename, "--rename"), name=name, shares=asked, on_event=tell)
    typer.echo(made)


ADAPTERS = (auto, msd, nnunet, coco, instances, semantic, dicom, join)


def values_in_text(text: str, option: str) -> tuple[int, ...]:
    """Label values separated by commas.

    Raises:
        ValueError: if one is no whole number of 1 or more.
    """
    words = names_in(text)
    if not all(word.isdigit() and int(word) for word in words):
        raise ValueError(f"{option} wants whole numbers from 1, separated by commas, got {text!r}")
    return tuple(int(word) for word in words)


def _positive(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"--shares wants numbers separated by commas, got {text!r}") from None


def _rules(rule: Rule, class_rule: str, rename: str, within: str, least_voxels: int, ignore: str) -> ClassRules:
    by_class: dict[str, Rule] = {}
    for name, text in _pairs(class_rule, "--class-rule").items():
        found = next((one for one in get_args(Rule) if one == text), None)
        if found is None:
            raise ValueError(f"--class-rule wants one of {', '.join(get_args(Rule))}, got {text!r} for {name!r}")
        by_class[name] = found
    ignored = values_in_text(ignore, "--ignore")
    return ClassRules(rule, by_class, _pairs(rename, "--rename"), _pairs(within, "--within"), least_voxels, ignored)


def _pairs(text: str, option: str) -> dict[str, str]:
    result = {}
    for part in names_in(text):
        name, equals, value = part.partition("=")
        if not equals or not name.strip():
            raise ValueError(f"{option} wants NAME=NAME, separated by commas, got {part!r}")
        result[name.strip()] = value.strip()
    return result


def _classes(text: str) -> dict[int, str]:
    pairs = _pairs(text, "--classes")
    if not pairs or not all(value.isdigit() and name for value, name in pairs.items()):
        raise ValueError(f"--classes wants VALUE=NAME, separated by commas, 1=liver,2=tumour; got {text!r}")
    return {int(value): name for value, name in pairs.items()}
