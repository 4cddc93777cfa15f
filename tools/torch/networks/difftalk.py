"""What DiffTalk puts into its U-Net: one token of 64 values of sound and 64 of landmarks."""

import torch
import torch.nn.functional as F
from torch import nn

LEAK = 0.02


def leaky(*parts):
    """The parts with a leaky ReLU after each."""
    return nn.Sequential(*(layer for part in parts for layer in (part, nn.LeakyReLU(LEAK))))


class AudioNet(nn.Module):
    """16 rows of 29 characters -> `dim`."""

    def __init__(self, dim=64):
        super().__init__()
        channels = [29, 32, 32, 64, 64]
        self.encoder_conv = leaky(*(nn.Conv1d(a, b, 3, 2, 1) for a, b in zip(channels, channels[1:])))
        self.encoder_fc1 = nn.Sequential(nn.Linear(64, 64), nn.LeakyReLU(LEAK), nn.Linear(64, dim))

    def forward(self, x):
        return self.encoder_fc1(self.encoder_conv(x.transpose(1, 2)).squeeze(2))


class AudioAttNet(nn.Module):
    """A weighted mean over the rows of a window, the weights from the first `dim_aud` channels."""

    def __init__(self, dim_aud=32, seq_len=8):
        super().__init__()
        self.dim_aud = dim_aud
        channels = [dim_aud, 16, 8, 4, 2, 1]
        self.attentionConvNet = leaky(*(nn.Conv1d(a, b, 3, 1, 1) for a, b in zip(channels, channels[1:])))
        self.attentionNet = nn.Sequential(nn.Linear(seq_len, seq_len))

    def forward(self, x):
        y = self.attentionNet(self.attentionConvNet(x[..., : self.dim_aud].transpose(1, 2)))
        return torch.matmul(F.softmax(y, dim=2), x).squeeze(1)


class LdmNet(nn.Module):
    """39 landmarks -> 64."""

    def __init__(self, dim=64):
        super().__init__()
        parts = [nn.Linear(78, 128), nn.LeakyReLU(LEAK), nn.Linear(128, dim), nn.LeakyReLU(LEAK), nn.Linear(dim, dim)]
        self.encoder_fc1 = nn.Sequential(*parts)

    def forward(self, x):
        return self.encoder_fc1(x)


class Condition(nn.Module):
    """The three together; their names in a checkpoint begin with `cond_stage_model_for_`."""

    def __init__(self):
        super().__init__()
        self.audio, self.audio_smooth, self.ldm = AudioNet(), AudioAttNet(), LdmNet()

    def forward(self, windows, landmarks):
        """[batch, 8, 16, 29], [batch, 78] -> [batch, 1, 128]"""
        rows = self.audio(windows.flatten(0, 1)).unflatten(0, windows.shape[:2])
        return torch.cat([self.audio_smooth(rows), self.ldm(landmarks)], dim=1)[:, None]
