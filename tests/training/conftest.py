"""Small networks and the labelled case that tests of several rooms share."""

from labelled_case import labelled
from small_networks import tiny_file, tiny_model

__all__ = ["labelled", "tiny_file", "tiny_model"]
