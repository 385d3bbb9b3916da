"""``python -m minires`` is the command line."""

from minires.cli import main

main()
