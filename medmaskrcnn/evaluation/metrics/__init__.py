"""How well predictions agree with references: AP, FROC, Dice, surface distances, panoptic quality."""
