"""The pure part: what documents, chunks, answers and their checks are, without any I/O."""
