"""The command line: one module per command, joined in :mod:`.main`. The only place of the library that prints."""
