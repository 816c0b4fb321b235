"""mmcontrast: multimodal contrastive pretraining in JAX, each method a config."""

__version__ = "0.1.0"
