"""Reads a sweep, finished or running, and says what it shows."""
