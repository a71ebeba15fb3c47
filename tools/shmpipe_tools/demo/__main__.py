"""python -m shmpipe_tools.demo: the same as `shmpipe demo`."""

from shmpipe_tools.cli import main

main(["demo"])
