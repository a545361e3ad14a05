"""The web pages of `chordwise web`: follow runs, read results, review and correct them."""
