"""Trains by an ordinary PyTorch loop: data as tensors in memory, one permutation an epoch."""

import torch
from torch import nn

from experiments.benchmarks.contenders import exchange


def main() -> None:
    """Trains the runs of the spec."""
    spec = exchange.read_spec()
    torch.set_num_threads(spec["threads"])
    torch.manual_seed(spec["seed"])
    arrays = [torch.from_numpy(a) for a in exchange.load(spec)]
    images, labels, test_images, test_labels = (
        a.permute(0, 3, 1, 2).contiguous() if a.ndim > 1 else a.long() for a in arrays
    )
    runs = []
    for batch_size, learning_rate in spec["runs"]:
        model = lenet5()
        optimizer = torch.optim.SGD(model.parameters(), learning_rate, spec["momentum"])
        updates = train(model, optimizer, images, labels, batch_size)
        accuracy = evaluate(model, test_images, test_labels)
        runs.append(exchange.run(batch_size, learning_rate, updates, accuracy))
    exchange.answer(runs, versions={"torch": torch.__version__})


def lenet5() -> nn.Module:
    """Returns the network of `noisegen.models.LeNet5`."""
    return nn.Sequential(
        *(nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()),
        *(nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10)),
    )


def train(model, optimizer, images, labels, batch_size) -> int:
    """Trains one epoch without its ragged last batch; returns the number of updates."""
    model.train()
    updates = len(images) // batch_size
    permutation = torch.randperm(len(images))
    for chosen in permutation[: updates * batch_size].split(batch_size):
        loss = nn.functional.cross_entropy(model(images[chosen]), labels[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return updates


@torch.inference_mode()
def evaluate(model, images, labels) -> float:
    """Returns the accuracy on the test set."""
    model.eval()
    size = exchange.EVALUATION_BATCH
    pieces = zip(images.split(size), labels.split(size), strict=True)
    correct = sum((model(x).argmax(1) == y).sum().item() for x, y in pieces)
    return correct / len(images)


if __name__ == "__main__":
    main()
