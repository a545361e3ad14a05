"""What answers are worth: comparing them with the truth, and learning from that."""
