"""Data: sources by index, host transforms, the training pipeline, evaluation sets.

Knows nothing of models. Start at `pipeline.train_batches`.
"""
