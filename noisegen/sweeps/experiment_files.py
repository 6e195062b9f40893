"""Finds the file of an experiment and imports it once.

The file is imported under a name that other modules could import it by, so that its functions can
be pickled and it may import its neighbors. A file in a directory with `__init__.py`, or one with
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
    name = _importable_name(file, _parse(path, source))
    module = sys.modules.get(name)  # Another module may have imported it already.
    if file in _loaded or getattr(module, "__file__", None) != str(file):
        module = _execute(path, source, name)
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


def _importable_name(file, tree) -> str:
    """Returns the name under which other modules can import a file, and makes this possible.

    The name is the file's stem, after the name of the file's package if it is in one. If this is
    the name of another module, the file gets a name of its own that begins with `experiment_`.
    """
    stem = file.stem.replace(".", "_")
    own_name = f"experiment_{stem}"
    package = _find_package(file, tree)
    if not package:
        # Once its directory is searched, the file would hide another module of the same name.
        is_free = _is_free(stem, file)
        _search(0, file.parent)
        return stem if is_free else own_name
    _search(0, file.parents[len(package)])
    # Neighbors can also be imported by their stem. The directory comes last, since the names in a
    # package may be those of libraries.
    _search(len(sys.path), file.parent)
    parent = ".".join(package)
    if file.parent not in _directories(parent):  # Another package has this name.
        return own_name
    name = f"{parent}.{stem}"
    return name if _is_free(name, file) else f"{parent}.{own_name}"


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


def _directories(package) -> list[pathlib.Path]:
    """Imports a package and returns its directories, none if there is no such package."""
    try:
        module = importlib.import_module(package)
    except ModuleNotFoundError as error:
        # A missing import within the package is another error.
        if error.name and f"{package}.".startswith(f"{error.name}."):
            return []
        raise
    return [pathlib.Path(directory).resolve() for directory in getattr(module, "__path__", ())]


def _is_free(name, file) -> bool:
    """Returns whether no module has a name, or the file itself has it."""
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return name not in sys.modules
    if spec is None:
        return True
    return spec.has_location and pathlib.Path(spec.origin).resolve() == file


def _execute(path, source, name) -> types.ModuleType:
    """Executes a file as a module of this name."""
    file = path.resolve()
    loader = importlib.machinery.SourceFileLoader(name, str(file))
    spec = importlib.util.spec_from_file_location(name, file, loader=loader)
    module = importlib.util.module_from_spec(spec)
    before = sys.modules.get(name)
    sys.modules[name] = module  # Dataclasses and relative imports look it up meanwhile.
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
