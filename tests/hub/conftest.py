"""Small networks that tests of several rooms share."""

from small_networks import _same_weights_every_time, tiny_file, tiny_model

__all__ = ["_same_weights_every_time", "tiny_file", "tiny_model"]
