"""Middleware around a model: one module per concern, composed by the pipeline."""
