"""The solvers that a recipe can name, told apart by `kind`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from deqcli.deq.anderson import Anderson
from deqcli.deq.automatic import Automatic
from deqcli.deq.continuation import Continuation
from deqcli.deq.newton import Newton
from deqcli.deq.solvers import Picard
from deqcli.deq.splitting import ForwardBackward, PeacemanRachford

SolverOptions = Annotated[
    Automatic | Continuation | Picard | Anderson | Newton | ForwardBackward | PeacemanRachford,
    Field(discriminator="kind"),
]
