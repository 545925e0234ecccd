"""Runs many trials on a cluster and loses none."""
