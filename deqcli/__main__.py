"""python -m deqcli."""

from deqcli.cli.main import main

main()
