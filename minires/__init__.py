"""MiniRes."""
