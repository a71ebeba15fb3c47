"""python -m shmpipe_tools: the shmpipe command where no console script is installed."""

from shmpipe_tools.cli import main

main()
