"""One way to build what a registry lists: the name and every setting are known, or refused at once."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, get_type_hints

from makermark.errors import ParamsError

T = TypeVar("T")

KINDS = {int: "a whole number", float: "a finite number", str: "a word", bool: "true or false"}


def build_from(
    registry: Mapping[str, Callable[..., T]],
    name: str,
    *,
    what: str,
    facts: Mapping[str, Any],
    settings: Mapping[str, Any],
) -> T:
    """Call `registry[name]` with the `settings` that params.yaml gives and the `facts` that data give.

    Settings must be exactly the constructor's keywords that are no facts; of the facts it gets those it
    names. `what` says in messages what is listed, such as "loss". Raises ParamsError.
    """
    check_settings(registry, name, what=what, facts=facts, settings=settings)
    taken = {fact: value for fact, value in facts.items() if fact in _parameters(registry[name])}
    return registry[name](**taken, **settings)


def check_settings(
    registry: Mapping[str, Callable[..., Any]],
    name: str,
    *,
    what: str,
    facts: Mapping[str, Any],
    settings: Mapping[str, Any],
) -> None:
    """Raise ParamsError for an unknown name, and for unknown, missing or wrongly typed settings."""
    if name not in registry:
        raise ParamsError(f"unknown {what} {name!r}; it is one of {list(registry)}")
    known = [parameter for parameter in _parameters(registry[name]) if parameter not in facts]
    unknown = sorted(set(settings) - set(known))
    missing = sorted(set(known) - set(settings))
    if unknown or missing:
        problems = [f"unknown settings {unknown}"] * bool(unknown)
        problems += [f"missing settings {missing}"] * bool(missing)
        raise ParamsError(f"{what} {name}: {', '.join(problems)}; it takes {known or 'none'}")
    hints = get_type_hints(getattr(registry[name], "__init__", registry[name]))
    for setting, value in settings.items():
        if not _fits(hints[setting], value):
            raise ParamsError(f"{what} {name}: {setting} is {value!r}; it takes {KINDS[hints[setting]]}")


def _parameters(built: Callable[..., Any]) -> list[str]:
    return list(inspect.signature(built).parameters)


def _fits(hint: Any, value: Any) -> bool:
    if hint is float:
        return type(value) in (int, float) and math.isfinite(value)
    return type(value) is hint
