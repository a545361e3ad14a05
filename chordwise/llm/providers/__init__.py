"""The providers of models, one file each; the settings read their names and hosts."""
