"""Torture: processes at a pipe are killed and disturbed while every byte is accounted for.

director   the command's process: starts the zygotes, collects what they report
zygote     a small program: makes the pipes, forks the actors, buries them, judges
actor      reads or writes records and writes down what it did, in memory that survives it
tormentor  a sibling of the actors: one instance of a stressor
"""
