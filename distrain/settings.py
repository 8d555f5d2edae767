"""What all settings have in common: unknown keys are errors, values are checked, units are read.

Ground floor: pydantic only. Each room keeps its own settings beside their owner (`settings.py`);
`distrain.config` composes them into the schema of one YAML file.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import (
    AllowInfNan,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    PlainSerializer,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
)

from distrain.errors import DistrainError
from distrain.units import Duration, parse_bytes, parse_seconds


class Settings(BaseModel):
    """Base of every settings model: keys must be known, values are immutable once read."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _truth_is_no_number(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuse ``yes`` and ``no`` where a number is wanted; Python would read them as 1 and 0."""
        field = cls.model_fields[str(info.field_name)]
        if isinstance(value, bool) and field.annotation is not bool:
            raise ValueError("a truth value is not allowed here; give a number or a text")
        return value


def _reader(parse: Any) -> BeforeValidator:
    def read(value: Any) -> Any:
        try:
            return parse(value)
        except DistrainError as error:  # pydantic collects ValueErrors and adds the key's path
            raise ValueError(f"{error.problem}; {error.do}") from None

    return BeforeValidator(read)


Bytes = Annotated[int, _reader(parse_bytes), WithJsonSchema({"type": ["string", "integer"]})]
Seconds = Annotated[
    float,
    AllowInfNan(True),  # .inf: wait for ever; the reader refuses nan
    _reader(parse_seconds),
    WithJsonSchema({"type": ["string", "number"]}),
]
Steps = Annotated[
    Duration, _reader(Duration.parse), PlainSerializer(str), WithJsonSchema({"type": ["string", "number"]})
]
