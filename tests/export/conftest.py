"""The scan and its result that tests of several rooms share."""

from result_case import build, case, ct, ct_case, ct_folder, dcmqi, errors_of, picture, put_masks

__all__ = ["build", "case", "ct", "ct_case", "ct_folder", "dcmqi", "errors_of", "picture", "put_masks"]
