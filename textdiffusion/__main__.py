"""`python -m textdiffusion`: the command line."""

from textdiffusion.cli.app import main

main()
