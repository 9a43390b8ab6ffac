"""Where models come from: shipped files, files on disk, torchvision's weights; loaded and ready to run."""
