"""The section `model` of a recipe: what is drawn."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from deqcli.deq.activations import ACTIVATIONS
from deqcli.deq.initialisation import INITIALISATIONS
from deqcli.options import Count, Options, Positive


def _name_in(registry: Mapping[str, object]) -> object:
    """A name of the registry: what is added there is known to the checker, the schema and the messages."""

    def check(name: str) -> str:
        if name not in registry:
            raise PydanticCustomError("enum", "not in the registry")
        return name

    return Annotated[str, AfterValidator(check), Field(json_schema_extra={"enum": list(registry)})]


class Model(Options):
    """What is drawn. Source: Ling et al. 2023, Assumption 1."""

    width: Annotated[Count, Field(description="m, the number of hidden units")]
    activation: Annotated[_name_in(ACTIVATIONS), Field(description="phi, applied to each entry")] = "relu"  # type: ignore[valid-type]
    init: Annotated[_name_in(INITIALISATIONS), Field(description="the law of W(0)")] = "gaussian"  # type: ignore[valid-type]
    sigma_w_sq: Annotated[
        Positive,
        Field(
            description="size of W: 2 sigma_w_sq / m is the variance of a Gaussian W_ij; below 1/(8 L^2) in the theory"
        ),
    ] = 0.08
    readout_scale: Annotated[Positive, Field(description="factor on a, whose entries are N(0, 1/m) before it")] = 1.0
    injection: Annotated[
        Literal["linear", "rectified"], Field(description="what is added to W Z: U X, or phi(U X)")
    ] = "linear"
    readout: Annotated[
        Literal["gaussian", "signs"], Field(description="law of a: Gaussian, or random signs of the same variance")
    ] = "gaussian"
    skip: Annotated[bool, Field(description="add b^T F to the output, F the injection and b drawn as a is")] = False
    parametrisation: Annotated[
        Literal["standard", "ntk"],
        Field(
            description="what gradient descent works on: W, U and a; or, ntk, matrices of entries of variance 1 that "
            "are multiplied by sqrt(2 sigma_w_sq/m), sqrt(2/d) and readout_scale/sqrt(m)"
        ),
    ] = "standard"
    monotonicity: Annotated[Positive, Field(description="mu of init monotone: I - W is at least mu I")] = 0.5
    resample: Annotated[
        Literal["never", "norm", "condition"],
        Field(
            description="draw again until L ||W(0)||_2 < 1 is proved (norm), or until Condition 1 holds as well "
            "(condition)"
        ),
    ] = "never"
    most_draws: Annotated[Count, Field(description="draws that resample may take")] = 100

    SILENT: ClassVar[frozenset[str]] = frozenset(
        {"injection", "readout", "skip", "parametrisation", "monotonicity", "resample", "most_draws"}
    )

    @property
    def usual(self) -> bool:
        """Whether it is Z = phi(W Z + U X), y_hat = a^T Z with W, U and a themselves trained, of whatever laws."""
        linear = self.injection == "linear" and not self.skip
        return linear and self.parametrisation == "standard" and self.init != "monotone"
