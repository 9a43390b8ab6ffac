"""Access to the operating system: atomic file writes, child processes, memory, timing."""
