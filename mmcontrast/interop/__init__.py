"""Weights of other packages, in and out: one file a format, one table of names a model."""
