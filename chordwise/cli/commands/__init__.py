"""The commands, one file each; the first line of a file is its entry in the list of commands."""
