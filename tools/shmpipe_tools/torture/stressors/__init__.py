"""One module for each stressor, found by its name: see `shmpipe_tools.torture.stressor`."""
