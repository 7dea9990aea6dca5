"""Fixed sets of samples that satisfy Assumption 2, or are refused."""
