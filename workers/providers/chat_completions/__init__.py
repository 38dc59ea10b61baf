"""The Chat Completions format: any compatible server, and Gemini."""
