"""Differential fuzzing: the same operations on a kernel's pipe and on a shmpipe."""
