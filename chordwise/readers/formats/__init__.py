"""The formats of files with a reader, one file each."""
