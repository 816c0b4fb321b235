"""A trained model in use: loaded, as functions, over whole sources, as scores of a search."""

from mmcontrast.inference.trained_model import Inference, load, load_tokenizer

__all__ = ["Inference", "load", "load_tokenizer"]
