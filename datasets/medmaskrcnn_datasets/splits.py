"""Assigns patients, never single scans, to training, validation and test splits."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from medmaskrcnn.data.manifest import Split
from medmaskrcnn.errors import ReadError
from medmaskrcnn.system.text_files import decode_json_text

_FEWEST = 3  # patients; from this many on, a split with a share gets at least one


@dataclass(frozen=True)
class SplitRule:
    """Named patients in a split, shares of the others, and folds of the rest.

    Patients not named are put in an order that depends only on their names (SHA-256), so that the same patients are
    always in the same split; the first of them are for testing, the next for validation.

    Attributes:
        test: Patients for testing.
        val: Patients for validation.
        train: Patients that always stay in training.
        test_share: Share of all patients that is for testing, those in ``test`` included.
        val_share: Share of all patients that is for validation, those in ``val`` included.
        folds: With 2 or more, the patients left for training are divided into this many folds.
        fold: Which of the folds, from 0, is for validation.
        fallback: It holds only for a data set that does not say itself which cases are for what.

    Raises:
        ValueError: if a patient is in two lists, the shares leave no training patient, or the fold does not exist.
    """

    test: tuple[str, ...] = ()
    val: tuple[str, ...] = ()
    train: tuple[str, ...] = ()
    test_share: float = 0.0
    val_share: float = 0.0
    folds: int = 0
    fold: int = 0
    fallback: bool = False

    def __post_init__(self) -> None:
        lists = (set(self.test), set(self.val), set(self.train))
        both = sorted((lists[0] & lists[1]) | (lists[0] & lists[2]) | (lists[1] & lists[2]))
        if both:
            raise ValueError(f"patients must be in one of test, val and train, not both: {both}")
        if min(self.test_share, self.val_share) < 0 or self.test_share + self.val_share >= 1:
            raise ValueError(
                f"shares must lie in 0..1 and leave a rest for training, got {self.test_share} and {self.val_share}"
            )
        if self.folds < 0 or self.folds == 1 or not 0 <= self.fold < max(1, self.folds):
            raise ValueError(f"folds must be 0 or at least 2 and fold one of 0..folds-1, got {self.folds}, {self.fold}")
        if self.folds and self.val_share:
            raise ValueError("give either folds or a share for validation, not both")

    def assign(self, patients: Iterable[str]) -> dict[str, Split]:
        """The split of each patient.

        Raises:
            ValueError: if a named patient is not among them, or there are fewer patients than folds.
        """
        names = sorted(set(patients))
        unknown = sorted((set(self.test) | set(self.val) | set(self.train)) - set(names))
        if unknown:
            raise ValueError(f"unknown patients {unknown}; there are {', '.join(names)}")
        result: dict[str, Split] = dict.fromkeys(names, "train")
        result |= dict.fromkeys(self.test, "test")
        result |= dict.fromkeys(self.val, "val")
        unnamed = self._shuffled(result)
        for split, share in (("test", self.test_share), ("val", self.val_share)):
            wanted = max(round(share * len(names)), 1 if share and len(names) >= _FEWEST else 0)
            missing = max(0, wanted - sum(s == split for s in result.values()))
            taken, unnamed = unnamed[:missing], unnamed[missing:]
            result |= dict.fromkeys(taken, split)  # type: ignore[arg-type]
        return result | {name: "val" for name, fold in self._dealt(unnamed).items() if fold == self.fold}

    def fold_of(self, patients: Iterable[str]) -> dict[str, int]:
        """The fold of each patient in one, whichever fold is for validation; raises as :meth:`assign`."""
        names = sorted(set(patients))
        held_out = {name for name, split in self.assign(names).items() if split == "test"} | set(self.val)
        return self._dealt([name for name in self._shuffled(dict.fromkeys(names, "train")) if name not in held_out])

    def _shuffled(self, splits: dict[str, Split]) -> list[str]:
        """Training patients in no list, in their fixed order."""
        free = [name for name, split in splits.items() if split == "train" and name not in self.train]
        return sorted(free, key=lambda name: hashlib.sha256(name.encode()).hexdigest())

    def _dealt(self, names: list[str]) -> dict[str, int]:
        if self.folds > len(names):
            raise ValueError(f"{self.folds} folds need as many patients, got {len(names)}")
        return {name: number % self.folds for number, name in enumerate(names)} if self.folds else {}


def read_splits(path: Path | str) -> SplitRule:
    """Read a split file, ``{"test": [...], "val": [...]}``; all other patients are for training.

    Further keys (author, rule used) are ignored.

    Raises:
        ReadError: if it cannot be read or lacks such lists.
        ValueError: if a patient is in both.
    """
    try:
        content = json.loads(decode_json_text(Path(path).read_bytes()))
    except OSError as error:
        raise ReadError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise ReadError(f"{path} is no JSON: {error}") from error
    lists = [content.get(key, []) for key in ("test", "val")] if isinstance(content, dict) else []
    if not any(lists) or not all(isinstance(one, list) for one in lists):
        raise ReadError(f'{path} must hold lists of patients, {{"test": ["p1"], "val": ["p2"]}}')
    test, val = (tuple(str(name) for name in one) for one in lists)
    return SplitRule(test=test, val=val)
