"""The review of a result without napari or Qt: the model of a review, its instances, training cases."""
