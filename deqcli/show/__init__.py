"""What a person sees: figures, tables, progress. Reads files and results, decides no number."""
