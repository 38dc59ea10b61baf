"""What answers in the model server: a script, rules, a recorded transcript."""
