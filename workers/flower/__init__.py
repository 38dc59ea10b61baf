"""Midwatch's pages in Flower: Jobs and Dead letters. They use Flower's process, port, login and theme (`docs/flower.md`)."""
