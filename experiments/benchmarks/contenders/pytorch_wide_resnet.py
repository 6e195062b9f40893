"""Trains the Wide-ResNet of `noisegen.models` by a PyTorch loop made for speed.

Data and augmentation on the device, channels_last, autocast to bf16, torch.compile, a fused
optimizer, no wait for the device between updates. Ghost batch normalization is exact: a view that
gives each ghost batch an axis of its own, whose sums and products torch.compile fuses.
"""

import sys
import time

import numpy as np
import torch
from torch import nn

from experiments.benchmarks.contenders import exchange


def main() -> None:
    """Measures every microbatch of the spec."""
    spec = exchange.read_spec()
    if spec["device"] == "cuda" and not torch.cuda.is_available():
        sys.exit("PyTorch finds no GPU, and JAX does: give --torch_python a PyTorch for CUDA.")
    if spec["device"] == "cpu":
        torch.set_num_threads(spec["threads"])
    torch.backends.cudnn.benchmark = True
    torch.manual_seed(spec["seed"])
    runs = [measure(spec, settings) for settings in spec["runs"]]
    versions = {"torch": torch.__version__, "cuda": torch.version.cuda}
    model = make_model(spec, "float32")
    exchange.answer(runs, num_parameters=num_parameters(model), versions=versions)


class GhostBatchNorm(nn.Module):
    """`noisegen.models.GhostBatchNorm`, its running statistics included, for `(N, C, H, W)`."""

    def __init__(self, features: int, ghost_size: int, momentum: float = 0.9):
        super().__init__()
        self.ghost_size, self.momentum, self.epsilon = ghost_size, momentum, 1e-5
        self.weight = nn.Parameter(torch.ones(features))
        self.bias = nn.Parameter(torch.zeros(features))
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("var", torch.ones(features))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        groups = x.float().unflatten(0, (-1, self.ghost_size))
        mean = groups.mean((1, 3, 4))
        var = ((groups * groups).mean((1, 3, 4)) - mean * mean).clamp(min=0)
        self._update(mean.detach(), var.detach())
        scale = torch.rsqrt(var + self.epsilon) * self.weight
        shift = self.bias - mean * scale
        y = groups * scale[:, None, :, None, None] + shift[:, None, :, None, None]
        return y.flatten(0, 1).to(x.dtype)

    def _update(self, mean, var):
        """Updates running statistics, ghost batch by ghost batch."""
        count = len(mean)
        age = torch.arange(count - 1, -1, -1, device=mean.device)
        weights = (1 - self.momentum) * self.momentum ** age[:, None]
        for running, new in ((self.mean, mean), (self.var, var)):
            running.mul_(self.momentum**count).add_((weights * new).sum(0))


