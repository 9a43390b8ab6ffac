"""Where losses and scores are shown beside the tables: TensorBoard always, Weights & Biases if asked.

Weights & Biases goes by its own settings: ``WANDB_MODE=offline`` sends nothing and keeps all in the run's folder,
for ``wandb sync`` later; ``WANDB_API_KEY`` or ``wandb login`` say who sends it.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from tensorboardX import SummaryWriter

from medmaskrcnn.errors import MissingExtraError
from medmaskrcnn.system.files import write_bytes

_RUN_ID = "wandb-run-id.txt"


class Board(Protocol):
    """Takes figures as they come."""

    def add(self, values: Mapping[str, float], step: int) -> None:
        """Add the figures of a step, by name; a slash in the name makes a group."""

    def close(self) -> None:
        """Write what is waiting, and end."""


class TensorBoard:
    """Events in ``tensorboard/``.

    Args:
        folder: Folder of the run.
        step: Updates done so far; later events of an interrupted run are not shown.
    """

    def __init__(self, folder: Path, step: int) -> None:
        self.writer = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)

    def add(self, values: Mapping[str, float], step: int) -> None:
        """As :meth:`Board.add`."""
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)

    def close(self) -> None:
        """As :meth:`Board.close`."""
        self.writer.close()


class WeightsAndBiases:
    """A run of Weights & Biases; a resumed training goes on with the same one.

    Args:
        project: Name of the project there.
        folder: Folder of the run, in which its files are kept.
        config: Settings to show with the run.

    Raises:
        MissingExtraError: if ``wandb`` is not installed.
    """

    def __init__(self, project: str, folder: Path, config: Mapping[str, Any]) -> None:
        try:
            wandb: Any = import_module("wandb")
        except ImportError as error:
            raise MissingExtraError('tracking needs Weights & Biases: pip install "medmaskrcnn[wandb]"') from error
        kept = folder / _RUN_ID
        before = kept.read_text(encoding="utf-8").strip() if kept.exists() else None
        self.run: Any = wandb.init(
            project=project,
            name=folder.resolve().name,
            dir=str(folder),
            config=dict(config),
            id=before,
            resume="allow",
        )
        write_bytes(kept, str(self.run.id).encode())

    def add(self, values: Mapping[str, float], step: int) -> None:
        """As :meth:`Board.add`."""
        self.run.log(dict(values), step=step)

    def close(self) -> None:
        """As :meth:`Board.close`."""
        self.run.finish()
