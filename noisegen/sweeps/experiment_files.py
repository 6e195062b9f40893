"""Finds an experiment's file by its name, and imports it once.

The file is a module like any other: it may import what lies beside it, by name or relative to its
package, and what it defines can be pickled. A file in a directory with `__init__.py`, or one with
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

_MODULE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")
_loaded: dict[pathlib.Path, tuple[bytes, types.ModuleType]] = {}


def split(text: str) -> tuple[pathlib.Path, list[str]]:
    """Returns the path of an experiment's file, and the scale after its colon where there is one.

    A path may hold colons of its own.
    """
    head, scale = text, []
    while not pathlib.Path(head).exists() and ":" in head:
        head = head.rpartition(":")[0]
        scale = [text[len(head) + 1 :]]
    if not pathlib.Path(head).exists() and ":" in text:
        head, *scale = text.split(":", 1)
    return pathlib.Path(head), scale


def find(text: str) -> tuple[pathlib.Path, list[str]]:
    """Returns what `split` does, where the text may also begin with `~` or name a module.

    Raises:
      FileNotFoundError: If there is no such file.
      IsADirectoryError: If it is a directory.
    """
    path, scale = split(text)
    if not path.exists() and text.startswith("~"):
        path, scale = split(str(expanded(text)))
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a directory; name the experiment's file in it.")
    if path.exists():
        return path, scale
    name = str(path)
    if _MODULE.fullmatch(name) and path.suffix != ".py" and (file := _file_of(name)):
        return file, scale
    raise FileNotFoundError(f"There is no experiment {path}; name a file under experiments/.")


def expanded(text: str) -> pathlib.Path:
    """Returns a path with its `~` replaced, unless something of that very name is there.

    Raises:
      ValueError: If the home directory is not known.
    """
    path = pathlib.Path(text)
    if path.exists() or not text.startswith("~"):
        return path
    try:
        return path.expanduser()
    except RuntimeError:
        raise ValueError(
            f"{text}: there is no home directory here that ~ could stand for; give the path in full"
        ) from None


def load(path: pathlib.Path) -> types.ModuleType:
    """Imports an experiment's file; again only if it has changed.

    Raises:
      FileNotFoundError: If there is no such file.
      ImportError: If something that it imports is missing.
      ValueError: If it is no Python.
    """
    if not path.is_file():
        raise FileNotFoundError(f"There is no experiment {path}; name a file under experiments/.")
    file = path.resolve()
    source = file.read_bytes()
    if file in _loaded and _loaded[file][0] == source:
        return _loaded[file][1]
    name = _importable_name(file, _parsed(path, source))
    module = sys.modules.get(name)  # something else may have imported it
    if file in _loaded or getattr(module, "__file__", None) != str(file):
        module = _execute(path, source, name)
    _loaded[file] = source, module
    return module


def _file_of(name):
    """Returns the file of a module, relative to the current directory if it is below it."""
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return None
    file = pathlib.Path(spec.origin) if spec and spec.has_location else None
    here = pathlib.Path.cwd()
    return file.relative_to(here) if file and file.is_relative_to(here) else file


def _parsed(path, source):
    try:
        return ast.parse(source, str(path))
    except SyntaxError as error:
        raise ValueError(f"{path}, line {error.lineno}: {error.msg}; mend the file.") from error
    except ValueError as error:
        raise ValueError(f"{path} is no Python file: {error}.") from error


def _importable_name(file, tree):
    """Returns the name under which others would import a file, having made that possible."""
    depth = 0
    while (file.parents[depth] / "__init__.py").exists():
        depth += 1
    levels = [node.level for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    depth = min(max([depth, *levels]), len(file.parents) - 1)
    package, stem = file.parts[-1 - depth : -1], file.stem.replace(".", "_")
    alone = f"experiment_{stem}"
    if not package and not _is_free(stem, file):
        _search(0, file.parent)
        return alone
    _search(0, file.parents[depth])
    if not package:
        return stem
    _search(len(sys.path), file.parent)  # last, as it is no directory of modules by itself
    parent = ".".join(package)
    places = _places(parent)
    if file.parent not in places:  # another package has this name
        return alone
    name = f"{parent}.{stem}"
    return name if _is_free(name, file) else f"{parent}.{alone}"


def _search(index, directory):
    """Has modules be looked for in a directory."""
    if str(directory) not in sys.path:
        sys.path.insert(index, str(directory))


def _places(package):
    """Returns the directories of a package, which is imported; none if there is no such package."""
    try:
        found = importlib.import_module(package)
    except ModuleNotFoundError as error:
        if error.name and f"{package}.".startswith(f"{error.name}."):
            return []
        raise
    return [pathlib.Path(place).resolve() for place in getattr(found, "__path__", ())]


def _is_free(name, file):
    """Returns whether a name is free or already this file's."""
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return name not in sys.modules
    return spec is None or (spec.has_location and pathlib.Path(spec.origin).resolve() == file)


def _execute(path, source, name):
    """Executes a file as a module of this name."""
    file = path.resolve()
    loader = importlib.machinery.SourceFileLoader(name, str(file))
    spec = importlib.util.spec_from_file_location(name, file, loader=loader)
    module = importlib.util.module_from_spec(spec)
    before = sys.modules.get(name)
    sys.modules[name] = module
    try:
        # Bytecode is neither written nor read: it may be stale if the file changed within a second.
        exec(compile(source, str(file), "exec", dont_inherit=True), vars(module))
    except BaseException as error:
        del sys.modules[name]
        if before is not None:
            sys.modules[name] = before
        if isinstance(error, SyntaxError):  # of what it imports
            raise ValueError(f"{error.filename}, line {error.lineno}: {error.msg}.") from error
        if isinstance(error, ImportError):
            raise ImportError(f"{_place(path, error)}: {error}", name=error.name) from error
        raise
    return module


def _place(path, error):
    """Returns the file and the line of it at which an error came."""
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == str(path.resolve())]
    return f"{path}, line {lines[-1]}" if lines else str(path)
