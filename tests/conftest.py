"""Shared by all tests: shape checks at run time, and one thread for matrices so small that a second only waits."""

import scipy.linalg  # noqa: F401  # loads its BLAS, so that its threads can be limited
import torch
from jaxtyping import install_import_hook
from threadpoolctl import threadpool_limits

torch.set_num_threads(1)
threadpool_limits(1)

install_import_hook(["deqcli.deq", "deqcli.theory"], "beartype.beartype")
