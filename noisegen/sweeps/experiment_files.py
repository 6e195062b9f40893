"""Finds the file of an experiment and imports it once.

The file may import its neighbors: by their names, as if it had been started as a program, by the
names of their package, or relatively. A file in a directory with `__init__.py`, or one with
relative imports, belongs to a package.
"""

import ast
import importlib.machinery
import importlib.util
import pathlib
import re
import sys
import traceback
import types

_MODULE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")  # For example experiments.digits.
_loaded: dict[pathlib.Path, tuple[bytes, types.ModuleType]] = {}  # Source and module, by file.


def split(text: str) -> tuple[pathlib.Path, list[str]]:
    """Splits a text into the path of an experiment's file and the scale after the colon, if any.

    Paths may contain colons, so the longest path that exists counts. If none exists, the path ends
    at the first colon.
    """
    if pathlib.Path(text).exists():
        return pathlib.Path(text), []
    parts = text.split(":")
    for end in reversed(range(1, len(parts))):
        head = pathlib.Path(":".join(parts[:end]))
        if head.exists():
            return head, [":".join(parts[end:])]
    head, *scale = text.split(":", 1)
    return pathlib.Path(head), scale


def find(text: str) -> tuple[pathlib.Path, list[str]]:
    """Finds an experiment's file like `split`. The text may also begin with `~` or name a module.

    Raises:
      FileNotFoundError: If there is no such file.
      IsADirectoryError: If the path is a directory.
    """
    path, scale = split(text)
    if not path.exists() and text.startswith("~"):
        path, scale = split(str(expanded(text)))
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a directory; name the experiment's file in it.")
    if path.exists():
        return path, scale
    if path.suffix != ".py" and _MODULE.fullmatch(str(path)):
        file = _file_of_module(str(path))
        if file is not None:
            return file, scale
    raise _not_found(path)


def expanded(text: str) -> pathlib.Path:
    """Returns a path with `~` expanded, unless a file of exactly this name exists.

    Raises:
      ValueError: If the home directory is not known.
    """
    path = pathlib.Path(text)
    if path.exists() or not text.startswith("~"):
        return path
    try:
        return path.expanduser()
    except RuntimeError:
        raise ValueError(f"{text}: the home directory is not known; write the full path.") from None


def load(path: pathlib.Path) -> types.ModuleType:
    """Imports an experiment's file. A second call imports it again only if it has changed.

    Raises:
      FileNotFoundError: If there is no such file.
      ImportError: If an import in it fails.
      ValueError: If it is not valid Python.
    """
    if not path.is_file():
        raise _not_found(path)
    file = path.resolve()
    source = file.read_bytes()
    if file in _loaded:
        known_source, module = _loaded[file]
        if known_source == source:
            return module
    package = _find_package(file, _parse(path, source))
    # The directory of the outermost package, or of the file itself as if it were a program.
    _search(0, file.parents[len(package)])
    # The directory of a file in a package comes last: names in it may be those of libraries.
    _search(len(sys.path), file.parent)
    module = _execute(path, source, package)
    _loaded[file] = source, module
    return module


def _not_found(path) -> FileNotFoundError:
    """Makes the error for a path without a file."""
    return FileNotFoundError(f"There is no experiment {path}; check the path.")


def _file_of_module(name) -> pathlib.Path | None:
    """Returns the file of a module. It is relative if it lies below the current directory."""
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return None
    if spec is None or not spec.has_location:
        return None
    file = pathlib.Path(spec.origin)
    here = pathlib.Path.cwd()
    return file.relative_to(here) if file.is_relative_to(here) else file


def _parse(path, source) -> ast.Module:
    """Parses the source of a file.

    Raises:
      ValueError: If it is not valid Python.
    """
    try:
        return ast.parse(source, str(path))
    except SyntaxError as error:
        raise ValueError(f"{path}, line {error.lineno}: {error.msg}; correct the file.") from error
    except ValueError as error:  # For example because of null bytes.
        raise ValueError(f"{path} is not a Python file: {error}.") from error


def _find_package(file, tree) -> tuple[str, ...]:
    """Returns the names of the packages that a file is in, outermost first."""
    depth = 0
    while (file.parents[depth] / "__init__.py").exists():
        depth += 1
    # A relative import needs as many packages as it has dots, with or without `__init__.py`.
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            depth = max(depth, node.level)
    depth = min(depth, len(file.parents) - 1)
    return file.parts[-1 - depth : -1]


def _search(index, directory) -> None:
    """Adds a directory to the import path unless it is there."""
    if str(directory) not in sys.path:
        sys.path.insert(index, str(directory))


def _execute(path, source, package) -> types.ModuleType:
    """Executes a file as a module of a package, or of none."""
    file = path.resolve()
    # A name that no other module has, so that an experiment `optax.py` does not replace Optax.
    name = ".".join([*package, f"experiment_{file.stem.replace('.', '_')}"])
    loader = importlib.machinery.SourceFileLoader(name, str(file))
    spec = importlib.util.spec_from_file_location(name, file, loader=loader)
    module = importlib.util.module_from_spec(spec)
    before = sys.modules.get(name)  # Its version before a change, or a file of the same name.
    sys.modules[name] = module  # Dataclasses look it up.
    try:
        # Bytecode is neither written nor read: it may be stale if the file changed within a second.
        exec(compile(source, str(file), "exec", dont_inherit=True), vars(module))
    except BaseException as error:
        del sys.modules[name]
        if before is not None:
            sys.modules[name] = before
        if isinstance(error, SyntaxError):  # In a module that the file imports.
            raise ValueError(f"{error.filename}, line {error.lineno}: {error.msg}.") from error
        if isinstance(error, ImportError):
            raise ImportError(f"{_location(path, error)}: {error}", name=error.name) from error
        raise
    return module


def _location(path, error) -> str:
    """Returns the file and the line in it at which an error was raised."""
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == str(path.resolve())]
    return f"{path}, line {lines[-1]}" if lines else str(path)
