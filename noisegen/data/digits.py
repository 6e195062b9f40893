"""scikit-learn's bundled handwritten digits: real data without a download.

1797 grey images of 8 x 8 pixels. A fixed permutation, then 36 images of each class to the test
set: 1437 and 360 images, whose writers overlap. Grey levels 0..16 become 0..255.
"""

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
    try:
        from sklearn import datasets
    except ImportError as error:
        raise ImportError(
            f"digits comes with scikit-learn ({error}): pip install 'noisegen[sweeps]'"
        ) from error
    bunch = datasets.load_digits()
    scaled = np.round(bunch.images * (255 / 16)).astype(np.uint8)
    return scaled[..., np.newaxis], bunch.target.astype(np.int32)
