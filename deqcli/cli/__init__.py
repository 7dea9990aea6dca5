"""The command line: thin shells of the Python API. typer lives here and nowhere else."""
