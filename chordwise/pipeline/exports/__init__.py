"""Exports of tables to files: one module per format; files are written atomically."""
