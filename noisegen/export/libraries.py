"""Imports the libraries of tools that few users have."""

import importlib
import types


def load(name: str, tool: str) -> types.ModuleType:
    """Imports the library of a tool.

    Args:
      name: Name of the module.
      tool: Name of the format, which the extra of `pip install` has, too.

    Raises:
      ImportError: If it is not installed. The message says how to install it.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        missing = error.name or name
        raise ImportError(
            f"The format {tool} needs the package {missing}, which is not installed: run "
            f"`pip install '.[{tool}]'` in the clone of noisegen."
        ) from error
