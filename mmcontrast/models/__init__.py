"""The model: towers and heads as one graph, LoRA, checks of its numbers."""
