"""Optimizers, schedules, and how the gradients of terms become one."""
