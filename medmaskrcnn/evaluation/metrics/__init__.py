"""Metrics of agreement between predictions and references: AP, FROC, Dice, surface distances, panoptic quality."""
