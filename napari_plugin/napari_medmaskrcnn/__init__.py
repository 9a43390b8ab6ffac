"""napari plugin of medmaskrcnn: opens scans and the results of ``medmaskrcnn segment``, right way round, in mm.

``napari.yaml`` is the table of contents. Depends on no one Qt binding; the library never imports napari.
"""
