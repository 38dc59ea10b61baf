"""Whatever a provider call raised, as one classified failure without secrets."""
