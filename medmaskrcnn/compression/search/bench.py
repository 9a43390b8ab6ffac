"""Measures the variants of a search one by one and stores the outcomes; a failing variant does not end the search."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from medmaskrcnn.compression.search.forms import Forms
from medmaskrcnn.compression.search.measure import CountProgress, average_precision, paired_seconds, times_as_fast
from medmaskrcnn.compression.search.report import Measured
from medmaskrcnn.compression.search.variant import ORIGINAL, Variant, VariantResult
from medmaskrcnn.errors import one_line
from medmaskrcnn.hub.loaded_model import LoadedModel
from medmaskrcnn.inference.pipeline import segment
from medmaskrcnn.settings.segment_options import AS_THE_MODEL_SAYS, SegmentOptions
from medmaskrcnn.structures.volume import Volume
from medmaskrcnn.training.training_run import Event

_TURNS = 5
_ENOUGH = 60.0  # seconds of timing per variant, after the first round

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Listener:
    """Callbacks that report the progress of a search.

    Attributes:
        trying: Called when a variant begins.
        ended: Called with its outcome.
        cases: Called with the number of cases evaluated and the total.
        training: Called as fine-tuning progresses.
    """

    trying: Callable[[Variant], None] = lambda variant: None
    ended: Callable[[VariantResult], None] = lambda outcome: None
    cases: CountProgress = lambda done, total: None
    training: Callable[[Event], None] | None = None


@dataclass
class Bench:
    """Measures variants.

    Attributes:
        forms: Their model files.
        split: Split of the manifest on which AP is measured.
        volumes: Scans used for timing.
        measured: Outcomes measured so far; new ones are added.
        on_event: Callbacks that report progress.
        options: How scans are segmented, such as whether to run on scans that the model refuses.
    """

    forms: Forms
    split: str
    volumes: Sequence[Volume]
    measured: Measured
    on_event: Listener
    options: SegmentOptions = AS_THE_MODEL_SAYS

    def __post_init__(self) -> None:
        self.seen: dict[Variant, VariantResult] = {}
        self._original: LoadedModel | None = None

    def outcome(self, variant: Variant) -> VariantResult:
        """Speed and AP of a variant.

        Raises:
            Exception: any failure of the original; failures of other variants are reported in the outcome.
        """
        if variant not in self.seen:
            known = self.measured.of(variant)
            if known is None:
                self.on_event.trying(variant)
                known = self._tried(variant)
                self.measured.add(known)
            self.seen[variant] = known
            self.on_event.ended(known)
        return self.seen[variant]

    def _tried(self, variant: Variant) -> VariantResult:
        try:
            return self._measure(variant)
        except Exception as error:  # from any library: the other variants are still tried
            if variant == ORIGINAL:
                raise
            log.exception("variant %s failed", variant.name)
            return VariantResult(variant, error=f"{type(error).__name__}: {one_line(error)}")

    def _measure(self, variant: Variant) -> VariantResult:
        loaded, original = self.forms.load(variant), self._warm_original()
        before, after = paired_seconds(
            original, loaded, self.volumes, turns=_TURNS, enough=_ENOUGH, options=self.options
        )
        ap = average_precision(
            loaded, self.forms.manifest, self.split, options=self.options, progress=self.on_event.cases
        )
        times = 1.0 if variant == ORIGINAL else times_as_fast(before, after)
        return VariantResult(variant, round(sorted(after)[len(after) // 2], 5), round(times, 4), round(ap, 6))

    def _warm_original(self) -> LoadedModel:
        if self._original is None:
            self._original = self.forms.load(ORIGINAL)
            for volume in self.volumes:
                segment(volume, self._original, options=self.options)
        return self._original
