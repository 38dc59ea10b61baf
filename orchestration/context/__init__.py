"""What a model sees: the window, and how a conversation that has grown too long is compacted."""
