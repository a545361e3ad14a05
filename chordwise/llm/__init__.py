"""Asking language models: one port, the providers behind it, and the middleware around them."""
