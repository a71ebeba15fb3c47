"""Tests of the harness itself: a leak must be reported, a hang must end."""
