"""Strict validation of settings, with errors as one line that names the setting.

For the sections of params.yaml, and for the constructors of registered parts: losses, backbones, samplers, front ends.

A whole number passes for a float; no other value is converted. NaN, infinity and unknown keys are errors.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cache
from typing import Annotated, Any, NoReturn, Self, TypeVar, get_type_hints

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PlainValidator,
    ValidationError,
    create_model,
)
from pydantic_core import ErrorDetails, PydanticCustomError

from makermark.foundation.errors import ParamsError

Model = TypeVar("Model", bound=BaseModel)
T = TypeVar("T")

COMBINATION = "combination"  # error type: the message itself names the settings
EXPECTED = {
    "int_type": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "string_type": "a word",
    "bool_type": "true or false",
    "list_type": "a list",
    "dict_type": "keys and values",
    "model_type": "keys and values",
}
YAML_HINT = " (YAML reads 1e-4 as a word: write 1.0e-4 or 0.0001)"


def reject(message: str) -> NoReturn:
    """Raise the error of a validator: `message` continues `SETTING is VALUE; `."""
    raise PydanticCustomError("value", message)


def reject_combination(message: str) -> NoReturn:
    """Raise the error of a validator of several settings: `message` is a sentence that names them."""
    raise PydanticCustomError(COMBINATION, message)


def _check_fraction(value: float) -> float:
    return value if 0 <= value <= 1 else reject("it lies between 0 and 1")


def _check_probability(value: float) -> float:
    return value if 0 < value < 1 else reject("it lies between 0 and 1, both excluded")


def _check_scalar(value: Any) -> Any:
    if type(value) is float and not math.isfinite(value):
        reject("it takes a finite number")
    if type(value) in (str, int, float, bool):
        return value
    return reject("it takes a word or a whole number or a number or true or false")


Scalar = Annotated[str | int | float | bool, PlainValidator(_check_scalar)]
PositiveFloat = Annotated[float, Field(gt=0)]
NonNegativeFloat = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, AfterValidator(_check_fraction)]
Probability = Annotated[float, AfterValidator(_check_probability)]
NonNegativeInt = Annotated[int, Field(ge=0)]
PositiveInt = Annotated[int, Field(ge=1)]
IntFromTwo = Annotated[int, Field(ge=2)]

STRICT = ConfigDict(strict=True, frozen=True, extra="forbid", allow_inf_nan=False)


class Section(BaseModel):
    """A section of params.yaml."""

    model_config = STRICT

    def replace(self, **changes: Any) -> Self:
        """Return a copy with other values, validated; raises ParamsError."""
        section = type(self).__name__.removesuffix("Params").lower()
        return validate(type(self), dict(self) | changes, source="params.yaml", section=section)


def validate(model: type[Model], content: Any, *, source: str, section: str = "") -> Model:
    """Return `content` as `model`. Raises ParamsError that names `source` and the setting below `section`."""
    try:
        return model.model_validate(content)
    except ValidationError as error:
        path = [section] if section else []
        raise ParamsError(f"{source}: {describe_errors(model, error.errors(), path)}") from None


def describe_errors(model: type[BaseModel], errors: Sequence[ErrorDetails], path: Sequence[str | int]) -> str:
    """Return one line about the first error below `path`; unknown and missing keys come first."""
    for error in errors:
        if error["type"] in ("extra_forbidden", "missing"):
            return _describe_keys(model, errors, error["loc"][:-1], path)
    error = errors[0]
    if error["type"] == COMBINATION:
        return error["msg"]
    name, value = _join([*path, *error["loc"]]), error["input"]
    return f"{name or 'the file'} is {value!r}; {_describe_constraint(error)}"


def _describe_constraint(error: ErrorDetails) -> str:
    kind, context = error["type"], error.get("ctx", {})
    if kind in EXPECTED:
        is_word = kind == "float_type" and isinstance(error["input"], str)
        return f"it takes {EXPECTED[kind]}{YAML_HINT if is_word else ''}"
    if kind == "literal_error":
        return f"it is one of {context['expected']}"
    if kind == "greater_than":
        return f"it is above {context['gt']:g}"
    if kind == "greater_than_equal":
        return f"it is at least {context['ge']:g}"
    if kind == "less_than":
        return f"it is below {context['lt']:g}"
    if kind in ("too_short", "string_too_short"):
        return "it is not empty"
    return error["msg"]


def _describe_keys(
    model: type[BaseModel],
    errors: Sequence[ErrorDetails],
    loc: tuple[str | int, ...],
    path: Sequence[str | int],
) -> str:
    """Return a line about the unknown and missing keys of the section at `loc`."""
    keys: dict[str, list[str]] = {"extra_forbidden": [], "missing": []}
    for error in errors:
        if error["loc"][:-1] == loc and error["type"] in keys:
            keys[error["type"]].append(str(error["loc"][-1]))
    problems = [f"unknown settings {sorted(keys['extra_forbidden'])}"] * bool(keys["extra_forbidden"])
    problems += [f"missing settings {sorted(keys['missing'])}"] * bool(keys["missing"])
    known = list(_find_model(model, loc).model_fields)
    section = _join([*path, *loc])
    return f"{f'{section}: ' if section else ''}{', '.join(problems)}; it takes {known or 'none'}"


def _find_model(model: type[BaseModel], loc: Sequence[str | int]) -> type[BaseModel]:
    for name in loc:
        annotation = model.model_fields[str(name)].annotation
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            model = annotation
    return model


def _join(loc: Sequence[str | int]) -> str:
    """Return a location as in `losses.ge2e.scale` or `trace.clip_seconds[0]`."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in loc).removeprefix(".")


def build_registered(
    registry: Mapping[str, Callable[..., T]],
    name: str,
    *,
    kind: str,
    facts: Mapping[str, Any],
    settings: Mapping[str, Any],
) -> T:
    """Call `registry[name]` with the `settings` of params.yaml and the `facts` that the data determine.

    The settings must be exactly the constructor's parameters that are not facts; of the facts it gets those that it
    takes. `kind` is the word for an entry in messages, such as "loss". Raises ParamsError.
    """
    check_settings(registry, name, kind=kind, facts=facts, settings=settings)
    taken = {fact: value for fact, value in facts.items() if fact in _parameters(registry[name])}
    return registry[name](**taken, **settings)


def check_settings(
    registry: Mapping[str, Callable[..., Any]],
    name: str,
    *,
    kind: str,
    facts: Collection[str],
    settings: Mapping[str, Any],
) -> None:
    """Raise ParamsError for an unknown name, and for unknown, missing or wrongly typed settings."""
    if name not in registry:
        raise ParamsError(f"unknown {kind} {name!r}; it is one of {list(registry)}")
    model = _settings_model(registry[name], frozenset(facts))
    try:
        model.model_validate(dict(settings))
    except ValidationError as error:
        raise ParamsError(f"{kind} {name}: {describe_errors(model, error.errors(), [])}") from None


@cache
def _settings_model(constructor: Callable[..., Any], facts: frozenset[str]) -> type[BaseModel]:
    """Return a model with the constructor's parameters that are not facts."""
    hints = get_type_hints(getattr(constructor, "__init__", constructor))
    fields: dict[str, Any] = {
        name: (hints[name], ...) for name in _parameters(constructor) if name not in facts
    }
    return create_model("Settings", __config__=STRICT, **fields)


def _parameters(constructor: Callable[..., Any]) -> list[str]:
    return list(inspect.signature(constructor).parameters)
