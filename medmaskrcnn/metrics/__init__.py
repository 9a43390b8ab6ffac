"""How good a result is: matching of instances, average precision, Dice; 2D and 3D."""
