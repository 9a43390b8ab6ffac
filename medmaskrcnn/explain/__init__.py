"""Pages that explain a forward pass on one image step by step, and a training run."""
