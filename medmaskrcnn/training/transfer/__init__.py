"""Starting from weights that were learnt elsewhere: torchvision, MedicalNet, models of our own."""
