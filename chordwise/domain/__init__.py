"""The pure domain: documents, chunks, answers and their checks, without any I/O."""
