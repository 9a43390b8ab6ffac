"""The review of a result, independent of napari and Qt: review model, instances, training cases."""
