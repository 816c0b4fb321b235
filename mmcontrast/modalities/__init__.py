"""The modalities: what a view of each holds and how it is prepared."""
