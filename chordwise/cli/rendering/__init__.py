"""How values look on a terminal, as JSON and as CSV."""
