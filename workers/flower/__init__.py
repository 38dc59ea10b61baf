"""Our pages inside Flower: Jobs and Dead letters, in its process, port, login and theme. See `docs/flower.md`."""
