"""Dead letters for programs and people: listed, replayed one by one or all, and redriven without a human."""
