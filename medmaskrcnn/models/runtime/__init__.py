"""How the dense part of the network runs: device, precision, torch.compile, OpenVINO."""
