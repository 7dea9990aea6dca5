"""Other ways to the same step: torchdeq, jaxopt, autograd through the iteration; and the floor of all of them.

Every one is a class with `step()`, which takes one gradient step, and `losses`, one for each step after the first.
"""

from __future__ import annotations

import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from benchmarks.problem import Problem

MOST = 200
"""Iterations that a solver may make."""

CONTRACTION = 0.3
"""Of plain iteration at sigma_w^2 = 0.08, on the safe side: what an unrolled loop takes its length from."""


class Floor:
    """The products that no method can do without: W Z, W^T S, S Z^T, S X^T, U X."""

    def __init__(self, problem: Problem) -> None:
        s, (self.X, _) = problem.shape, problem.data
        dtype = self.X.dtype
        self.W, self.U = problem.params.W.clone(), problem.params.U.clone()
        self.Z, self.S = torch.rand((s.m, s.n), dtype=dtype), torch.rand((s.m, s.n), dtype=dtype)
        self.out, self.dW, self.dU = torch.empty_like(self.Z), torch.empty_like(self.W), torch.empty_like(self.U)

    def step(self) -> None:
        """The five products, into buffers made once."""
        torch.mm(self.W, self.Z, out=self.out)
        torch.mm(self.W.T, self.S, out=self.out)
        torch.mm(self.S, self.Z.T, out=self.dW)
        torch.mm(self.S, self.X.T, out=self.dU)
        torch.mm(self.U, self.X, out=self.out)


class Autograd(ABC):
    """Gradient descent with torch's autograd; `solve` gives the equilibrium, rows being samples, with its graph."""

    def __init__(self, problem: Problem) -> None:
        X, self.y = problem.data
        self.X = X.T.contiguous()  # (n, d)
        self.rate, self.tolerance = problem.learning_rate, problem.tolerance
        self.params = [p.clone().requires_grad_() for p in (problem.params.W, problem.params.U, problem.params.a)]
        self.zero = torch.zeros((problem.shape.n, problem.shape.m), dtype=X.dtype)
        self.losses: list[float] = []
        self._step()  # deqcli's step 0 is a solve without a descent: here the first step only looks at the loss

    @abstractmethod
    def solve(self, layer: Callable[[Tensor], Tensor]) -> Tensor:
        """Z (n, m) with Z = layer(Z)."""

    def _loss(self) -> Tensor:
        W, U, a = self.params
        UX = self.X @ U.T
        Z = self.solve(lambda Z: torch.relu(Z @ W.T + UX))
        return 0.5 * ((Z @ a - self.y) ** 2).sum()

    def _step(self) -> float:
        loss = self._loss()
        gradients = torch.autograd.grad(loss, self.params)
        with torch.no_grad():
            for p, gradient in zip(self.params, gradients, strict=True):
                p.sub_(gradient, alpha=self.rate)
        return float(loss.detach())

    def step(self) -> None:
        """One gradient step."""
        self.losses.append(self._step())


class Unrolled(Autograd):
    """Autograd through as many plain iterations from 0 as the tolerance needs."""

    def solve(self, layer: Callable[[Tensor], Tensor]) -> Tensor:
        Z = self.zero
        for _ in range(math.ceil(math.log(self.tolerance) / math.log(CONTRACTION))):
            Z = layer(Z)
        return Z


class Torchdeq(Autograd):
    """torchdeq with the exact gradient (`ift`), both solves to the relative tolerance; samples are rows, as it asks."""

    solver = "fixed_point_iter"

    def __init__(self, problem: Problem) -> None:
        from torchdeq import get_deq

        tolerance = problem.tolerance
        self.deq = get_deq(
            f_solver=self.solver, b_solver=self.solver, ift=True, f_max_iter=MOST, b_max_iter=MOST,
            f_tol=tolerance, b_tol=tolerance, f_stop_mode="rel", b_stop_mode="rel",
        )  # fmt: skip
        super().__init__(problem)

    def solve(self, layer: Callable[[Tensor], Tensor]) -> Tensor:
        points, _ = self.deq(layer, self.start())
        return points[-1]  # type: ignore[no-any-return]

    def start(self) -> Tensor:
        """Where the solver begins."""
        return self.zero


class TorchdeqWarm(Torchdeq):
    """The same from the equilibrium of the last step."""

    last: Tensor | None = None

    def solve(self, layer: Callable[[Tensor], Tensor]) -> Tensor:
        Z = super().solve(layer)
        self.last = Z.detach()
        return Z

    def start(self) -> Tensor:
        return self.zero if self.last is None else self.last


class TorchdeqAnderson(Torchdeq):
    """The same by its Anderson acceleration."""

    solver = "anderson"


class TorchdeqBroyden(Torchdeq):
    """The same by its Broyden method."""

    solver = "broyden"


class Jaxopt:
    """jaxopt's fixed point, from the last equilibrium, with an implicit gradient by BiCGSTAB; compiled as one step.

    Its tolerance is absolute: the relative one times the size of the first equilibrium.
    """

    def __init__(self, problem: Problem) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # jaxopt says that it is no longer maintained
            import jaxopt  # noqa: F401
        import jax

        jax.config.update("jax_enable_x64", True)
        self.Z = jax.numpy.zeros((problem.shape.m, problem.shape.n), problem.shape.dtype)
        X, y = (jax.numpy.asarray(tensor.numpy()) for tensor in problem.data)
        p = problem.params
        self.params = tuple(jax.numpy.asarray(tensor.numpy()) for tensor in (p.W, p.U, p.a))
        self._step = _jaxopt_step(problem, X, y)
        self.losses: list[float] = []
        self.step()
        self.losses.clear()

    def step(self) -> None:
        """One gradient step."""
        loss, self.params, self.Z = self._step(self.params, self.Z)
        self.losses.append(float(loss))


def _jaxopt_step(problem: Problem, X: Any, y: Any) -> Any:
    import jax
    import jaxopt
    from jaxopt import linear_solve

    W, U, _ = (tensor for tensor in (problem.params.W, problem.params.U, problem.params.a))
    Z = torch.relu(U @ problem.data[0])
    for _ in range(5):
        Z = torch.relu(W @ Z + U @ problem.data[0])
    absolute = problem.tolerance * float(Z.norm())

    def adjoint(product: Any, right: Any, **_: Any) -> Any:
        return linear_solve.solve_bicgstab(product, right, tol=problem.tolerance, maxiter=MOST)

    solver = jaxopt.FixedPointIteration(
        lambda Z, W, UX: jax.nn.relu(W @ Z + UX),
        maxiter=MOST, tol=absolute, implicit_diff=True, implicit_diff_solve=adjoint,
    )  # fmt: skip

    def loss(params: Any, start: Any) -> Any:
        W, U, a = params
        Z = solver.run(start, W, U @ X).params
        return 0.5 * jax.numpy.sum((a @ Z - y) ** 2), Z

    def step(params: Any, start: Any) -> Any:
        (value, Z), gradients = jax.value_and_grad(loss, has_aux=True)(params, start)
        rate = problem.learning_rate
        return value, jax.tree.map(lambda p, g: p - rate * g, params, gradients), Z

    return jax.jit(step)
