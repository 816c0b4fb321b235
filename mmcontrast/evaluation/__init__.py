"""Evaluation on embeddings alone: retrieval, zero-shot, k-NN, linear probe, tagging, search."""
