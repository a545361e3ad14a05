"""The use cases: intake, chunk analysis, synthesis, recovery and questions to models."""
