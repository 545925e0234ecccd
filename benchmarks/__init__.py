"""Measurements of the product: each prints ratios against a stated limit or peer."""
