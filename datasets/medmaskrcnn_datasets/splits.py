"""Who is for training, who for validation, who for testing: decided by patient, never by scan."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

from medmaskrcnn.training.manifest import Split


@dataclass(frozen=True)
class SplitRule:
    """Patients held out by name, and folds of the others.

    Attributes:
        test: Patients for testing.
        val: Patients for validation.
        folds: With 2 or more, the patients named in neither list are dealt into so many folds in an order that
            depends on their names alone.
        fold: Which of the folds, from 0, is for validation.

    Raises:
        ValueError: if a patient is in both lists or the fold does not exist.
    """

    test: tuple[str, ...] = ()
    val: tuple[str, ...] = ()
    folds: int = 0
    fold: int = 0

    def __post_init__(self) -> None:
        both = sorted(set(self.test) & set(self.val))
        if both:
            raise ValueError(f"patients must be in test or val, not both: {both}")
        if self.folds < 0 or self.folds == 1 or not 0 <= self.fold < max(1, self.folds):
            raise ValueError(f"folds must be 0 or at least 2 and fold one of 0..folds-1, got {self.folds}, {self.fold}")

    def assign(self, patients: Iterable[str]) -> dict[str, Split]:
        """The split of each patient.

        Raises:
            ValueError: if a named patient is not among them, or there are fewer patients than folds.
        """
        names = sorted(set(patients))
        unknown = sorted((set(self.test) | set(self.val)) - set(names))
        if unknown:
            raise ValueError(f"unknown patients {unknown}; there are {', '.join(names)}")
        result: dict[str, Split] = dict.fromkeys(names, "train")
        result |= dict.fromkeys(self.test, "test")
        result |= dict.fromkeys(self.val, "val")
        others = [n for n in names if result[n] == "train"]
        if self.folds > len(others):
            raise ValueError(f"{self.folds} folds need as many patients, got {len(others)}")
        if self.folds:
            others.sort(key=lambda name: hashlib.sha256(name.encode()).hexdigest())
            result |= dict.fromkeys(others[self.fold :: self.folds], "val")
        return result
