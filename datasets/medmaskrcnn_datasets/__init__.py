"""Labelled data for medmaskrcnn: phantoms, and adapters from other formats to the manifest that training reads."""

from medmaskrcnn.training.manifest import Manifest, ManifestCase, ManifestInstance
from medmaskrcnn_datasets.dicom_series import write_dicom_series
from medmaskrcnn_datasets.manifest import write_manifest
from medmaskrcnn_datasets.msd import msd_dataset
from medmaskrcnn_datasets.nifti import write_nifti
from medmaskrcnn_datasets.phantom import Phantom, PhantomInstance, PhantomSettings, make_phantom, random_settings
from medmaskrcnn_datasets.phantom_dataset import phantom_dataset
from medmaskrcnn_datasets.splits import SplitRule

__all__ = [
    "Manifest",
    "ManifestCase",
    "ManifestInstance",
    "Phantom",
    "PhantomInstance",
    "PhantomSettings",
    "SplitRule",
    "make_phantom",
    "msd_dataset",
    "phantom_dataset",
    "random_settings",
    "write_dicom_series",
    "write_manifest",
    "write_nifti",
]
