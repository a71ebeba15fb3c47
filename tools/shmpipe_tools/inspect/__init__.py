"""Looking at live pipes without touching them: where they are, what is in them, how to show it."""
