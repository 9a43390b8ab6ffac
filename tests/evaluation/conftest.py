"""The labelled case that tests of several rooms share."""

from labelled_case import labelled

__all__ = ["labelled"]
