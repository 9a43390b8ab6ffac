"""Reading scans: any file or folder becomes a Volume, or a ReadError that says why not."""
