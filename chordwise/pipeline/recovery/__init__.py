"""Finding work that stopped moving, and moving it again: the rules, each repeatable."""
