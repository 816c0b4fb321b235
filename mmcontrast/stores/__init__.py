"""Stores: state in addition to the parameters (momentum copies, queues, tables), updated by pure functions."""
