"""Many runs: cells to workers, finished runs to merged tables. A cell is a RunSpec and a folder, nothing else."""
