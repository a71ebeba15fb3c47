"""shmpipe beside os.pipe, measured in one run: the same loops, alternating, compared by ratios."""
