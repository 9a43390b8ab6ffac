"""From a scan to counted and measured instances. Start reading at :mod:`.pipeline`."""
