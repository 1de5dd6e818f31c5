"""What all sections of the settings tree share."""

from itertools import pairwise
from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
Port = Annotated[int, Field(ge=0, le=65_535)]


def _split(value: object) -> object:
    # So that it can be set in one line: --set trainer.interpolation_alphas=0.5,1
    return value.split(",") if isinstance(value, str) else value


def _rising(alphas: tuple[float, ...]) -> tuple[float, ...]:
    if not all(0 < alpha <= 1 for alpha in alphas) or any(a >= b for a, b in pairwise(alphas)):
        raise ValueError(f"expected rising numbers above 0 and at most 1; got {alphas}")
    return alphas


Alphas = Annotated[
    tuple[float, ...], Field(min_length=1), BeforeValidator(_split), AfterValidator(_rising)
]


class Section(BaseModel):
    """Base of all sections: frozen, unknown keys refused, a docstring under each field."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)
