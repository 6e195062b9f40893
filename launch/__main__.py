"""Batch size, learning rate and gradient noise: sweeps from the command line.

    noisegen init FILE.py                    writes a small working experiment to start from
    noisegen advise FILE.py --workdir=DIR    predicts its answers from short runs
    noisegen sweep FILE.py --workdir=DIR     trains its runs and writes the report
    noisegen compile FILE.py --target=h100   bounds its speed on an accelerator that you do not have
    noisegen status DIR                      shows the progress of a sweep
    noisegen report DIR                      writes table and page again from the records
    noisegen export DIR --to=csv             exports runs to tables, TensorBoard, W&B or MLflow

`noisegen sweep --help` lists the flags of a command.
"""

import importlib
import pathlib
import sys

_COMMANDS = ("advise", "compile", "sweep", "status", "report", "export")


def main() -> None:
    """Runs the command that the first word names."""
    words = sys.argv[1:]
    if words and words[0] in _COMMANDS:
        _run(words[0])
    elif words[:1] == ["init"] and not {"--help", "-h"} & set(words):
        _init(words[1:])
    elif words[:1] == ["init"] or words in ([], ["--help"], ["-h"], ["help"]):
        print(__doc__.strip())
    else:
        sys.exit(f"error: no such command: {' '.join(words)}; `noisegen --help` lists them.")


def _run(name):
    """Runs a command as `python -m` would."""
    try:
        # A module defines its flags when imported, and two commands may share the name of one.
        module = importlib.import_module(f".{name}", __package__)
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing in ("", "launch", "noisegen"):  # a fault of the package itself
            raise
        sys.exit(
            f"error: `noisegen {name}` needs the package {missing}, which is not installed: run "
            "`pip install '.[sweeps]'` in the clone of noisegen."
        )
    from . import cli

    # --help shows the docstring of the main module, and the flags of the module in argv[0].
    sys.modules["__main__"].__doc__ = module.__doc__.replace("python -m launch.", "noisegen ")
    sys.argv = [module.__name__, *sys.argv[2:]]
    cli.run(module.main)


def _init(words):
    """Writes an experiment to start from."""
    if len(words) != 1 or not words[0].endswith(".py"):
        sys.exit("error: `noisegen init` needs one name of a file, such as my_experiment.py.")
    path = pathlib.Path(words[0])
    template = pathlib.Path(__file__).with_name("template.py")
    try:
        with open(path, "x", encoding="utf-8") as file:
            file.write(template.read_text(encoding="utf-8"))
    except FileExistsError:
        sys.exit(f"error: {path} exists and is not overwritten; give a new name.")
    except OSError as error:
        sys.exit(f"error: {path} cannot be written: {error.strerror}; choose a writable directory.")
    print(f"Wrote {path}. To train it:\n  noisegen sweep {path} --workdir=sweeps/{path.stem}")


if __name__ == "__main__":
    main()
