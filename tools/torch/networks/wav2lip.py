"""Wav2Lip's generator, its sync expert and its quality discriminator."""

import torch
import torch.nn.functional as F
from torch import nn


class Conv2d(nn.Module):
    """Convolution, batch norm, the input added when residual, ReLU."""

    def __init__(self, inputs, outputs, kernel, stride, padding, residual=False):
        super().__init__()
        conv = nn.Conv2d(inputs, outputs, kernel, stride, padding)
        self.conv_block = nn.Sequential(conv, nn.BatchNorm2d(outputs))
        self.residual = residual

    def forward(self, x):
        y = self.conv_block(x)
        return F.relu(y + x if self.residual else y)


class Transposed(nn.Module):
    def __init__(self, inputs, outputs, stride, padding, output_padding=0):
        super().__init__()
        conv = nn.ConvTranspose2d(inputs, outputs, 3, stride, padding, output_padding)
        self.conv_block = nn.Sequential(conv, nn.BatchNorm2d(outputs))

    def forward(self, x):
        return F.relu(self.conv_block(x))


class Leaky(nn.Module):
    """The discriminator's: no norm, leaky ReLU."""

    def __init__(self, inputs, outputs, kernel, stride, padding):
        super().__init__()
        self.conv_block = nn.Sequential(nn.Conv2d(inputs, outputs, kernel, stride, padding))

    def forward(self, x):
        return F.leaky_relu(self.conv_block(x), 0.01)


def residuals(channels, count):
    return [Conv2d(channels, channels, 3, 1, 1, residual=True) for _ in range(count)]


def group(inputs, outputs, stride, count, kernel=3, padding=1):
    return [Conv2d(inputs, outputs, kernel, stride, padding), *residuals(outputs, count)]


def audio_encoder(of_256):
    return nn.Sequential(
        *group(1, 32, 1, 2),
        *group(32, 64, (3, 1), 2),
        *group(64, 128, 3, 2),
        *group(128, 256, (3, 2), of_256),
        Conv2d(256, 512, 3, 1, 0),
        Conv2d(512, 512, 1, 1, 0),
    )


class Generator(nn.Module):
    def __init__(self):
        super().__init__()

        def down(inputs, outputs, count):
            return nn.Sequential(*group(inputs, outputs, 2, count))

        def up(inputs, outputs, count, *shape):
            return nn.Sequential(Transposed(inputs, outputs, *shape), *residuals(outputs, count))

        twice = (2, 1, 1)
        self.face_encoder_blocks = nn.ModuleList([
            nn.Sequential(Conv2d(6, 16, 7, 1, 3)),
            down(16, 32, 2), down(32, 64, 3), down(64, 128, 2), down(128, 256, 2), down(256, 512, 1),
            nn.Sequential(Conv2d(512, 512, 3, 1, 0), Conv2d(512, 512, 1, 1, 0)),
        ])
        self.audio_encoder = audio_encoder(1)
        self.face_decoder_blocks = nn.ModuleList([
            nn.Sequential(Conv2d(512, 512, 1, 1, 0)),
            up(1024, 512, 1, 1, 0), up(1024, 512, 2, *twice), up(768, 384, 2, *twice),
            up(512, 256, 2, *twice), up(320, 128, 2, *twice), up(160, 64, 2, *twice),
        ])
        self.output_block = nn.Sequential(Conv2d(80, 32, 3, 1, 1), nn.Conv2d(32, 3, 1), nn.Sigmoid())

    def forward(self, mel, faces):
        """[batch, 1, 80, 16], [batch, 6, 96, 96] -> [batch, 3, 96, 96]"""
        features, h = [], faces
        for block in self.face_encoder_blocks:
            h = block(h)
            features.append(h)
        x = self.audio_encoder(mel)
        for block in self.face_decoder_blocks:
            x = torch.cat([block(x), features.pop()], dim=1)
        return self.output_block(x)


class ColourSyncNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.face_encoder = nn.Sequential(
            Conv2d(15, 32, 7, 1, 3),
            *group(32, 64, (1, 2), 2, kernel=5, padding=1),
            *group(64, 128, 2, 3),
            *group(128, 256, 2, 2),
            *group(256, 512, 2, 2),
            Conv2d(512, 512, 3, 2, 1),
            Conv2d(512, 512, 3, 1, 0),
            Conv2d(512, 512, 1, 1, 0),
        )
        self.audio_encoder = audio_encoder(2)

    def forward(self, mel, faces):
        """[batch, 1, 80, 16], [batch, 15, 48, 96] -> [batch, 512] of length 1 each"""
        return tuple(F.normalize(net(x).flatten(1)) for net, x in ((self.audio_encoder, mel), (self.face_encoder, faces)))


class Discriminator(nn.Module):
    def __init__(self):
        super().__init__()

        def pair(inputs, outputs, kernel, stride):
            padding = kernel // 2
            first = Leaky(inputs, outputs, kernel, stride, padding)
            return nn.Sequential(first, Leaky(outputs, outputs, kernel, 1, padding))

        self.face_encoder_blocks = nn.ModuleList([
            nn.Sequential(Leaky(3, 32, 7, 1, 3)),
            pair(32, 64, 5, (1, 2)), pair(64, 128, 5, 2), pair(128, 256, 5, 2), pair(256, 512, 3, 2), pair(512, 512, 3, 2),
            nn.Sequential(Leaky(512, 512, 3, 1, 0), Leaky(512, 512, 1, 1, 0)),
        ])
        self.binary_pred = nn.Sequential(nn.Conv2d(512, 1, 1), nn.Sigmoid())

    def forward(self, faces):
        """[batch, 3, 96, 96] -> [batch, 1]; only the lower half is looked at"""
        x = faces[:, :, faces.shape[2] // 2 :]
        for block in self.face_encoder_blocks:
            x = block(x)
        return self.binary_pred(x).flatten(1)
