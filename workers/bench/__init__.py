"""`midwatch bench`: benchmarks on this machine. Each measures a figure and its baseline in the same run."""
