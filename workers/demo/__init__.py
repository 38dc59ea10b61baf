"""`midwatch demo` and `midwatch dev`: the processes, the screen, and a support desk as the demo's work."""
