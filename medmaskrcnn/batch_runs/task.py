"""One case as it is sent to a worker, on this machine or another, as JSON."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from medmaskrcnn.settings import OutputOptions, SegmentOptions


@dataclass(frozen=True)
class Task:
    """A case to process.

    Attributes:
        id: Its id in the ledger.
        out: The output folder, absolute.
        folder: Folder of its result, relative to ``out``.
        files: Files that the scan is read from; empty if it lies in an archive.
        part: Which volume of the series.
        archive: Path of a zip archive, and the scan's index in its listing.
        options: How to read and segment.
        output: What to write.
        hidden: Paths that no result may contain.
        sequences: Of a case of several series: name of each and how many of the files are its, in their order.
    """

    id: int
    out: str
    folder: str
    files: tuple[str, ...]
    part: str
    archive: tuple[str, int] | None
    options: SegmentOptions
    output: OutputOptions
    hidden: tuple[str, ...] = ()
    sequences: tuple[tuple[str, int], ...] = ()

    @property
    def about(self) -> str:
        """The file that error messages name."""
        return self.archive[0] if self.archive else self.files[0]

    def to_json(self) -> dict[str, Any]:
        """The task as values that JSON can hold."""
        options, output = self.options.model_dump(mode="json"), self.output.model_dump(mode="json")
        return {**vars(self), "options": options, "output": output}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Task:
        """The inverse of :meth:`to_json`, also after encoding and decoding as JSON."""
        archive = values["archive"]
        return cls(
            **{
                **values,
                "files": tuple(values["files"]),
                "archive": None if archive is None else (archive[0], archive[1]),
                "options": SegmentOptions.model_validate(values["options"]),
                "output": OutputOptions.model_validate(values["output"]),
                "hidden": tuple(values["hidden"]),
                "sequences": tuple((name, count) for name, count in values["sequences"]),
            }
        )
