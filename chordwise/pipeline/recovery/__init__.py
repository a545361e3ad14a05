"""Recovery: finds work that stopped moving and sends it again; every rule is repeatable."""
