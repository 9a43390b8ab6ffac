"""Labelled data for medmaskrcnn: phantoms, and adapters from other formats to the manifest that training reads."""

from medmaskrcnn_datasets.manifest import Manifest, ManifestCase, ManifestInstance, write_manifest
from medmaskrcnn_datasets.nifti import write_nifti
from medmaskrcnn_datasets.phantom import Phantom, PhantomInstance, PhantomSettings, make_phantom, random_settings
from medmaskrcnn_datasets.phantom_dataset import phantom_dataset

__all__ = [
    "Manifest",
    "ManifestCase",
    "ManifestInstance",
    "Phantom",
    "PhantomInstance",
    "PhantomSettings",
    "make_phantom",
    "phantom_dataset",
    "random_settings",
    "write_manifest",
    "write_nifti",
]
