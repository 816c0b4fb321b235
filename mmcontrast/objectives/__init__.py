"""Objectives: pure functions of embeddings (scores, targets, criteria, terms)."""
