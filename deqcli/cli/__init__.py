"""The command line: thin shells of the Python API. typer lives here and nowhere else."""

import gc

gc.set_threshold(50_000)  # starting up makes many objects and no garbage
