"""Measurements of what Chordwise costs; `make bench` and `make scale` run them."""
