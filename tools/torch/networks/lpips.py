"""LPIPS v0.1: trunks of torchvision and heads, named as the state dictionary of `lpips.LPIPS`."""

import torch
import torch.nn.functional as F
from torch import nn

# Each slice: convolutions (place in torchvision's `features`, inputs, outputs, kernel, stride, padding) and poolings.
ALEX = [
    [(0, 3, 64, 11, 4, 2)], ["pool3", (3, 64, 192, 5, 1, 2)], ["pool3", (6, 192, 384, 3, 1, 1)],
    [(8, 384, 256, 3, 1, 1)], [(10, 256, 256, 3, 1, 1)],
]
VGG = [
    [(0, 3, 64, 3, 1, 1), (2, 64, 64, 3, 1, 1)],
    ["pool2", (5, 64, 128, 3, 1, 1), (7, 128, 128, 3, 1, 1)],
    ["pool2", (10, 128, 256, 3, 1, 1), (12, 256, 256, 3, 1, 1), (14, 256, 256, 3, 1, 1)],
    ["pool2", (17, 256, 512, 3, 1, 1), (19, 512, 512, 3, 1, 1), (21, 512, 512, 3, 1, 1)],
    ["pool2", (24, 512, 512, 3, 1, 1), (26, 512, 512, 3, 1, 1), (28, 512, 512, 3, 1, 1)],
]
TRUNKS = {"alex": ALEX, "vgg": VGG}


class Slice(nn.Module):
    def __init__(self, parts):
        super().__init__()
        self.pool = next((int(part[4:]) for part in parts if isinstance(part, str)), None)
        for place, *shape in (part for part in parts if not isinstance(part, str)):
            self.add_module(str(place), nn.Conv2d(*shape))

    def forward(self, x):
        x = F.max_pool2d(x, self.pool, 2) if self.pool else x
        for conv in self.children():
            x = F.relu(conv(x))
        return x


class ScalingLayer(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("shift", torch.tensor([-0.030, -0.088, -0.188])[None, :, None, None])
        self.register_buffer("scale", torch.tensor([0.458, 0.448, 0.450])[None, :, None, None])


class Lpips(nn.Module):
    def __init__(self, trunk):
        super().__init__()
        self.scaling_layer = ScalingLayer()
        self.net, heads = nn.Module(), []
        for i, parts in enumerate(TRUNKS[trunk]):
            self.net.add_module(f"slice{i + 1}", Slice(parts))
            conv = nn.Conv2d(parts[-1][2], 1, 1, bias=False)
            heads.append(nn.ModuleDict({"model": nn.Sequential(nn.Dropout(), conv)}))
            self.add_module(f"lin{i}", heads[-1])
        # The original keeps its heads under two names.
        self.lins = nn.ModuleList(heads)

    def forward(self, x, y):
        """[batch, 3, height, width] in [-1, 1] -> the five terms, [batch, 5]"""
        layer, terms = self.scaling_layer, []
        x, y = ((image - layer.shift) / layer.scale for image in (x, y))
        for slice_, head in zip(self.net.children(), self.lins):
            x, y = slice_(x), slice_(y)
            unit = [h / (h.pow(2).sum(1, keepdim=True).sqrt() + 1e-10) for h in (x, y)]
            terms.append(F.conv2d((unit[0] - unit[1]) ** 2, head["model"][1].weight).mean((1, 2, 3)))
        return torch.stack(terms, dim=1)
