"""The Wide-ResNet in PyTorch computes what noisegen's does."""

import numpy as np
import pytest
from flax import nnx

from experiments.benchmarks import images, machine, wide_resnet
from noisegen import models

torch = pytest.importorskip("torch", reason="PyTorch is not in the project's environment")
pytorch = pytest.importorskip("experiments.benchmarks.contenders.pytorch_wide_resnet")


def copy_network(ours, theirs):
    """Gives the PyTorch network the other one's parameters."""
    stem, *blocks, norm, _ = theirs.features
    pairs = [(ours.stem, stem), (ours.norm, norm)]
    for a, b in zip(ours.blocks, blocks, strict=True):
        names = ("norm1", "conv1", "norm2", "conv2", "shortcut")
        pairs += [(getattr(a, n), getattr(b, n)) for n in names if getattr(a, n) is not None]
    with torch.no_grad():
        for a, b in pairs:
            b.weight.copy_(tensor((a.scale if hasattr(a, "scale") else a.kernel)[...]))
        theirs.logits.weight.copy_(tensor(ours.logits.kernel[...]).T)


def tensor(array):
    return torch.from_numpy(np.array(array))


def test_logits_gradients_and_statistics_agree():
    ours = models.WideResNet(10, 1, ghost_size=4, convolution="lax", rngs=nnx.Rngs(0))
    theirs = pytorch.WideResNet(10, 1, 4, "float32").to(memory_format=torch.channels_last)
    copy_network(ours, theirs)
    x = np.random.default_rng(0).normal(size=(12, 8, 8, 3)).astype(np.float32)
    logits = theirs(tensor(x).permute(0, 3, 1, 2))
    logits.square().sum().backward()

    def loss(model):
        found = model(x)
        return (found**2).sum(), found

    gradients, found = nnx.jit(nnx.grad(loss, has_aux=True))(ours)
    np.testing.assert_allclose(logits.detach(), found, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(
        theirs.features[0].weight.grad, gradients.stem.kernel[...], rtol=0.01
    )
    for name in ("mean", "var"):
        running = getattr(theirs.features[-2], name)
        np.testing.assert_allclose(running, getattr(ours.norm, name)[...], rtol=1e-4, atol=1e-5)


def test_wrn_16_4_has_as_many_parameters_as_noisegens():
    assert pytorch.num_parameters(pytorch.WideResNet(16, 4, 64)) == 2_748_890


def test_augmentation_reflects_crops_and_mirrors():
    image = torch.arange(16, dtype=torch.uint8).reshape(1, 4, 4, 1)
    chosen, shift = torch.zeros(2, dtype=torch.int64), torch.tensor([[0, 1], [1, 2]])
    plain, mirrored = pytorch.augment(image, chosen, shift, torch.tensor([False, True]), 1)
    padded = np.pad(image[0], ((1, 1), (1, 1), (0, 0)), "reflect")
    np.testing.assert_array_equal(plain, padded[0:4, 1:5])
    np.testing.assert_array_equal(mirrored, padded[1:5, 2:6][:, ::-1])


def test_program_trains_in_miniature(tmp_path):
    options = machine.Options(quick=True, rounds=2)
    dataset = wide_resnet.make_dataset(options)
    images.save(tmp_path / "images.npz", dataset)
    spec = wide_resnet.make_spec(options) | {"images": str(tmp_path / "images.npz")}
    spec |= {"mean": dataset.mean, "std": dataset.std, "device": "cpu"}
    done = pytorch.measure(spec, {"dtype": "bfloat16", "microbatch": 32})
    assert done["speeds"].keys() == {32, 64} and len(done["speeds"][64]) == 2
    assert 1 < done["losses"][64] < 4
