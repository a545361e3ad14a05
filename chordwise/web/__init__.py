"""The pages of `chordwise web`: watch runs, read results, check them, correct them."""
