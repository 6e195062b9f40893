"""Handwritten digits bundled with scikit-learn: real data without a download.

They are 1797 gray images of 8 x 8 pixels. After a fixed permutation, the first 36 images of each
class are the test set. That gives 1437 training and 360 test images, whose writers overlap. Gray
levels 0..16 become 0..255.
"""

import importlib.util
import pathlib

import numpy as np

SOURCE = "digits: scikit-learn, 1437 training and 360 test images, fixed stratified split"
_TEST_PER_CLASS = 36


def load() -> dict[str, np.ndarray]:
    """Returns the arrays 'train_image', 'train_label', 'test_image' and 'test_label'."""
    image_NxHxWxC, label_N = _read()
    # The stream of RandomState is frozen. That of default_rng may change with NumPy's version.
    order = np.random.RandomState(0).permutation(len(label_N))
    is_test = np.zeros(len(label_N), bool)
    for label in range(10):
        members = order[label_N[order] == label]
        is_test[members[:_TEST_PER_CLASS]] = True
    train, test = order[~is_test[order]], order[is_test[order]]
    return {
        "train_image": image_NxHxWxC[train],
        "train_label": label_N[train],
        "test_image": image_NxHxWxC[test],
        "test_label": label_N[test],
    }


def _read() -> tuple[np.ndarray, np.ndarray]:
    """Returns images as uint8 (N, 8, 8, 1) and labels as int32, in the order of scikit-learn."""
    rows_Nx65 = np.loadtxt(_file(), delimiter=",", dtype=np.int32)  # The last column is the label.
    scaled = np.round(rows_Nx65[:, :64] * (255 / 16)).astype(np.uint8)
    return scaled.reshape(-1, 8, 8, 1), rows_Nx65[:, 64].copy()


def _file() -> pathlib.Path:
    """Finds the file of `sklearn.datasets.load_digits` without importing sklearn for a second."""
    try:
        spec = importlib.util.find_spec("sklearn")
    except ValueError:  # A module without a spec stands in for it.
        spec = None
    if spec is None:
        raise ImportError("digits comes with scikit-learn: pip install 'noisegen[sweeps]'")
    return pathlib.Path(spec.origin).parent / "datasets" / "data" / "digits.csv.gz"
