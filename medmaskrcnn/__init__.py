"""medmaskrcnn: instance segmentation of organs and tumours in medical scans.

Research software, not a medical device. The public names load lazily, so that ``import medmaskrcnn`` and the
command line's ``--help`` stay fast: torch is imported when a model is.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from medmaskrcnn.structures.renderer import register_renderer
from medmaskrcnn.system.version import __version__

if TYPE_CHECKING:
    from medmaskrcnn.batch_runs.api import batch as batch
    from medmaskrcnn.errors import MedMaskRCNNError as MedMaskRCNNError
    from medmaskrcnn.evaluation.evaluate import evaluate as evaluate
    from medmaskrcnn.evaluation.label_errors import find_label_errors as find_label_errors
    from medmaskrcnn.evaluation.predictions import evaluate_predictions as evaluate_predictions
    from medmaskrcnn.explain.trace import trace as trace
    from medmaskrcnn.export.write import write_result as write_result
    from medmaskrcnn.hub.loaded_model import load_model as load_model
    from medmaskrcnn.hub.model_file import shipped_models as shipped_models
    from medmaskrcnn.inference.pipeline import segment as segment
    from medmaskrcnn.io.discover import describe as describe
    from medmaskrcnn.io.memory import as_volume as as_volume
    from medmaskrcnn.io.read import read_volume as read_volume
    from medmaskrcnn.models.build import build_model as build_model
    from medmaskrcnn.models.mask_rcnn import MaskRCNN as MaskRCNN
    from medmaskrcnn.settings.network import ModelSettings as ModelSettings
    from medmaskrcnn.structures.case_result import CaseResult as CaseResult
    from medmaskrcnn.structures.grid import Grid as Grid
    from medmaskrcnn.structures.instances import Instances as Instances
    from medmaskrcnn.structures.store import load_case as load_case
    from medmaskrcnn.structures.store import save_case as save_case
    from medmaskrcnn.structures.volume import Volume as Volume
    from medmaskrcnn.training.plan import read_plan as read_plan
    from medmaskrcnn.training.run import train as train
    from medmaskrcnn.training.suggest.suggest import suggest as suggest

_HOMES = {
    "CaseResult": "structures.case_result",
    "Grid": "structures.grid",
    "Instances": "structures.instances",
    "MaskRCNN": "models.mask_rcnn",
    "MedMaskRCNNError": "errors",
    "ModelSettings": "settings.network",
    "Volume": "structures.volume",
    "as_volume": "io.memory",
    "batch": "batch_runs.api",
    "build_model": "models.build",
    "describe": "io.discover",
    "evaluate": "evaluation.evaluate",
    "evaluate_predictions": "evaluation.predictions",
    "find_label_errors": "evaluation.label_errors",
    "load_case": "structures.store",
    "load_model": "hub.loaded_model",
    "read_plan": "training.plan",
    "read_volume": "io.read",
    "save_case": "structures.store",
    "segment": "inference.pipeline",
    "shipped_models": "hub.model_file",
    "suggest": "training.suggest.suggest",
    "trace": "explain.trace",
    "train": "training.run",
    "write_result": "export.write",
}

__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'medmaskrcnn' has no attribute {name!r}")
    return getattr(import_module(f"medmaskrcnn.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)


register_renderer(lambda: import_module("medmaskrcnn.report.case_view"))  # type: ignore[arg-type, return-value]
