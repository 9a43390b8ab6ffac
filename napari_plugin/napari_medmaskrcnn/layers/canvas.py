"""Draws a review in the viewer, one Labels layer per class and named boxes, and handles brush strokes and clicks.

A Labels layer holds one value per voxel, so an instance that overlaps another of its class goes onto a further layer.
Only changes are painted: moving a threshold touches only the voxels of instances that appear or disappear. The arrays
are full size, but only the memory pages that were painted into are allocated.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from napari.components import ViewerModel
from napari.layers import Image, Labels, Layer
from napari.utils.colormaps import DirectLabelColormap
from numpy.typing import NDArray
from psygnal import Signal

from medmaskrcnn.structures.mask import BoolArray, Mask
from medmaskrcnn.structures.overlap import pack_layers
from napari_medmaskrcnn.core.items import Item
from napari_medmaskrcnn.core.review_model import ReviewModel
from napari_medmaskrcnn.layers.boxes_layer import BoxesLayer
from napari_medmaskrcnn.layers.colours import class_rgba, distinct_rgba, instance_rgba
from napari_medmaskrcnn.layers.fly import fly_to
from napari_medmaskrcnn.layers.image_layers import layer_metadata
from napari_medmaskrcnn.layers.painted import apply_changes, changed_window, windows_meet
from napari_medmaskrcnn.layers.placement import TRANSFORMS, placement, transform_of

Window = tuple[slice, ...]

_SPARE_KEYS = 55
"""Number of instances that can be added before an 8-bit layer has to grow."""


@dataclass
class ClassLayer:
    """One Labels layer and the instances painted into it.

    Attributes:
        class_name: The class of all instances in it.
        layer: napari's layer.
        data: Its array ``(D, H, W)``, axes as displayed.
        windows: Where each key is painted.
        colours: Keys that are in its colormap.
    """

    class_name: str
    layer: Labels
    data: NDArray[Any]
    windows: dict[int, Window] = field(default_factory=dict)
    colours: frozenset[int | None] = frozenset()


class ResultCanvas:
    """Draws a review and follows its changes; emits clicks on instances.

    Args:
        viewer: napari's viewer.
        review: The review to draw.
        scan: The scan's image layer, on which the review's layers lie, also when it is moved; without it they lie where
            the scan's grid says.
        keys: Actions by key, in napari's notation; they act while one of the review's layers is active.
    """

    clicked = Signal(int, bool)
    """Emitted with the key of an instance that was clicked, 0 for none, and whether the selection is to be kept."""
    unsettled = Signal()
    """Emitted when there is something for :meth:`settle` to do."""

    def __init__(
        self,
        viewer: ViewerModel,
        review: ReviewModel,
        scan: Image | None = None,
        keys: Mapping[str, Callable[[], None]] | None = None,
    ) -> None:
        self.viewer, self.review, self._scan = viewer, review, scan
        place = placement(review.volume.grid, scan)
        self.frame, self.keep = place.frame, place.keep
        self._keys = {"Control-Z": review.undo, "Control-Shift-Z": review.redo, **(keys or {})}
        self._closed = False
        self.by_instance = len(review.class_names) == 1
        """Whether each instance has a colour of its own; of a single class (nuclei) they could not be told apart."""
        self._layers: list[ClassLayer] = []
        self._drawn: dict[int, tuple[ClassLayer, Item]] = {}
        self._stroke: dict[int, ClassLayer] = {}
        """The layer that instances are being painted on by the user, on which they stay."""
        self.waiting: list[Item] = []
        """What is to be shown and has no room on the layers there are."""
        self._common = {
            "metadata": layer_metadata(review.volume.grid, self.frame, volume=review.volume),
            **place.settings,
        }
        self.boxes = BoxesLayer(viewer, review, self.frame, self.keep, self._common)
        for layer in (self.boxes.layer, *([] if scan is None else [scan])):
            self._bind(layer)
        if scan is not None:
            for event in TRANSFORMS:
                getattr(scan.events, event).connect(self._follow_scan)
        review.edited.connect(self._on_edited)
        review.shown_changed.connect(self.draw)
        viewer.layers.events.removed.connect(self._on_removed)
        viewer.mouse_drag_callbacks.append(self._on_press)
        self.draw()
        self.settle()

    def close(self, *, remove_layers: bool = True) -> None:
        """Disconnect from review and viewer; the layers are removed unless they are to stay."""
        if self._closed:
            return
        self._closed = True
        self.review.edited.disconnect(self._on_edited)
        self.review.shown_changed.disconnect(self.draw)
        self.viewer.layers.events.removed.disconnect(self._on_removed)
        if self._on_press in self.viewer.mouse_drag_callbacks:
            self.viewer.mouse_drag_callbacks.remove(self._on_press)
        if self._scan is not None:
            for event in TRANSFORMS:
                getattr(self._scan.events, event).disconnect(self._follow_scan)
        for layer in (self.boxes.layer, *([] if self._scan is None else [self._scan])):
            self._unbind(layer)
        self.boxes.close(remove_layer=remove_layers)
        for one in self._layers:
            one.layer.events.paint.disconnect()
            self._unbind(one.layer)
            if remove_layers and one.layer in self.viewer.layers:
                self.viewer.layers.remove(one.layer)
        self._layers.clear()

    def draw(self) -> None:
        """Paint instances that appeared, erase those that disappeared.

        Instances that do not fit on existing layers wait for :meth:`settle`: napari needs a tenth of a second or more
        for a new layer, and a slider must not wait for that.
        """
        wanted = self.review.keys_shown()
        touched: list[ClassLayer] = []
        for key, (one, item) in list(self._drawn.items()):
            if key not in wanted or not _looks_same(self.review.items[key], item):
                self._erase(one, item)
                touched.append(one)
        missing = [self.review.items[key] for key in wanted - self._drawn.keys()]
        self.waiting = []
        for item in sorted(missing, key=lambda item: (-item.score, item.key)):
            mask, window = self._displayed(item)
            own = (one for one in self._layers if one.class_name == item.class_name)
            room = self._stroke.get(item.key) or next((one for one in own if _has_room(one, window, mask)), None)
            if room is None:
                self.waiting.append(item)
            else:
                self._paint(room, item)
                touched.append(room)
        for one in {id(one): one for one in touched}.values():
            one.layer.refresh(extent=False)
        self.boxes.draw()
        if self.waiting or self._spare():
            self.unsettled.emit()

    def settle(self) -> None:
        """Add the layers that waiting instances need, paint them, and remove further layers that became empty."""
        for one in self._spare():
            self.viewer.layers.remove(one.layer)
        waiting = [i for i in self.waiting if self.review.items.get(i.key) is i and i.key not in self._drawn]
        fresh: list[ClassLayer] = []
        for name in dict.fromkeys(item.class_name for item in waiting):
            own = [item for item in waiting if item.class_name == name]
            for layer in pack_layers([item.mask for item in own]):
                fresh.append(self._new_layer(name))
                for i in layer:
                    self._paint(fresh[-1], own[i])
        self.waiting = []
        order = list(self.review.class_names)
        self._insert(sorted(fresh, key=lambda one: order.index(one.class_name)))

    def _spare(self) -> list[ClassLayer]:
        """Additional layers of a class with nothing on them."""
        first = {one.class_name: one for one in reversed(self._layers)}
        active = self.viewer.layers.selection.active  # the user may be about to paint on it
        spare = [one for one in self._layers if not one.windows and one is not first[one.class_name]]
        return [one for one in spare if one.layer is not active]

    def select(self, keys: Sequence[int]) -> None:
        """Select instances; napari's brush then paints the last one, on its layer."""
        self.boxes.selected = set(keys)
        if keys and keys[-1] in self._drawn:
            one, item = self._drawn[keys[-1]]
            one.layer.selected_label = item.key

    def labels_layer(self, key: int) -> Labels | None:
        """The layer that an instance is painted on, ``None`` if it is not shown."""
        return self._drawn[key][0].layer if key in self._drawn else None

    def free_layer_of_class(self, class_name: str) -> Labels:
        """A layer of a class on which nothing is drawn, so that a new object there covers no other one."""
        found = next((one for one in self._layers if one.class_name == class_name and not one.windows), None)
        if found is None:
            found = self._new_layer(class_name)
            self._insert([found])
        return found.layer

    def center_on(self, key: int) -> None:
        """Move slider and camera to the slice where an instance is largest."""
        fly_to(self.viewer, self.boxes.layer, self.review.items[key].mask, self.frame, self.keep)

    def _on_edited(self, keys: set[int]) -> None:
        self.draw()
        self.settle()
        for one in self._layers:
            self._describe(one)

    def _displayed(self, item: Item) -> tuple[BoolArray, Window]:
        """An item's mask with the layers' axes, and the window it covers there."""
        mask = self.frame.mask_to_display(item.mask)
        flat = tuple(i for i in range(3) if i not in self.keep)
        return np.squeeze(mask.array, axis=flat), tuple(mask.window[i] for i in self.keep)

    def _paint(self, one: ClassLayer, item: Item) -> None:
        mask, window = self._displayed(item)
        if item.key > np.iinfo(one.data.dtype).max:
            one.data = one.data.astype(np.uint16)
            one.layer.data = one.data
        np.copyto(one.data[window], item.key, where=mask)
        one.windows[item.key] = window
        self._drawn[item.key] = (one, item)

    def _erase(self, one: ClassLayer, item: Item) -> None:
        mask, window = self._displayed(item)
        part = one.data[window]
        np.copyto(part, 0, where=mask & (part == item.key))
        del one.windows[item.key], self._drawn[item.key]

    def _new_layer(self, class_name: str) -> ClassLayer:
        """A layer for a class, not yet in the viewer."""
        depth = sum(one.class_name == class_name for one in self._layers) + 1
        name = class_name if depth == 1 else f"{class_name} (overlapping {depth})"
        stamp = " [out of domain]" if self.review.record.out_of_domain else ""
        dtype = np.uint8 if self.review.unused_key() + _SPARE_KEYS < 2**8 else np.uint16  # napari draws 8 bits faster
        data = np.zeros([self.frame.shape[i] for i in self.keep], dtype)
        colours = self._colours(class_name)
        settings = {"features": self._features(class_name), **self._common}
        layer = Labels(
            data, name=name + stamp, opacity=0.6, colormap=DirectLabelColormap(color_dict=colours), **settings
        )
        one = ClassLayer(class_name, layer, data, colours=frozenset(colours))
        self._layers.append(one)
        layer.events.paint.connect(partial(self._on_paint, one))
        self._bind(layer)
        layer.bind_key("M", self._choose_new_label, overwrite=True)
        return one

    def _bind(self, layer: Layer) -> None:
        """Bind the tools' keys to a layer alone: napari's own keys keep acting on the user's layers."""
        for key, action in self._keys.items():
            layer.bind_key(key, lambda _, act=action: act(), overwrite=True)

    def _unbind(self, layer: Layer) -> None:
        for key in self._keys:
            layer.bind_key(key, None)

    def _follow_scan(self, event: Any = None) -> None:
        """The user moved the scan: what was found on it moves along."""
        settings = transform_of(self._scan, len(self.keep))
        self._common |= settings
        for layer in (self.boxes.layer, *(one.layer for one in self._layers)):
            for name, value in settings.items():
                setattr(layer, name, value)
        self.boxes.draw()

    def _insert(self, fresh: Sequence[ClassLayer]) -> None:
        """Add layers to the viewer, below the boxes; the active layer stays active."""
        active = self.viewer.layers.selection.active
        for one in fresh:
            self.viewer.layers.insert(self.boxes.position(), one.layer)
        if active is not None and fresh:
            self.viewer.layers.selection.active = active

    def _describe(self, one: ClassLayer) -> None:
        """Set features for all instances of the layer's class, shown or not, and colours for new ones."""
        one.layer.features = self._features(one.class_name)
        colours = self._colours(one.class_name)
        if not one.colours >= colours.keys():
            one.colours = frozenset(colours)
            one.layer.colormap = DirectLabelColormap(color_dict=colours)

    def colour_by_instance(self, on: bool) -> None:
        """Give each instance a colour of its own, or that of its class."""
        self.by_instance = on
        for one in self._layers:
            one.layer.colormap = DirectLabelColormap(color_dict=self._colours(one.class_name))

    def _items(self, class_name: str) -> list[Item]:
        return [item for item in self.review.items.values() if item.class_name == class_name]

    def _colours(self, class_name: str) -> dict[int | None, Any]:
        names = self.review.class_names
        items = self._items(class_name)
        if self.by_instance:
            own: dict[int | None, Any] = {item.key: distinct_rgba(item.key) for item in items}
        else:
            own = {item.key: instance_rgba(names, class_name, item.key) for item in items}
        return {None: class_rgba(names, class_name), 0: np.zeros(4, np.float32), **own}

    def _features(self, class_name: str) -> dict[str, list[Any]]:
        items = self._items(class_name)
        return {
            "index": [item.key for item in items],
            "class": [item.class_name for item in items],
            "score": [round(item.score, 3) for item in items],
            f"volume_{self.volume_unit}": [item.size.volume_unit3 for item in items],
        }

    @property
    def volume_unit(self) -> str:
        """``"mm3"``, or ``"px"`` where the scan's spacing is unknown."""
        return "mm3" if self.review.volume.grid.spacing_known else "px"

    def _choose_new_label(self, layer: Labels) -> None:
        layer.selected_label = self.review.unused_key()

    def _on_paint(self, one: ClassLayer, event: Any) -> None:
        """Apply a brush stroke: update the masks of the instances it touched."""
        apply_changes(event.value, one.data)
        window, old_values = changed_window(event.value, one.data.shape)
        strangers = {int(k) for k in np.unique(one.data[window])} - one.windows.keys() - {0}
        for key in strangers & self.review.items.keys():  # a value in use on another layer: this is a new instance
            part = one.data[window]
            np.copyto(part, self.review.unused_key(), where=part == key)
        present = {int(k) for k in np.unique(one.data[window])} - {0}
        touched = present | {k for k in one.windows if k in old_values and windows_meet(one.windows[k], window)}
        masks = {}
        for key in touched:
            around = _hull(window, one.windows[key]) if key in one.windows else window
            mask = one.data[around] == key
            whole = tuple(around[self.keep.index(i)] if i in self.keep else slice(0, 1) for i in range(3))
            solid = np.expand_dims(mask, tuple(i for i in range(3) if i not in self.keep))
            stored = self.frame.mask_to_stored(Mask([part.start for part in whole], solid))
            masks[key] = (one.class_name, stored)
        self._stroke = dict.fromkeys(masks, one)
        self.review.repaint(masks)
        self._stroke = {}

    def _on_removed(self, event: Any) -> None:
        """The user removed one of our layers: its instances are hidden."""
        gone = [one for one in self._layers if one.layer is event.value]
        for one in gone:
            self._layers.remove(one)
            keys = set(one.windows)
            for key in keys:
                del self._drawn[key]
            self.review.set_hidden(keys, hidden=True)

    def _on_press(self, viewer: ViewerModel, event: Any) -> Iterator[None]:
        """Select the instance under a click without a drag, while no tool is active."""
        active = viewer.layers.selection.active
        if event.button != 1 or (active is not None and str(active.mode) not in ("pan_zoom", "transform")):
            return
        yield
        if event.type == "mouse_move":
            return
        key = self._key_at(event)
        modifiers = {str(getattr(m, "name", m)).lower() for m in event.modifiers}
        self.clicked.emit(key, bool(modifiers & {"control", "shift", "meta"}))

    def _key_at(self, event: Any) -> int:
        """Key under the cursor on the topmost layer; 0 if there is none."""
        ours: dict[Layer, ClassLayer] = {one.layer: one for one in self._layers}
        for layer in reversed(self.viewer.layers):
            if layer in ours and layer.visible:
                value = layer.get_value(
                    event.position,
                    view_direction=event.view_direction,
                    dims_displayed=event.dims_displayed,
                    world=True,
                )
                if value:
                    return int(value)
        return 0


def _looks_same(one: Item, other: Item) -> bool:
    return one.mask is other.mask and one.class_name == other.class_name


def _has_room(one: ClassLayer, window: Window, mask: BoolArray) -> bool:
    """Whether a mask overlaps nothing that is painted on a layer."""
    return not one.windows or not (one.data[window].astype(np.bool_) & mask).any()


def _hull(one: Window, other: Window) -> Window:
    return tuple(slice(min(a.start, b.start), max(a.stop, b.stop)) for a, b in zip(one, other, strict=True))
