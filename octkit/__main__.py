"""`python -m octkit` is `octkit`."""

from octkit.cli import main

main()
