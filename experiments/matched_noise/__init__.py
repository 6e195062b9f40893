"""Noise that is matched to a small batch: which of its properties does a large batch lack?

Not one of the papers' experiments: the comparison that they leave open.
"""
