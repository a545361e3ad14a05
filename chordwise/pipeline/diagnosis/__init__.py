"""The checks of `chordwise doctor`, one module for each subject."""
