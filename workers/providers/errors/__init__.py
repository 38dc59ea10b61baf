"""Turns an error of a provider call into a classified failure without secrets."""
