"""Benchmarks of Chordwise; `make bench`, `make scale` and `make quality` run them."""
