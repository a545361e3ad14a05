"""The use cases: taking documents in, analyzing chunks, synthesizing, recovering, and asking."""
