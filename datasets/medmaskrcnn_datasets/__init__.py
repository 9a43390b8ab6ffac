"""Labelled data for medmaskrcnn: phantoms, and adapters from other formats to the training manifest."""

from medmaskrcnn.data.manifest import Manifest, ManifestCase, ManifestInstance
from medmaskrcnn.export.nifti import write_nifti
from medmaskrcnn_datasets.coco import coco_dataset
from medmaskrcnn_datasets.convert import ConversionOptions, detect_format, to_manifest
from medmaskrcnn_datasets.dicom_labels import dicom_dataset
from medmaskrcnn_datasets.dicom_series import write_dicom_series
from medmaskrcnn_datasets.folders import instances_dataset, semantic_dataset
from medmaskrcnn_datasets.join import join_datasets
from medmaskrcnn_datasets.manifest import write_manifest
from medmaskrcnn_datasets.msd import msd_dataset
from medmaskrcnn_datasets.nnunet import nnunet_dataset
from medmaskrcnn_datasets.objects import ClassRules
from medmaskrcnn_datasets.phantom import Phantom, PhantomInstance, PhantomSettings, make_phantom, random_settings
from medmaskrcnn_datasets.phantom_dataset import phantom_dataset
from medmaskrcnn_datasets.splits import SplitRule, read_splits

__all__ = [
    "ClassRules",
    "ConversionOptions",
    "Manifest",
    "ManifestCase",
    "ManifestInstance",
    "Phantom",
    "PhantomInstance",
    "PhantomSettings",
    "SplitRule",
    "coco_dataset",
    "detect_format",
    "dicom_dataset",
    "instances_dataset",
    "join_datasets",
    "make_phantom",
    "msd_dataset",
    "nnunet_dataset",
    "phantom_dataset",
    "random_settings",
    "read_splits",
    "semantic_dataset",
    "to_manifest",
    "write_dicom_series",
    "write_manifest",
    "write_nifti",
]
