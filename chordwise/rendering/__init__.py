"""Rendering of values for terminals, and as JSON and CSV."""
