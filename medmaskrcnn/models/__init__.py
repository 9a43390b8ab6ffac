"""The Mask R-CNN: backbone, pyramid, proposals, heads, losses, and the file that a model is kept in."""
