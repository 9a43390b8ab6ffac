"""Transfer learning: start from weights of torchvision, MedicalNet or our own models."""
