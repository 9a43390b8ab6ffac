"""Reads predictions of any tool onto the grids of a manifest's cases, under the manifest's class names."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from medmaskrcnn.data.case_labels import read_case
from medmaskrcnn.data.manifest import Manifest, ManifestCase
from medmaskrcnn.errors import InvalidOptionError, ReadError
from medmaskrcnn.evaluation.evaluate import CasePair
from medmaskrcnn.evaluation.prediction_files import class_of_mask, find_predictions, is_label_map, values_of_classes
from medmaskrcnn.evaluation.prediction_masks import is_our_map, our_values, read_prediction
from medmaskrcnn.evaluation.reference import reference_of
from medmaskrcnn.io.labels.object_rules import OBJECT_RULES, ObjectRule, instances_by_rule
from medmaskrcnn.io.labels.read import class_names_in
from medmaskrcnn.structures.class_names import ClassMatch, match_class_names, nothing_shared, same_name
from medmaskrcnn.structures.instances import Instances, empty_instances
from medmaskrcnn.structures.volume import Volume

log = logging.getLogger(__name__)

_WORDS: dict[ObjectRule, str] = {
    "components": "each connected part is one",
    "whole": "all of a case is one",
    "instances": "each as labelled",
}


@dataclass(frozen=True)
class PredictionOptions:
    """How predictions are read.

    Attributes:
        classes: Class by value of label maps, where neither a ``dataset.json`` beside them nor their header tells.
        rules: What one object of a class is, by the manifest's class name; ``""`` is the rule of all others. By default
            a map of classes gives what the manifest's cases show (a class of which a case has two objects is taken
            apart into its connected parts, any other is one object), and other files give the objects that they hold.
        within: Class to the class that it lies in, whose mask then includes it; by default as the manifest's instances
            say (``part_of``).
        rename: Classes that predictions and manifest call differently.
        missing_is_empty: A case without prediction counts as one in which nothing was found; otherwise as failed.
    """

    classes: Mapping[int, str] = field(default_factory=dict)
    rules: Mapping[str, ObjectRule] = field(default_factory=dict)
    within: Mapping[str, str] | None = None
    rename: Mapping[str, str] = field(default_factory=dict)
    missing_is_empty: bool = True

    def __post_init__(self) -> None:
        unknown = sorted({str(rule) for rule in self.rules.values()} - set(OBJECT_RULES))
        if unknown:
            raise InvalidOptionError("rule", f"there is no rule {', '.join(unknown)}; rules: {', '.join(OBJECT_RULES)}")


class PredictionReader:
    """Reads the predictions of a folder; finds their files and what their classes are once, before the first case."""

    def __init__(
        self, source: Path, manifest: Manifest, cases: Sequence[ManifestCase], options: PredictionOptions
    ) -> None:
        self.manifest, self.options = manifest, options
        self.files = find_predictions(source, manifest, cases)
        self.missing = tuple(case.id for case in cases if case.id not in self.files)
        maps = [files[0] for files in self.files.values() if len(files) == 1 and is_label_map(files[0])]
        self.values = self._values(source, [file for file in maps if not is_our_map(file)])
        self.match = self._match()
        self.rules = {name: rule for name in self.match.names if (rule := self._asked().get(name)) is not None}
        self.rules_of_maps, self.within = self._as_labelled()
        self._notes: dict[str, list[str]] = {}
        self._by_rule = False

    def _values(self, source: Path, maps: Sequence[Path]) -> dict[str, tuple[int, ...]]:
        """Values of each class in label maps; none for maps of instances, in which every value is one."""
        if not maps:
            return {}
        if self.options.classes:
            given: dict[str, tuple[int, ...]] = {}
            for value, name in self.options.classes.items():
                given[name] = (*given.get(name, ()), value)
            return given
        written = values_of_classes(source, maps[0])
        if written:
            return written
        if len(self.manifest.class_names) > 1:
            raise InvalidOptionError(
                "label",
                f"nothing tells which class each value of {maps[0].name} is: put the tool's dataset.json beside it, or "
                f"name the values, for example 1={self.manifest.class_names[0]}",
            )
        return {}

    def _match(self) -> ClassMatch:
        names: dict[str, None] = dict.fromkeys(self.values)
        for case, files in self.files.items():
            if len(files) > 1:
                names.update(dict.fromkeys(class_of_mask(file) for file in files))
            elif is_our_map(files[0]):
                names.update(dict.fromkeys(name for name, _ in our_values(files[0]).values()))
            elif not is_label_map(files[0]):
                names.update(dict.fromkeys(self._names_in(case, files[0])))
            elif not self.values:
                names.update({self.manifest.class_names[0]: None})
        match = match_class_names(tuple(names), self.manifest.class_names, rename=self.options.rename)
        if not match.names:
            raise nothing_shared(match, "the predictions", "the manifest")
        return match

    def _names_in(self, case: str, file: Path) -> tuple[str, ...]:
        """Class names of a file; none if it is damaged, which is told when its case's turn comes."""
        try:
            return class_names_in(file) or ()
        except ReadError as error:
            log.warning("case %s: %s", case, error.reason)
            return ()

    def _asked(self) -> dict[str, ObjectRule]:
        """The rules that the user gave, by evaluated class."""
        asked = {self._known(name): rule for name, rule in self.options.rules.items() if name}
        others = self.options.rules.get("")
        return asked if others is None else {name: asked.get(name, others) for name in self.match.names}

    def _known(self, name: str) -> str:
        """An evaluated class by the name that it has in predictions or manifest."""
        names = {**self.match.first, **self.match.second, **{n: n for n in self.match.names}}
        known = same_name(name, tuple(names))
        if known is None:
            raise InvalidOptionError(
                "rule", f"no class {name!r} is evaluated; the classes are {', '.join(self.match.names)}"
            )
        return names[known]

    def _as_labelled(self) -> tuple[dict[str, ObjectRule], dict[str, str]]:
        """What the labelled cases show: the rule of each class, and classes that lie in another (or as asked)."""
        several: set[str] = set()
        inside: dict[str, str] = {}
        for case in self.manifest.cases:
            names = [None if one.ignore else self.match.second.get(one.class_name or "") for one in case.instances]
            several |= {name for name in names if name is not None and names.count(name) > 1}
            by_value = {(one.map, one.value): name for one, name in zip(case.instances, names, strict=True)}
            for one, name in zip(case.instances, names, strict=True):
                outer = by_value.get((one.map, one.part_of or 0))
                if name is not None and outer is not None and outer != name:
                    inside[name] = outer
        if self.options.within is not None:
            inside = {self._known(inner): self._known(outer) for inner, outer in self.options.within.items()}
        shown: dict[str, ObjectRule] = {n: "components" if n in several else "whole" for n in self.match.names}
        return shown | self.rules, inside

    def notes(self) -> tuple[str, ...]:
        """What was assumed, and what was said on reading: of cases with the same note, the first and their number."""
        rules = self.rules_of_maps if self._by_rule else self.rules
        objects = ", ".join(f"{name}: {_WORDS[rule]}" for name, rule in rules.items())
        assumed = [f"objects of the predictions: {objects}"] if objects else []
        assumed += [f"{inner} lies in {outer}, whose mask includes it" for inner, outer in self.within.items()]
        told = [
            f"{cases[0]}{f' and {len(cases) - 1} more' if len(cases) > 1 else ''}: {note}"
            for note, cases in self._notes.items()
        ]
        return (*assumed, *told)

    def pair(self, case: ManifestCase) -> CasePair:
        """A case's prediction and reference.

        Raises:
            ReadError: if a file cannot be read, does not lie on the scan, or is missing and may not be.
        """
        scan = read_case(self.manifest, case)
        reference = reference_of(scan, self.match)
        if case.id in self.files:
            predicted = self._predicted(case, scan.volume)
        elif self.options.missing_is_empty:
            predicted = empty_instances(scan.volume.grid, self.match.names)
        else:
            raise ReadError(f"case {case.id} has no prediction")
        return CasePair(
            case.id,
            case.patient,
            predicted,
            reference.instances,
            crowd=reference.crowd,
            annotated=reference.annotated,
            volume=scan.volume,
            case_labels=case.case_labels,
        )

    def _predicted(self, case: ManifestCase, volume: Volume) -> Instances:
        files = self.files[case.id]
        labels = read_prediction(files, case, volume, self.values, self.manifest.class_names[0])
        for note in labels.notes:
            self._notes.setdefault(note, []).append(case.id)
        found = labels.instances
        if len(found) and all(mask.is_empty for mask in found.masks):
            raise ReadError(f"case {case.id}: nothing in {files[0]} lies on the scan: was it made from another one?")
        rules = self.rules_of_maps if self._is_of_classes(files, found) else self.rules
        return instances_by_rule(found.renamed(self.match.first, self.match.names), rules, self.within)

    def _is_of_classes(self, files: tuple[Path, ...], found: Instances) -> bool:
        """Whether a prediction says which voxels are of a class, and not which of them are one object."""
        is_map = is_label_map(files[0]) and not is_our_map(files[0])
        of_classes = is_map and (bool(self.values) or len(files) > 1 or len(found) <= 1)
        self._by_rule |= of_classes
        return of_classes
