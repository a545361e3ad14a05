"""The released prompt templates, as files whose content never changes."""
