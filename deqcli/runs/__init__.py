"""One run: a RunSpec and a folder in, CSV files, a checkpoint and a manifest out."""
