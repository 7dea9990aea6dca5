"""deqcli: the experiment runner for the theory of over-parameterized deep equilibrium models."""

__version__ = "0.1.0"
