"""scikit-learn's bundled handwritten digits: real data without a download.

1797 grey images of 8 x 8 pixels. A fixed permutation, then 36 images of each class to the test
set: 1437 and 360 images, whose writers overlap. Grey levels 0..16 become 0..255.
"""

import importlib.util
import pathlib

import numpy as np

SOURCE = "digits: scikit-learn, 1437 training and 360 test images, fixed stratified split"
_TEST_PER_CLASS = 36


def load() -> dict[str, np.ndarray]:
    """Returns the arrays {'train_image', 'train_label', 'test_image', 'test_label'}."""
    image_NxHxWxC, label_N = _read()
    # RandomState's stream is frozen for good; that of default_rng may change with NumPy.
    order = np.random.RandomState(0).permutation(len(label_N))
    is_test = np.zeros(len(label_N), bool)
    for label in range(10):
        is_test[order[label_N[order] == label][:_TEST_PER_CLASS]] = True
    train, test = order[~is_test[order]], order[is_test[order]]
    return {
        "train_image": image_NxHxWxC[train],
        "train_label": label_N[train],
        "test_image": image_NxHxWxC[test],
        "test_label": label_N[test],
    }


def _read() -> tuple[np.ndarray, np.ndarray]:
    """Returns all images as uint8 (N, 8, 8, 1) and labels as int32, in scikit-learn's order."""
    rows_Nx65 = np.loadtxt(_file(), delimiter=",", dtype=np.int32)  # the last is the label
    scaled = np.round(rows_Nx65[:, :64] * (255 / 16)).astype(np.uint8)
    return scaled.reshape(-1, 8, 8, 1), rows_Nx65[:, 64].copy()


def _file() -> pathlib.Path:
    """The file of `sklearn.datasets.load_digits`, found without the second that sklearn imports."""
    try:
        found = importlib.util.find_spec("sklearn")
    except ValueError:  # as for a module that was put in its place
        found = None
    if found is None:
        raise ImportError("digits comes with scikit-learn: pip install 'noisegen[sweeps]'")
    return pathlib.Path(found.origin).parent / "datasets" / "data" / "digits.csv.gz"
