"""Checkpoints of the original HRM, TRM and URM code: read safely, understood, converted both ways."""
