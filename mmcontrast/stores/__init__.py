"""Stores: state beside the parameters (momentum copies, queues), updated by pure functions."""
