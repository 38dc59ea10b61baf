"""What `midwatch demo` runs: a support desk with its shop, its agents, the brain that plays their model, a checker."""
