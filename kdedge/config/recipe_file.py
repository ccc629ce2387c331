"""Recipe files: reusable training settings in TOML.

```toml
steps = 4000            # or epochs = 240
batch_size = 64
temperature = 4
optimizer = "adamw"     # or "sgd", the default
layer_decay = 0.3       # learning rate of the first layer relative to the last
fit_head = true         # fit the last layer on frozen features in the first epoch

[loss]
ce = 0.1
kd = 0.9
mapall = { weight = 20, classes = 32 }

[augmentation]
flip = true
mixup = 0.2
```
"""

import dataclasses
import difflib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from kdedge.config.augmentation_settings import Augmentation
from kdedge.config.loss_spec import LARGEST, LossSpec, read_loss
from kdedge.config.recipe_names import FOLDER, shipped_recipes
from kdedge_runtime.errors import UsageError

__all__ = ["Optimizer", "Recipe", "load_recipe", "recipe_text"]

Optimizer = Literal["sgd", "adamw"]
"""SGD with Nesterov momentum 0.9, or AdamW."""


@dataclass(frozen=True)
class Recipe:
    """Contents of a recipe file; None means chosen from the data and the device."""

    name: str
    """Name of a bundled recipe, or path of a recipe file."""
    loss: LossSpec = field(default_factory=lambda: LossSpec({}))
    """Loss; without terms that of the default recipe for random weights."""
    steps: int | None = None
    """Training length in steps, if `epochs` is not set."""
    epochs: int | None = None
    batch_size: int | None = None
    learning_rate: float | None = None
    temperature: float = 4.0
    optimizer: Optimizer = "sgd"
    weight_decay: float = 5e-4
    warmup_fraction: float = 0.1
    layer_decay: float = 1.0
    """Learning rate of the first layer relative to the last; geometric in between."""
    fit_head: bool = False
    """True to fit the last layer on frozen features in the first epoch."""
    layers: dict[str, str] = field(default_factory=dict)
    augmentation: Augmentation = field(default_factory=Augmentation)


_KINDS: Mapping[str, type] = {
    "steps": int,
    "epochs": int,
    "batch_size": int,
    "learning_rate": float,
    "temperature": float,
    "weight_decay": float,
    "warmup_fraction": float,
    "layer_decay": float,
}
_MAY_BE_ZERO = ("weight_decay", "warmup_fraction")
_FRACTIONS = ("warmup_fraction", "layer_decay")


def recipe_text(name: str) -> str:
    """Return the text of a bundled recipe, by name, or of a recipe file.

    Raises:
        UsageError: the recipe does not exist.
    """
    if name.endswith(".toml"):
        try:
            return Path(name).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"Cannot read the recipe {name}: {getattr(error, 'strerror', None) or error}.") from error
    if name in shipped_recipes():
        return (FOLDER / f"{name}.toml").read_text(encoding="utf-8")
    raise UsageError(
        f"There is no recipe {name!r}. Expected {', '.join(shipped_recipes())}, or a file that ends in .toml."
    )


def load_recipe(name: str) -> Recipe:
    """Read a recipe by name or path; see `recipe_text`.

    Raises:
        UsageError: the recipe does not exist, or has unknown keys or invalid values.
    """
    text = recipe_text(name)
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"The recipe {name} is not valid TOML: {error}.") from error
    return _recipe(values, name)


def _recipe(values: dict[str, Any], name: str) -> Recipe:
    keys = [field.name for field in dataclasses.fields(Recipe) if field.name != "name"]
    _require_known(values, keys, f"The recipe {name}")
    numbers = {key: _number(values[key], key, kind, name) for key, kind in _KINDS.items() if key in values}
    if "steps" in numbers and "epochs" in numbers:
        raise UsageError(f"The recipe {name} sets both steps and epochs. Expected one of them.")
    if "loss" in values:
        numbers["loss"] = read_loss(values["loss"], f"[loss] of the recipe {name}")
    return Recipe(
        name=name,
        layers=_layers(values.get("layers", {}), name),
        augmentation=_augmentation(values.get("augmentation", {}), name),
        optimizer=_optimizer(values.get("optimizer", "sgd"), name),
        fit_head=_switch(values.get("fit_head", False), "fit_head", name),
        **numbers,
    )


def _augmentation(table: Any, name: str) -> Augmentation:
    where = f"[augmentation] of the recipe {name}"
    if not isinstance(table, dict):
        raise UsageError(f"{where} must be a table.")
    defaults = {field.name: field.default for field in dataclasses.fields(Augmentation)}
    _require_known(table, list(defaults), where)
    for key, value in table.items():
        kind = type(defaults[key])
        fits = isinstance(value, int | float) and not isinstance(value, bool) if kind is float else type(value) is kind
        if not fits:
            raise UsageError(f"{where}: {key} cannot be {value!r}. Its default is {defaults[key]!r}.")
    return Augmentation(**table)


def _layers(table: Any, name: str) -> dict[str, str]:
    if not isinstance(table, dict) or not all(isinstance(path, str) for path in table.values()):
        raise UsageError(f'[layers] of the recipe {name} must map layers to layers, such as layer3 = "layer4.1".')
    return dict(table)


def _optimizer(value: Any, name: str) -> Optimizer:
    if value not in get_args(Optimizer):
        raise UsageError(f"The recipe {name} has optimizer = {value!r}. Expected {' or '.join(get_args(Optimizer))}.")
    optimizer: Optimizer = value
    return optimizer


def _switch(value: Any, key: str, name: str) -> bool:
    if not isinstance(value, bool):
        raise UsageError(f"The recipe {name} has {key} = {value!r}. Expected true or false.")
    return value


def _number(value: Any, key: str, kind: type, name: str) -> Any:
    most = 1.0 if key in _FRACTIONS else LARGEST
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    in_range = is_number and (0 <= value < most or value == most == 1.0)
    fits = in_range and kind(value) == value and (value > 0 or key in _MAY_BE_ZERO)
    if not fits:
        above = "of zero or more" if key in _MAY_BE_ZERO else "above zero"
        raise UsageError(
            f"The recipe {name} has {key} = {value!r}. Expected {'a whole' if kind is int else 'a'} number "
            f"{above} and {'at most' if most == 1.0 else 'below'} {most:g}."
        )
    return kind(value)


def _require_known(values: Mapping[str, Any], known: list[str], where: str) -> None:
    for key in values:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f" Did you mean {near[0]}?" if near else ""
            raise UsageError(f"{where} has an unknown key {key!r}.{hint} Valid keys: {', '.join(known)}.")
