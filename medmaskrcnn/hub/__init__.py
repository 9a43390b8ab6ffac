"""Loading of models: shipped files, files on disk, torchvision's weights."""
