"""`python -m uebench`."""

from .cli import main

main(prog_name="uebench")
