"""Checks of what has to be right before work can be done, a module for each subject."""
