"""How a switch turns something off: other code stands in its place from then on."""

from collections.abc import Callable
from typing import Any

MANY = 1_000_000
"""More than any test reaches."""


def put(owner: Any, name: str, other: Any) -> None:
    """This stands in the place of what the owner has under the name, which must be there."""
    assert hasattr(owner, name), f"{owner} has no {name}: a switch has to follow the product"
    setattr(owner, name, other)


def put_item(table: dict[Any, Any], key: Any, wrap: Callable[[Any], Any]) -> None:
    """The same in a table, with what was there before."""
    table[key] = wrap(table[key])
