"""From the network's detections to instances in the scan's own voxels: merged, linked, restored."""
