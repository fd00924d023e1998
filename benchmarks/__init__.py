"""Measurements of speed and memory. docs/performance.md says how to run them, how to read them, and what came out."""
