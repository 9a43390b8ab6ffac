"""Labelled data: the manifest, its cases, and the check before training."""
