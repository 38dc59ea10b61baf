"""JSON Schema validation of what a model writes: arguments, answers, and the cost of checking them."""
