"""The section `train` of a recipe: how the network is trained."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal

from pydantic import Field, field_validator

from deqcli.options import Contradiction, Count, Options, Positive, Seed


class Train(Options):
    """Full-batch gradient descent on W, U and a, or gradient flow."""

    steps: Annotated[int, Field(ge=0, le=2**53, description="gradient steps; 0 leaves the initial state")] = 1000
    learning_rate: Annotated[
        Literal["auto", "theorem"] | Positive,
        Field(
            description="eta, for a loss that is a sum over samples; auto: 1/lambda_max(H(0)); theorem: just below the "
            "bound of eq. 10, which needs sigma_w_sq < 1/8 and num_samples <= width"
        ),
    ] = "auto"
    dtype: Annotated[Literal["float32", "float64"], Field(description="precision of training")] = "float32"
    tf32: Annotated[
        bool, Field(description="let CUDA round what it multiplies in float32 to 10 bits; the tolerance must allow it")
    ] = False
    seed: Annotated[Seed, Field(description="decides W, U and a, and nothing of the data")] = 0
    parameters: Annotated[
        tuple[Literal["W", "U", "a"], ...],
        Field(
            min_length=1,
            strict=False,
            description="what is trained; W stands for A and B if it is made of them, a for b as well",
        ),
    ] = ("W", "U", "a")
    method: Annotated[
        Literal["descent", "flow"],
        Field(description="flow: gradient flow, which a step follows over the time learning_rate"),
    ] = "descent"
    flow_tolerance: Annotated[
        float, Field(gt=0, lt=1, description="relative error of the loss that a substep of flow may make, estimated")
    ] = 1e-5
    momentum: Annotated[float, Field(ge=0, lt=1, description="beta of the heavy ball")] = 0.0
    schedule: Annotated[
        Literal["constant", "linear", "cosine", "step"],
        Field(
            description="factor on the learning rate: 1; from 1 to decay at the last step, on a line or half a cosine; "
            "times decay every decay_every steps"
        ),
    ] = "constant"
    decay: Annotated[float, Field(ge=0, le=1, description="what schedules end at, or multiply by")] = 0.1
    decay_every: Annotated[Count, Field(description="gradient steps between the falls of schedule step")] = 100
    warmup: Annotated[
        int, Field(ge=0, le=2**53, description="first gradient steps, over which the learning rate rises on a line")
    ] = 0
    stop_at_loss: Annotated[
        Positive | None, Field(description="end at the first step whose loss is at most this; null: after all steps")
    ] = None

    SILENT: ClassVar[frozenset[str]] = frozenset(
        {
            "parameters", "method", "flow_tolerance", "momentum", "schedule", "decay", "decay_every", "warmup",
            "stop_at_loss",
        }
    )  # fmt: skip

    @field_validator("parameters")
    @classmethod
    def _in_order(cls, parameters: tuple[str, ...]) -> tuple[str, ...]:
        """However they are listed, it is the same run."""
        return tuple(sorted(parameters, key="WUa".index))

    @property
    def plain(self) -> bool:
        """Whether it is gradient descent at one learning rate on all parameters."""
        others = self.method, self.momentum, self.schedule, self.warmup, self.stop_at_loss
        return len(self.parameters) == 3 and others == ("descent", 0.0, "constant", 0, None)

    @property
    def precision(self) -> str:
        """What products are rounded to: float32, float64, or tf32."""
        return "tf32" if self.tf32 else self.dtype

    def contradictions(self) -> Iterator[Contradiction]:
        if self.tf32 and self.dtype != "float32":
            yield Contradiction(("tf32", "dtype"), "is a way to multiply float32; leave it out or use dtype float32")
        if len(set(self.parameters)) < len(self.parameters):
            yield Contradiction(("parameters",), f"names one twice, got {list(self.parameters)}")
        if self.method == "flow":
            yield from self._no_descent()

    def _no_descent(self) -> Iterator[Contradiction]:
        """What a flow has not."""
        for key, value in (("momentum", 0.0), ("schedule", "constant"), ("warmup", 0)):
            if getattr(self, key) != value:
                yield Contradiction((key, "method"), f"is for method descent, got {getattr(self, key)!r} with flow")
