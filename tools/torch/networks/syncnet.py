"""SyncNet (`S` of syncnet_python): lips and sound to embeddings."""

from torch import nn


def stage(conv, norm, channels, pool=None):
    parts = [conv, norm(channels), nn.ReLU()]
    return parts if pool is None else parts + [pool]


def lip(inputs, outputs, kernel, stride=1, padding=(0, 0, 0), pool=None):
    stride = (1, stride, stride)
    return stage(nn.Conv3d(inputs, outputs, kernel, stride, padding), nn.BatchNorm3d, outputs, pool)


def sound(inputs, outputs, kernel, padding=1, pool=None):
    return stage(nn.Conv2d(inputs, outputs, kernel, padding=padding), nn.BatchNorm2d, outputs, pool)


def head():
    return nn.Sequential(nn.Linear(512, 512), nn.BatchNorm1d(512), nn.ReLU(), nn.Linear(512, 1024))


class SyncNet(nn.Module):
    def __init__(self):
        super().__init__()
        by_two = ((1, 3, 3), (1, 2, 2))
        self.netcnnaud = nn.Sequential(
            *sound(1, 64, 3, pool=nn.MaxPool2d(1, 1)),
            *sound(64, 192, 3, pool=nn.MaxPool2d(3, (1, 2))),
            *sound(192, 384, 3),
            *sound(384, 256, 3),
            *sound(256, 256, 3, pool=nn.MaxPool2d(3, 2)),
            *sound(256, 512, (5, 4), padding=0),
        )
        self.netfcaud = head()
        self.netfclip = head()
        self.netcnnlip = nn.Sequential(
            *lip(3, 96, (5, 7, 7), 2, pool=nn.MaxPool3d(*by_two)),
            *lip(96, 256, (1, 5, 5), 2, (0, 1, 1), nn.MaxPool3d(*by_two, padding=(0, 1, 1))),
            *lip(256, 256, (1, 3, 3), 1, (0, 1, 1)),
            *lip(256, 256, (1, 3, 3), 1, (0, 1, 1)),
            *lip(256, 256, (1, 3, 3), 1, (0, 1, 1), nn.MaxPool3d(*by_two)),
            *lip(256, 512, (1, 6, 6)),
        )

    def forward(self, lips, cepstra):
        """[batch, 3, 5, 224, 224], [batch, 1, 13, 20] -> [batch, 1024] each"""
        return self.netfclip(self.netcnnlip(lips).flatten(1)), self.netfcaud(self.netcnnaud(cepstra).flatten(1))
