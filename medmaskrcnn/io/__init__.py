"""Reading scans: any file or folder becomes a Volume, or raises a ReadError with the reason."""
