"""Prepares a data set for `noisegen.data.load`, from the network or from archives on disk.

    python -m noisegen.data.tfds_prepare mnist --data_dir=DIR
    python -m noisegen.data.tfds_prepare mnist --data_dir=DIR --manual_dir=ARCHIVES

Only this step needs TensorFlow (pip install 'noisegen[build-data]'), and only if the data set is
not prepared yet. Prepared data is read without it.
"""

import argparse
import contextlib
import os
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

from noisegen._errors import one_line
from noisegen.data import datasets, tfds_reader

_NAMES = tuple(name for name in datasets.NAMES if name != "digits")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns the exit code, after a one-line message if it is not 0."""
    args = _parser().parse_args(argv)
    try:
        data_dir = str(tfds_reader.data_directory(args.data_dir))
        prepared = _find_or_prepare(args.name, data_dir, args.manual_dir)
    except Exception as error:  # Downloads raise many kinds of exceptions.
        print(f"cannot prepare {args.name}: {error}", file=sys.stderr)
        return 1
    print(f"{args.name} {prepared.version} is ready in {prepared.directory}")
    return 0


def prepare(name: str, data_dir: str, manual_dir: str | None = None) -> None:
    """Writes a data set as array_record files, unless they exist already.

    Args:
      name: Name of the data set.
      data_dir: Directory of prepared data sets.
      manual_dir: Directory of the original archives, or None to download them.

    Raises:
      FileNotFoundError: If an archive is missing.
      OSError: If the preparation fails.
    """
    with tfds_reader.quiet():
        import tensorflow_datasets as tfds

        if not sys.stderr.isatty():  # In a log file, the bars would be thousands of lines.
            tfds.disable_progress_bar()
        builder = tfds.builder(name, data_dir=data_dir, file_format="array_record")
        archives = _archive_names(builder)
        if manual_dir is not None:
            # Before anything is written. Otherwise a missing archive would be downloaded.
            _require_archives(manual_dir, archives)
        config = tfds.download.DownloadConfig(manual_dir=manual_dir)
        try:
            builder.download_and_prepare(download_config=config)
        except Exception as error:
            named = f" ({', '.join(archives)})" if archives else ""
            raise OSError(
                f"{one_line(error)}; without a network, put the original archives"
                f"{named} in a directory and name it with --manual_dir"
            ) from error


def _find_or_prepare(name: str, data_dir: str, manual_dir: str | None) -> tfds_reader.Prepared:
    """Returns a prepared data set; prepares it if needed, which takes TensorFlow."""
    # Found data needs no TensorFlow, which many machines lack.
    with contextlib.suppress(FileNotFoundError):
        return tfds_reader.find(name, data_dir)
    _require_tensorflow()
    prepare(name, data_dir, manual_dir)
    return tfds_reader.find(name, data_dir)


def _archive_names(builder: Any) -> list[str]:
    """Returns the file names of the original archives, as far as tensorflow-datasets lists them."""
    if builder.builder_config:  # The list covers all configurations, and most do not apply.
        return []
    names = [info.filename for info in builder.url_infos.values()]
    # ImageNet's archives have no names, and an old URL of Caltech-101 ends in 'view'.
    return sorted(name for name in names if pathlib.Path(name or "").suffix)


def _parser() -> argparse.ArgumentParser:
    """Returns the parser of the command line."""
    description = __doc__.split("\n")[0]
    parser = argparse.ArgumentParser("noisegen.data.tfds_prepare", description=description)
    parser.add_argument("name", choices=_NAMES, help="data set")
    parser.add_argument(
        "--data_dir",
        help="where prepared data lies (default: $TFDS_DATA_DIR, then ~/tensorflow_datasets)",
    )
    parser.add_argument("--manual_dir", help="directory of the original archives, not unpacked")
    return parser


def _require_tensorflow() -> None:
    """Raises ImportError with the remedy if TensorFlow is missing."""
    # TensorFlow reads both variables at its first import; they silence its log.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    try:
        with tfds_reader.quiet():
            import tensorflow  # noqa: F401
            import tensorflow_datasets  # noqa: F401
    except ImportError as error:
        raise ImportError(f"{error}; run: pip install 'noisegen[build-data]'") from error


def _require_archives(manual_dir: str, archives: Sequence[str]) -> None:
    """Raises FileNotFoundError for missing archives, which would be downloaded otherwise."""
    missing = [name for name in archives if not os.path.isfile(os.path.join(manual_dir, name))]
    if missing:
        raise FileNotFoundError(f"--manual_dir={manual_dir} lacks {', '.join(missing)}")


if __name__ == "__main__":
    sys.exit(main())
