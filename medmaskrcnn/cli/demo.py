"""``medmaskrcnn demo``: a phantom CT, as a hospital would export it, goes the whole way."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medmaskrcnn.cli.console import ProgressCall, echo, stage_bars
from medmaskrcnn.cli.failures import EXIT_FAILED, failing_as_one, logging_to
from medmaskrcnn.cli.options import LogOption, with_segment_options
from medmaskrcnn.cli.run_cases import Case, Wishes
from medmaskrcnn.cli.segment import print_outcomes, segment_cases
from medmaskrcnn.cli.tables import print_table
from medmaskrcnn.evaluation.metrics.matching import match_case
from medmaskrcnn.export.check import check_output_folder
from medmaskrcnn.report.units import volume_text
from medmaskrcnn.settings import OutputOptions, SegmentOptions
from medmaskrcnn.structures.case_result import CaseResult
from medmaskrcnn.structures.label_maps import instances_of_label_map
from medmaskrcnn.structures.volume import PHANTOM_GENERATOR

if TYPE_CHECKING:
    from medmaskrcnn_datasets.phantom import Phantom

MODEL = "phantom-ct"
DEFAULT_FOLDER = Path("medmaskrcnn-demo")
FOUND_IOU = 0.5
"""An object counts as found if an instance of its class overlaps it so far (intersection over union of the masks)."""


EXAMPLES = (
    "medmaskrcnn demo",
    "medmaskrcnn demo -o my-demo --seed 7",
)


@with_segment_options("device")
def demo_command(
    *,
    out: Annotated[Path, typer.Option("-o", "--out", metavar="DIR", help="Folder for everything.")] = DEFAULT_FOLDER,
    seed: Annotated[int, typer.Option(min=0, help="Which phantom: another number, another patient.")] = 1,
    options: SegmentOptions,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
    log: LogOption = None,
) -> None:
    """Make a phantom CT as a folder of DICOM, segment it with a model that ships, and compare with the truth.

    Nothing is downloaded, nothing of a real patient is used. Takes a minute or two without a GPU.
    """
    with logging_to(log):
        folder = out / f"phantom-{seed}"
        with failing_as_one(str(out)):
            check_output_folder(folder)
            with stage_bars("demo", shown=not quiet) as progress:
                phantom = write_study(seed, folder, progress)
        echo(f"a phantom CT study: {folder / 'ct'} (DICOM), its truth: {folder / 'truth.nii.gz'}")
        case = Case(f"phantom-{seed}", folder / "ct", folder / "result")
        outcomes = segment_cases([case], case.folder, MODEL, Wishes(options, OutputOptions(), quiet=quiet))
        print_outcomes(outcomes)
        if outcomes[0].result is None:
            raise typer.Exit(EXIT_FAILED)
        print_comparison(phantom, outcomes[0].result)
        echo(f"look at {case.folder / 'preview.png'}, or with napari: napari {case.folder}")


def write_study(seed: int, folder: Path, progress: ProgressCall) -> Phantom:
    """Make the phantom, and write it as ``ct/`` (one DICOM file a slice) and ``truth.nii.gz`` (instance labels)."""
    # here, because the demo alone needs the labelled data's package: no other command pays for it
    from medmaskrcnn.export.nifti import write_nifti
    from medmaskrcnn_datasets.dicom_series import write_dicom_series
    from medmaskrcnn_datasets.phantom import PhantomSettings, make_phantom

    progress("making the phantom", 0.0)
    phantom = make_phantom(PhantomSettings(seed=seed))
    series = folder / "ct"
    for earlier in series.glob("IM[0-9]*"):  # of an earlier demo, perhaps with more slices
        earlier.unlink()
    write_dicom_series(phantom, series, progress=lambda done, total: progress("writing it as DICOM", done / total))
    write_nifti(phantom.labels, phantom.volume.grid, folder / "truth.nii.gz", description=PHANTOM_GENERATOR)
    return phantom


def print_comparison(phantom: Phantom, result: CaseResult) -> None:
    """Each object of the phantom: found or missed, and its volume beside the measured one."""
    found = result.instances
    truth = instances_of_label_map(
        phantom.labels,
        found.grid,
        {i.value: i.class_name for i in phantom.instances},
        part_of={i.value: i.part_of for i in phantom.instances if i.part_of is not None},
    )
    summary = match_case(found, truth, iou_threshold=FOUND_IOU)
    hits = {match.reference: match for match in summary.matches}
    rows = []
    for t, instance in enumerate(phantom.instances):
        true_volume = volume_text(instance.volume_mm3, "mm")
        if t not in hits:
            rows.append([instance.class_name, "missed", "", true_volume, "", ""])
            continue
        f = hits[t].predicted
        measured = volume_text(result.measurements[result.kept[f]].volume_unit3, "mm")
        rows.append([instance.class_name, "found", str(f + 1), true_volume, measured, f"{hits[t].iou:.2f}"])
    print_table(
        f"against the truth (found: masks agree with an IoU of {FOUND_IOU:g} or more)",
        ["class", "", "id", "true volume", "measured", "IoU"],
        rows,
        numbers=("id", "true volume", "measured", "IoU"),
    )
    echo(f"found {len(hits)} of {summary.n_reference}; {len(summary.false_positives)} reported that are not there")
