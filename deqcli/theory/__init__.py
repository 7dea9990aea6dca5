"""What the papers say about a network: population kernels, tangent kernels, certificates, predictions. In float64."""
