"""Runtimes of the network: device, precision, torch.compile, OpenVINO, profiling."""
