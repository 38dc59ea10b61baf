"""`midwatch bench judged`: fleets against llmock, an independent model server that judges their traffic."""
