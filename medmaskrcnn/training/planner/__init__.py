"""From a fingerprint of labelled data to a plan of training, with a reason for every decision."""
