"""The demonstration: Python's standard library through one pipe to two processes, byte for byte."""
