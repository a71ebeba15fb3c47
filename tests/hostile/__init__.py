"""Damaged segments, hostile peers, other users, and little of everything."""
