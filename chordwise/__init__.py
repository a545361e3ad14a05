"""Chordwise: batch analysis of documents with language models."""
