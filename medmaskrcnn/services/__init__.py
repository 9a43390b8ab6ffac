"""Services on top of the library: archives (PACS)."""