class Block(nn.Module):
    """Two pre-activated 3 x 3 convolutions; the projection takes the activated input too."""

    def __init__(self, inputs: int, outputs: int, stride: int, ghost_size: int):
        super().__init__()
        self.norm1 = GhostBatchNorm(inputs, ghost_size)
        self.conv1 = conv(inputs, outputs, 3, stride)
        self.norm2 = GhostBatchNorm(outputs, ghost_size)
        self.conv2 = conv(outputs, outputs, 3)
        same = inputs == outputs and stride == 1
        self.shortcut = None if same else conv(inputs, outputs, 1, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        active = self.norm1(x).relu()
        skip = x if self.shortcut is None else self.shortcut(active)
        return skip + self.conv2(self.norm2(self.conv1(active)).relu())


class WideResNet(nn.Module):
    """Convolutions under autocast; the logits, as in noisegen, in float32."""

    def __init__(self, depth: int, width: int, ghost_size: int, dtype: str = "bfloat16"):
        super().__init__()
        self.dtype = getattr(torch, dtype)
        blocks = (depth - 4) // 6
        widths = [16] + [16 * 2**stage * width for stage in range(3) for _ in range(blocks)]
        strides = [1 + (stage > 0 and block == 0) for stage in range(3) for block in range(blocks)]
        shapes = zip(widths, widths[1:], strides, strict=False)
        self.features = nn.Sequential(
            conv(3, 16, 3),
            *(Block(*shape, ghost_size) for shape in shapes),
            GhostBatchNorm(widths[-1], ghost_size),
            nn.ReLU(),
        )
        self.logits = nn.Linear(widths[-1], 10)
        nn.init.normal_(self.logits.weight, std=widths[-1] ** -0.5)
        nn.init.zeros_(self.logits.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        lower = self.dtype != torch.float32
        with torch.autocast(x.device.type, self.dtype, enabled=lower):
            x = self.features(x)
        return self.logits(x.float().mean((2, 3)))


def conv(inputs: int, outputs: int, size: int, stride: int = 1) -> nn.Conv2d:
    """Returns a convolution with the initial weights of He et al."""
    layer = nn.Conv2d(inputs, outputs, size, stride, padding=size // 2, bias=False)
    nn.init.kaiming_normal_(layer.weight)
    return layer


def make_model(spec: dict, dtype: str) -> WideResNet:
    """Returns the network of the spec, on its device."""
    model = WideResNet(spec["depth"], spec["width"], spec["ghost_size"], dtype)
    return model.to(spec["device"], memory_format=torch.channels_last)


def num_parameters(model: nn.Module) -> int:
    """Numbers that training changes by their gradients."""
    return sum(parameter.numel() for parameter in model.parameters())


def augment(images, chosen, shift, flip, padding):
    """Pads by reflection, crops and mirrors: `(M, H, W, C)` bytes of the chosen examples."""
    last = images.shape[1] - 1
    places = torch.arange(last + 1, device=images.device) - padding + shift[..., None]
    rows, columns = last - (last - places.abs()).abs()
    columns = torch.where(flip[:, None], columns.flip(1), columns)
    return images[chosen[:, None, None], rows[:, :, None], columns[:, None, :]]


def measure(spec: dict, settings: dict) -> dict:
    """Measures images a second and mean loss by batch size, with one microbatch."""
    done = settings | {"speeds": {}, "losses": {}}
    with np.load(spec["images"]) as arrays:
        data = [torch.from_numpy(arrays[f"train_{name}"]) for name in ("image", "label")]
    images, labels = (each.to(spec["device"]) for each in data)
    trainer = Trainer(spec, settings, images, labels.long())
    sizes = [size for size in spec["batch_sizes"] if size >= settings["microbatch"]]
    started = time.perf_counter()
    try:
        for size in sizes:
            trainer.train(size, 2)
        done["first_seconds"] = time.perf_counter() - started
        for size in sizes:
            each = [trainer.time(size) for _ in range(spec["rounds"])]
            done["speeds"][size], losses = zip(*each, strict=True)
            done["losses"][size] = losses[0]
    except torch.cuda.OutOfMemoryError as error:
        done["failed"] = str(error).splitlines()[0]
    exchange.say(f"PyTorch {done}")
    return done


class Trainer:
    """Trains networks on images that lie on the device."""

    def __init__(self, spec: dict, settings: dict, images: torch.Tensor, labels: torch.Tensor):
        self.spec, self.microbatch, self.images = spec, settings["microbatch"], images
        mean, std = (torch.tensor(spec[name], device=images.device) for name in ("mean", "std"))
        padding, model = spec["padding"], make_model(spec, settings["dtype"])

        def summed_loss(chosen, shift, flip):
            x = augment(images, chosen, shift, flip, padding) * (1 / (255 * std)) - mean / std
            logits = model(x.permute(0, 3, 1, 2))  # channels_last as it stands
            return nn.functional.cross_entropy(logits, labels[chosen], reduction="sum")

        self.model = model
        self.start = {name: value.clone() for name, value in model.state_dict().items()}
        self.loss = torch.compile(summed_loss, dynamic=False) if spec["compile"] else summed_loss

    def time(self, batch_size: int) -> tuple[float, float]:
        """Measures images a second of one run, and its mean loss."""
        updates = self.spec["num_examples"] // batch_size
        self.synchronize()
        started = time.perf_counter()
        loss = self.train(batch_size, updates)
        return updates * batch_size / (time.perf_counter() - started), loss

    def train(self, batch_size: int, updates: int) -> float:
        """Trains from the start; returns the mean loss."""
        spec, device = self.spec, self.images.device
        self.model.load_state_dict(self.start)
        optimizer = torch.optim.SGD(
            self.model.parameters(),
            spec["learning_rate"],
            spec["momentum"],
            weight_decay=spec["l2"],
            fused=device.type == "cuda",
        )
        total = torch.zeros((), device=device)
        epochs = -(-updates * batch_size // len(self.images))
        orders = [torch.randperm(len(self.images), device=device) for _ in range(epochs)]
        for batch in torch.cat(orders)[: updates * batch_size].split(batch_size):
            optimizer.zero_grad()
            for chosen in batch.split(self.microbatch):
                shifts = (2, len(chosen))
                shift = torch.randint(0, 2 * spec["padding"] + 1, shifts, device=device)
                flip = torch.rand(len(chosen), device=device) < 0.5
                loss = self.loss(chosen, shift, flip) / batch_size
                loss.backward()
                total += loss.detach()
            optimizer.step()
        return total.item() / updates  # waits for the device

    def synchronize(self) -> None:
        """Waits for the device."""
        if self.images.device.type == "cuda":
            torch.cuda.synchronize()


if __name__ == "__main__":
    main()
