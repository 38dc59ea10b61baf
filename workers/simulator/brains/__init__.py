"""The brains, which decide what the model server answers: a script, a rule set, or a recorded transcript."""
