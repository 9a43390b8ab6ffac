"""Labelled data: the manifest, its cases, and the check that says what would spoil a training."""
