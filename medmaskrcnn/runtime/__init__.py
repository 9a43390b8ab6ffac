"""How the dense part of the network runs: on which device, in which precision."""
