"""The services that Chordwise starts itself: PostgreSQL, Valkey and a local model server."""
