"""The scan and its result that tests of export and report share."""

from result_case import (
    build as build,
    case as case,
    ct as ct,
    ct_case as ct_case,
    ct_folder as ct_folder,
    dcmqi as dcmqi,
    errors_of as errors_of,
    picture as picture,
    put_masks as put_masks,
)
