"""Estimates of the tokens and the cost of a run, from its real prompts, before it starts."""
