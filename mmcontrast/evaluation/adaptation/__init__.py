"""What a trained model is adapted to, and how that is measured: on arrays, and on what `embed` gives."""
