"""How many calls a provider may be asked at once and per minute, shared by all who ask it."""
