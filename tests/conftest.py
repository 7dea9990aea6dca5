"""Shared by all tests: shape checks at run time, and networks small enough to compare with dense formulas."""

from jaxtyping import install_import_hook

install_import_hook(["deqcli.deq", "deqcli.theory"], "beartype.beartype")
