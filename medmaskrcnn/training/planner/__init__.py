"""From the fingerprint of a labelled dataset to a training plan, with a reason for every decision."""
