"""Experiments: one file for each published table or figure."""
