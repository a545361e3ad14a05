"""Tables as files: a module for each format, and files that appear whole or not at all."""
