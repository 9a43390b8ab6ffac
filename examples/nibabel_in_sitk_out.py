"""A scan held by nibabel goes in; a SimpleITK label map and a pandas table come out."""

from __future__ import annotations

import nibabel
import SimpleITK

import medmaskrcnn
from medmaskrcnn_datasets.phantom import PhantomSettings, make_phantom


def nibabel_scan() -> nibabel.Nifti1Image:
    """A phantom CT; with a scan of yours this is ``nibabel.load("scan.nii.gz")``."""
    phantom = make_phantom(PhantomSettings(seed=2, shape=(24, 96, 96), spacing_mm=(8.0, 4.0, 4.0)))
    image = nibabel.Nifti1Image(phantom.volume.array[0].T, phantom.volume.grid.affine_xyz_to_ras)
    image.header["descrip"] = phantom.volume.provenance.generator  # phantom-ct knows only phantoms
    return image


def main() -> None:
    """Segment, hand on."""
    result = medmaskrcnn.segment(nibabel_scan(), model="phantom-ct")
    labels = result.to_sitk()
    SimpleITK.WriteImage(labels, "labels.nrrd")
    print("label map", labels.GetSize(), "voxels, spacing", [round(step, 2) for step in labels.GetSpacing()])
    table = result.to_dataframe()
    print(table.groupby("class")["volume_mm3"].agg(["count", "sum"]).round())
    for instance in result:
        print(f"{instance.id:3d} {instance.class_name:14s} {instance.score:.2f}")


if __name__ == "__main__":
    main()
