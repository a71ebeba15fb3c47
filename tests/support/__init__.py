"""What every suite needs: looking at processes, actors that block, watchdog, leak checks."""
