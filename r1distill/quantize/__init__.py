"""The trained student in eight bits, as vLLM serves it."""
