# SPDX-License-Identifier: Apache-2.0
"""Which module belongs to which head, and how another is added.

```python
@dataclasses.dataclass(frozen=True)
class MyHead(PooledHead): ...            # its fields, and `leaves`

class MyHeadModule(HeadModule): ...      # its `__call__`

register_head(MyHead, MyHeadModule)
```

in one file on the path, named in the environment variable FULCRA_HEADS, is all that
training, checkpoints and the comparison of heads need.
"""

import importlib
import os

from fulcra_jax import configs
from fulcra_jax.configs import Head
from fulcra_jax.models.composed_heads import (
    FactoredHeadModule,
    HierarchicalHeadModule,
    MixtureHeadModule,
)
from fulcra_jax.models.heads import (
    HeadModule,
    IndependentHeadModule,
    SharedHeadModule,
)
from fulcra_jax.models.reading_heads import PromptedHeadModule, TokenHeadModule
from fulcra_jax.models.value_heads import ConditionedHeadModule, QueryHeadModule

_MODULES: dict[type[Head], type[HeadModule]] = {
    configs.SharedHead: SharedHeadModule,
    configs.IndependentHead: IndependentHeadModule,
    configs.ConditionedHead: ConditionedHeadModule,
    configs.QueryHead: QueryHeadModule,
    configs.TokenHead: TokenHeadModule,
    configs.PromptedHead: PromptedHeadModule,
    configs.HierarchicalHead: HierarchicalHeadModule,
    configs.FactoredHead: FactoredHeadModule,
    configs.MixtureHead: MixtureHeadModule,
}


def register_head(config: type[Head], module: type[HeadModule]) -> None:
    """Makes a head known to evaluators, checkpoints and configurations.

    Args:
      config: a frozen dataclass derived from `configs.Head`; its `leaves` say what
        parameters it has.
      module: derived from `HeadModule`; makes just these parameters.

    Raises:
      ValueError: if a class is of another kind, or another head has this name.
    """
    if not (isinstance(config, type) and issubclass(config, Head)):
        raise ValueError(
            f"models.register_head: {config!r:.60} should be a class derived from "
            "configs.Head."
        )
    if not (isinstance(module, type) and issubclass(module, HeadModule)):
        raise ValueError(
            f"models.register_head: {module!r:.60} should be a class derived from "
            "models.HeadModule."
        )
    known = configs.HEADS.get(config.__name__)
    if known is not None and known.__module__ != config.__module__:
        raise ValueError(
            f"models.register_head: there is a head {config.__name__} already, of "
            f"{known.__module__}; give it another name."
        )
    configs.HEADS[config.__name__] = config
    _MODULES[config] = module


def module_of(head: Head) -> type[HeadModule]:
    """The module of a head.

    Raises:
      KeyError: if it has none; the message lists the known.
    """
    if type(head) not in _MODULES:
        known = ", ".join(kind.__name__ for kind in _MODULES)
        raise KeyError(
            f"models: no module is known for a {type(head).__name__}; known are: "
            f"{known}. models.register_head adds one."
        )
    return _MODULES[type(head)]


def check_head(head: Head) -> None:
    """Raises ValueError if a head reads definitions and has none."""
    if head.reads_definitions and not getattr(head, "definitions", ()):
        raise ValueError(
            f"evaluator.Evaluator: the {type(head).__name__} reads definitions, but "
            "its field definitions is empty; it should hold token ids for each value."
        )


def load_registered() -> None:
    """Imports the modules that FULCRA_HEADS names, separated by commas.

    Raises:
      ValueError: if one cannot be imported.
    """
    for name in filter(None, os.environ.get("FULCRA_HEADS", "").split(",")):
        try:
            importlib.import_module(name.strip())
        except ImportError as error:
            raise ValueError(
                f"FULCRA_HEADS names {name.strip()!r}, which cannot be imported "
                f"({error}); it should be a module on the path."
            ) from error
