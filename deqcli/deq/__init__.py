"""The mathematics of one network: activations, draws, equilibria, implicit gradients, spectra. Knows tensors only."""
