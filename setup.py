"""Packaging of noisegen; requirements.txt has the exact versions of `make sweep`."""

import pathlib
import re

import setuptools

here = pathlib.Path(__file__).parent
version = re.search(r'__version__ = "(.+?)"', (here / "noisegen/__init__.py").read_text())[1]

SWEEPS = [
    "flax>=0.12,<0.13",
    "orbax-checkpoint>=0.12,<1",
    "tensorflow-datasets>=4.9.9",
    "importlib_resources",  # tensorflow-datasets needs it and does not say so
    "array_record>=0.8",
    "pillow",
    "scikit-learn>=1.5",
    "ml_collections>=1.0",
    "absl-py>=2.1",
    "matplotlib>=3.9",
    "rich>=13",
    "pandas>=3.0",
    "jinja2>=3.1",  # pandas sets HTML and LaTeX with it, too
    "markupsafe>=2.1",
    "tabulate>=0.9",  # pandas writes Markdown with it
]

BOKEH = "bokeh>=3.9,<4"  # makes the page of a report explorable

setuptools.setup(
    name="noisegen",
    version=version,
    description="Batch size, learning rate and gradient noise: optax transforms and sweeps",
    long_description=(here / "README.md").read_text(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    packages=[
        *setuptools.find_packages(include=["noisegen", "noisegen.*"]),
        "noisegen.launch",
    ],
    # The commands of a clone, `python -m launch.sweep`, are installed as `noisegen sweep`.
    package_dir={"noisegen.launch": "launch"},
    package_data={"noisegen.reports": ["page.html", "explore.js"]},
    entry_points={"console_scripts": ["noisegen = noisegen.launch.__main__:main"]},
    python_requires=">=3.11",
    install_requires=["jax>=0.10", "optax>=0.2.5", "numpy>=2.0", "scipy>=1.13"],
    extras_require={
        "sweeps": SWEEPS,
        "slurm": [*SWEEPS, "submitit>=1.5"],
        # Compilers for accelerators that you do not have; their versions are those of jaxlib.
        "aot-cuda": [*SWEEPS, "jax-cuda12-plugin", "jax-cuda12-pjrt", "nvidia-cuda-nvcc-cu12"],
        "aot-tpu": [*SWEEPS, "libtpu"],
        "explore": [*SWEEPS, BOKEH],
        "build-data": ["tensorflow-cpu>=2.20"],
        "ray": [*SWEEPS, "ray>=2.40,<3"],
        # Formats of `noisegen export`; CSV needs none.
        "parquet": [*SWEEPS, "pyarrow>=15"],
        "tensorboard": [*SWEEPS, "tensorboardX>=2.6"],
        "wandb": [*SWEEPS, "wandb>=0.19"],
        "mlflow": [*SWEEPS, "mlflow>=3"],
        "test": [
            *SWEEPS,
            BOKEH,
            "submitit>=1.5",
            "pytest>=8",
            "pytest-xdist>=3.6",
            "hypothesis>=6.100",
            "psutil>=5.9",
            "equinox>=0.13",  # noisegen/tasks/README.md shows that their models need no adapter
            "dm-haiku>=0.0.17",
        ],
    },
)
