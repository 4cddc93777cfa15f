"""VQ-f4 autoencoder with latent-diffusion's names (`VQModelInterface`)."""

import torch.nn.functional as F
from torch import nn


def norm(channels, groups=32):
    return nn.GroupNorm(groups, channels, eps=1e-6)


class ResnetBlock(nn.Module):
    def __init__(self, inputs, outputs, groups):
        super().__init__()
        self.norm1 = norm(inputs, groups)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.norm2 = norm(outputs, groups)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        if inputs != outputs:
            self.nin_shortcut = nn.Conv2d(inputs, outputs, 1)

    def forward(self, x):
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.conv2(F.silu(self.norm2(h)))
        return h + (self.nin_shortcut(x) if hasattr(self, "nin_shortcut") else x)


class AttnBlock(nn.Module):
    def __init__(self, channels, groups):
        super().__init__()
        self.norm = norm(channels, groups)
        self.q, self.k, self.v, self.proj_out = (nn.Conv2d(channels, channels, 1) for _ in range(4))

    def forward(self, x):
        h = self.norm(x)
        b, c, height, width = h.shape
        q, k, v = (part(h).reshape(b, c, -1).transpose(1, 2) for part in (self.q, self.k, self.v))
        h = F.scaled_dot_product_attention(q[:, None], k[:, None], v[:, None])[:, 0]
        return x + self.proj_out(h.transpose(1, 2).reshape(b, c, height, width))


class Downsample(nn.Module):
    """One zero to the right and below, then stride 2."""

    def __init__(self, channels):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x):
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class Upsample(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x):
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


def middle(channels, groups):
    parts = {"block_1": ResnetBlock(channels, channels, groups), "attn_1": AttnBlock(channels, groups)}
    return nn.ModuleDict(parts | {"block_2": ResnetBlock(channels, channels, groups)})


def level(inputs, outputs, blocks, groups):
    made = nn.Module()
    made.block = nn.ModuleList(ResnetBlock(inputs if i == 0 else outputs, outputs, groups) for i in range(blocks))
    return made


class Encoder(nn.Module):
    def __init__(self, in_channels, z_channels, ch, ch_mult, num_res_blocks, groups):
        super().__init__()
        self.conv_in = nn.Conv2d(in_channels, ch, 3, padding=1)
        self.down, channels = nn.ModuleList(), ch
        for i, mult in enumerate(ch_mult):
            self.down.append(level(channels, ch * mult, num_res_blocks, groups))
            channels = ch * mult
            if i + 1 < len(ch_mult):
                self.down[-1].downsample = Downsample(channels)
        self.mid = middle(channels, groups)
        self.norm_out = norm(channels, groups)
        self.conv_out = nn.Conv2d(channels, z_channels, 3, padding=1)

    def forward(self, x):
        x = self.conv_in(x)
        for stage in self.down:
            for block in stage.block:
                x = block(x)
            x = stage.downsample(x) if hasattr(stage, "downsample") else x
        for part in self.mid.values():
            x = part(x)
        return self.conv_out(F.silu(self.norm_out(x)))


class Decoder(nn.Module):
    def __init__(self, in_channels, z_channels, ch, ch_mult, num_res_blocks, groups):
        super().__init__()
        channels = ch * ch_mult[-1]
        self.conv_in = nn.Conv2d(z_channels, channels, 3, padding=1)
        self.mid = middle(channels, groups)
        stages = []
        for i, mult in reversed(list(enumerate(ch_mult))):
            stages.append(level(channels, ch * mult, num_res_blocks + 1, groups))
            channels = ch * mult
            if i > 0:
                stages[-1].upsample = Upsample(channels)
        # By level: the last one runs first.
        self.up = nn.ModuleList(reversed(stages))
        self.norm_out = norm(channels, groups)
        self.conv_out = nn.Conv2d(channels, in_channels, 3, padding=1)

    def forward(self, x):
        x = self.conv_in(x)
        for part in self.mid.values():
            x = part(x)
        for stage in reversed(self.up):
            for block in stage.block:
                x = block(x)
            x = stage.upsample(x) if hasattr(stage, "upsample") else x
        return self.conv_out(F.silu(self.norm_out(x)))


def squared_distances(z, codes):
    """Of each position of the latents to each code, as the original computes them."""
    rows = z.permute(0, 2, 3, 1).reshape(-1, z.shape[1])
    return rows.pow(2).sum(1, keepdim=True) + codes.pow(2).sum(1) - 2.0 * rows @ codes.T


class Quantizer(nn.Module):
    def __init__(self, n_embed, channels):
        super().__init__()
        self.embedding = nn.Embedding(n_embed, channels)

    def forward(self, z):
        b, c, height, width = z.shape
        indices = squared_distances(z, self.embedding.weight).argmin(1)
        return self.embedding(indices).reshape(b, height, width, c).permute(0, 3, 1, 2)


class VQModel(nn.Module):
    def __init__(self, in_channels=3, z_channels=3, ch=128, ch_mult=(1, 2, 4), num_res_blocks=2, n_embed=8192,
                 norm_groups=32):
        super().__init__()
        sizes = (in_channels, z_channels, ch, ch_mult, num_res_blocks, norm_groups)
        self.encoder = Encoder(*sizes)
        self.decoder = Decoder(*sizes)
        self.quantize = Quantizer(n_embed, z_channels)
        self.quant_conv = nn.Conv2d(z_channels, z_channels, 1)
        self.post_quant_conv = nn.Conv2d(z_channels, z_channels, 1)

    def encode(self, x):
        return self.quant_conv(self.encoder(x))

    def decode(self, z):
        return self.decoder(self.post_quant_conv(self.quantize(z)))
