"""What the library needs of the operating system: files written whole, child processes, memory, timing."""
