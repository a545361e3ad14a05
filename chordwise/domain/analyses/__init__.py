"""The analysis types, one file each: schema, checks, and how the answers of chunks merge."""
