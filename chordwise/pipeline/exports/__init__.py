"""Tables as files: one module for each format, and a file that appears whole or not at all."""
