"""The Chat Completions format, with the providers that use it: Gemini and any compatible server."""
