"""The quality of answers: comparing them with the truth, and learning from it."""
