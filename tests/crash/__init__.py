"""Tests that kill the holder of a pipe and look at what the survivors see."""
