"""The train step and what surrounds it: the program, where weights come from, and all that keeps a run alive."""
