"""How each provider wants a JSON Schema written: what it refuses, what is sent instead, what its strict mode takes."""
