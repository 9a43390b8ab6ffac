"""napari plugin of medmaskrcnn: opens scans and results of ``medmaskrcnn segment``, correctly oriented, in mm.

``napari.yaml`` is the table of contents. Works with any Qt binding; the library never imports napari.
"""
