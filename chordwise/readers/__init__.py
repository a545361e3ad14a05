"""Text extraction from files, within enforced limits."""
