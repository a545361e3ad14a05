"""The analysis types, one file each: schema, checks, and merging of the answers of chunks."""
