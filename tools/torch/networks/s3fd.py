"""S3FD, the face detector of Wav2Lip: scores and offsets of six levels."""

import torch
import torch.nn.functional as F
from torch import nn

# Name, inputs, outputs, kernel, stride, padding.
TRUNK = [
    ("conv1_1", 3, 64, 3, 1, 1), ("conv1_2", 64, 64, 3, 1, 1),
    ("conv2_1", 64, 128, 3, 1, 1), ("conv2_2", 128, 128, 3, 1, 1),
    ("conv3_1", 128, 256, 3, 1, 1), ("conv3_2", 256, 256, 3, 1, 1), ("conv3_3", 256, 256, 3, 1, 1),
    ("conv4_1", 256, 512, 3, 1, 1), ("conv4_2", 512, 512, 3, 1, 1), ("conv4_3", 512, 512, 3, 1, 1),
    ("conv5_1", 512, 512, 3, 1, 1), ("conv5_2", 512, 512, 3, 1, 1), ("conv5_3", 512, 512, 3, 1, 1),
    ("fc6", 512, 1024, 3, 1, 3), ("fc7", 1024, 1024, 1, 1, 0),
    ("conv6_1", 1024, 256, 1, 1, 0), ("conv6_2", 256, 512, 3, 2, 1),
    ("conv7_1", 512, 128, 1, 1, 0), ("conv7_2", 128, 256, 3, 2, 1),
]
POOLED = {"conv1_2", "conv2_2", "conv3_3", "conv4_3", "conv5_3"}
# Name of the level, the convolution that it stands on, channels, outputs of its confidence head.
LEVELS = [
    ("conv3_3_norm", "conv3_3", 256, 4), ("conv4_3_norm", "conv4_3", 512, 2), ("conv5_3_norm", "conv5_3", 512, 2),
    ("fc7", "fc7", 1024, 2), ("conv6_2", "conv6_2", 512, 2), ("conv7_2", "conv7_2", 256, 2),
]
NORMS = {"conv3_3_norm": 10.0, "conv4_3_norm": 8.0, "conv5_3_norm": 5.0}


class L2Norm(nn.Module):
    def __init__(self, channels, scale):
        super().__init__()
        self.weight = nn.Parameter(torch.full((channels,), scale))

    def forward(self, x):
        return x / (x.pow(2).sum(1, keepdim=True).sqrt() + 1e-10) * self.weight[:, None, None]


class S3fd(nn.Module):
    def __init__(self):
        super().__init__()
        for name, inputs, outputs, kernel, stride, padding in TRUNK:
            self.add_module(name, nn.Conv2d(inputs, outputs, kernel, stride, padding))
        for level, _, channels, scores in LEVELS:
            if level in NORMS:
                self.add_module(level, L2Norm(channels, NORMS[level]))
            self.add_module(f"{level}_mbox_conf", nn.Conv2d(channels, scores, 3, padding=1))
            self.add_module(f"{level}_mbox_loc", nn.Conv2d(channels, 4, 3, padding=1))

    def forward(self, x):
        """[batch, 3, height, width], means taken off -> of each level scores (2 channels) and offsets (4 channels)"""
        parts, found = dict(self.named_children()), {}
        for name, *_ in TRUNK:
            x = found[name] = F.relu(parts[name](x))
            x = F.max_pool2d(x, 2, 2) if name in POOLED else x
        outputs = []
        for level, source, _, scores in LEVELS:
            h = parts[level](found[source]) if level in NORMS else found[source]
            confidence = parts[f"{level}_mbox_conf"](h)
            if scores == 4:
                confidence = torch.cat([confidence[:, :3].max(1, keepdim=True).values, confidence[:, 3:]], dim=1)
            outputs.append((confidence, parts[f"{level}_mbox_loc"](h)))
        return outputs


def faces(levels):
    """Of each picture, boxes `[n, 5]` (corners and score), best first: decoded, suppressed and filtered as Wav2Lip does.

    A box ends after its last pixel.
    """
    boxes = [[] for _ in range(len(levels[0][0]))]
    for i, (scores, offsets) in enumerate(levels):
        stride = 4 * 2**i
        likely = F.softmax(scores, dim=1)[:, 1]
        for picture, row, column in (likely > 0.05).nonzero().tolist():
            dx, dy, dw, dh = offsets[picture, :, row, column]
            centre_x, centre_y = stride / 2 + column * stride, stride / 2 + row * stride
            size = 4 * stride
            width, height = size * torch.exp(dw * 0.2), size * torch.exp(dh * 0.2)
            left, top = centre_x + dx * 0.1 * size - width / 2, centre_y + dy * 0.1 * size - height / 2
            box = [left, top, left + width, top + height, likely[picture, row, column]]
            boxes[picture].append(torch.stack(box))
    return [suppressed(torch.stack(found)) for found in boxes]


def suppressed(boxes, most=0.3):
    boxes = boxes[boxes[:, 4].argsort(descending=True)]
    area = (boxes[:, 2] - boxes[:, 0] + 1) * (boxes[:, 3] - boxes[:, 1] + 1)
    kept = []
    alive = list(range(len(boxes)))
    while alive:
        best, *rest = alive
        kept.append(best)
        low = torch.maximum(boxes[best, :2], boxes[rest, :2])
        high = torch.minimum(boxes[best, 2:4], boxes[rest, 2:4])
        both = (high - low + 1).clamp(min=0).prod(1)
        overlap = both / (area[best] + area[rest] - both)
        alive = [index for index, share in zip(rest, overlap) if share <= most]
    return boxes[[index for index in kept if boxes[index, 4] > 0.5]]
