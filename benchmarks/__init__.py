"""What a training step costs, against others and against its unavoidable products. `python -m benchmarks` runs them."""
