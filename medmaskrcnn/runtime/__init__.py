"""How the dense part of the network runs: device and precision, chosen by one rule."""
