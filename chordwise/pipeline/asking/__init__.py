"""Asking one question: prompts, checks, repairs, the cascade, votes, critique and merging."""
