"""Evaluation on embeddings only: retrieval, zero-shot, k-NN, linear probe, tagging, search."""
