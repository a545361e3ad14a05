"""Text out of files, within limits that no file can break."""
