"""The services that Chordwise starts by itself: PostgreSQL, Valkey and a local model server."""
