"""Stores: state beside the parameters (momentum copies, queues, tables), updated by pure functions."""
