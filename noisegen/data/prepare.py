"""Prepares a data set for `noisegen.data.load`, from the network or from archives on disk.

    python -m noisegen.data.prepare mnist --data_dir=DIR
    python -m noisegen.data.prepare mnist --data_dir=DIR --manual_dir=ARCHIVES

Needs TensorFlow (pip install 'noisegen[build-data]'), here only, unless the data are there already:
what it leaves is read without.
"""

import argparse
import contextlib
import os
import pathlib
import sys
from collections.abc import Sequence

from noisegen.data import datasets, prepared

_NAMES = tuple(name for name in datasets.NAMES if name != "digits")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns the exit code, after one clear line if it is not 0."""
    args = _parser().parse_args(argv)
    try:
        data_dir = str(prepared.data_directory(args.data_dir))
        found = _found_or_prepared(args.name, data_dir, args.manual_dir)
    except Exception as error:  # Downloads fail in many ways; one line for all.
        print(f"cannot prepare {args.name}: {error}", file=sys.stderr)
        return 1
    print(f"{args.name} {found.version} is ready in {found.directory}")
    return 0


def _found_or_prepared(name: str, data_dir: str, manual_dir: str | None) -> prepared.Prepared:
    """A data set that is there, or else is prepared, for which TensorFlow is needed."""
    with contextlib.suppress(FileNotFoundError):
        return prepared.find(name, data_dir)
    _require_tensorflow()
    prepare(name, data_dir, manual_dir)
    return prepared.find(name, data_dir)


def prepare(name: str, data_dir: str, manual_dir: str | None = None) -> None:
    """Writes `name` under `data_dir` as array_record, unless it is there already."""
    with prepared.quiet():
        import tensorflow_datasets as tfds

        if not sys.stderr.isatty():
            tfds.disable_progress_bar()
        builder = tfds.builder(name, data_dir=data_dir, file_format="array_record")
        # Of some (ImageNet) the names are not known here, and one of Caltech-101's former places is
        # called 'view'; those of all forms of one are no help.
        known = [] if builder.builder_config else builder.url_infos.values()
        archives = sorted(i.filename for i in known if pathlib.Path(i.filename or "").suffix)
        if manual_dir is not None:
            _require_archives(manual_dir, archives)
        config = tfds.download.DownloadConfig(manual_dir=manual_dir)
        try:
            builder.download_and_prepare(download_config=config)
        except Exception as error:
            named = f" ({', '.join(archives)})" if archives else ""
            raise OSError(
                f"{prepared.one_line(error)}; without a network, put the original archives{named} "
                "in a directory and name it with --manual_dir"
            ) from error


def _parser() -> argparse.ArgumentParser:
    """Returns the parser of the command line."""
    parser = argparse.ArgumentParser("noisegen.data.prepare", description=__doc__.split("\n")[0])
    parser.add_argument("name", choices=_NAMES)
    parser.add_argument("--data_dir", help="default: $TFDS_DATA_DIR, then ~/tensorflow_datasets")
    parser.add_argument("--manual_dir", help="directory of the original archives, not unpacked")
    return parser


def _require_tensorflow() -> None:
    """Raises ImportError with the remedy unless TensorFlow is there."""
    # Both silence TensorFlow, and are read when it is first imported.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    try:
        with prepared.quiet():
            import tensorflow  # noqa: F401
            import tensorflow_datasets  # noqa: F401
    except ImportError as error:
        raise ImportError(f"{error}; run: pip install 'noisegen[build-data]'") from error


def _require_archives(manual_dir: str, archives: Sequence[str]) -> None:
    """Raises FileNotFoundError for a missing archive, which would be downloaded instead."""
    missing = [name for name in archives if not os.path.isfile(os.path.join(manual_dir, name))]
    if missing:
        raise FileNotFoundError(f"--manual_dir={manual_dir} lacks {', '.join(missing)}")


if __name__ == "__main__":
    sys.exit(main())
