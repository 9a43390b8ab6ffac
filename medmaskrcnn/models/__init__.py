"""Mask R-CNN: backbone, feature pyramid, proposals, heads, losses and runtimes."""
