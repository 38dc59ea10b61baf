"""Tools: declared, checked, run under a time limit, and their results made fit for a window."""
