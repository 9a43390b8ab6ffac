"""Services around the library: archives (PACS)."""
