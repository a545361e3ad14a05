"""The checks of `chordwise doctor`."""
