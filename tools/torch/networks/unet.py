"""The U-Net of latent diffusion and DiffTalk with its names (`UNetModel`, spatial transformers of depth 1)."""

import math

import torch
import torch.nn.functional as F
from torch import nn


class ResBlock(nn.Module):
    def __init__(self, inputs, outputs, embedding, groups):
        super().__init__()
        self.in_layers = nn.Sequential(nn.GroupNorm(groups, inputs), nn.SiLU(), nn.Conv2d(inputs, outputs, 3, padding=1))
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(embedding, outputs))
        conv = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.out_layers = nn.Sequential(nn.GroupNorm(groups, outputs), nn.SiLU(), nn.Dropout(0.0), conv)
        self.skip_connection = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)

    def forward(self, x, emb, _context):
        h = self.in_layers(x) + self.emb_layers(emb)[:, :, None, None]
        return self.skip_connection(x) + self.out_layers(h)


class CrossAttention(nn.Module):
    def __init__(self, dim, context_dim, head_dim):
        super().__init__()
        self.head_dim = head_dim
        self.to_q = nn.Linear(dim, dim, bias=False)
        self.to_k = nn.Linear(context_dim, dim, bias=False)
        self.to_v = nn.Linear(context_dim, dim, bias=False)
        self.to_out = nn.Sequential(nn.Linear(dim, dim), nn.Dropout(0.0))

    def forward(self, x, context):
        def heads(h):
            return h.unflatten(2, (-1, self.head_dim)).transpose(1, 2)

        h = F.scaled_dot_product_attention(heads(self.to_q(x)), heads(self.to_k(context)), heads(self.to_v(context)))
        return self.to_out(h.transpose(1, 2).flatten(2))


class GEGLU(nn.Module):
    def __init__(self, dim, inner):
        super().__init__()
        self.proj = nn.Linear(dim, 2 * inner)

    def forward(self, x):
        x, gate = self.proj(x).chunk(2, dim=-1)
        return x * F.gelu(gate)


class FeedForward(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.net = nn.Sequential(GEGLU(dim, 4 * dim), nn.Dropout(0.0), nn.Linear(4 * dim, dim))

    def forward(self, x):
        return self.net(x)


class BasicTransformerBlock(nn.Module):
    def __init__(self, dim, context_dim, head_dim):
        super().__init__()
        self.attn1 = CrossAttention(dim, dim, head_dim)
        self.ff = FeedForward(dim)
        self.attn2 = CrossAttention(dim, context_dim, head_dim)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(dim) for _ in range(3))

    def forward(self, x, context):
        h = self.norm1(x)
        x = x + self.attn1(h, h)
        x = x + self.attn2(self.norm2(x), context)
        return x + self.ff(self.norm3(x))


class SpatialTransformer(nn.Module):
    def __init__(self, dim, context_dim, head_dim, groups):
        super().__init__()
        self.norm = nn.GroupNorm(groups, dim, eps=1e-6)
        self.proj_in = nn.Conv2d(dim, dim, 1)
        self.transformer_blocks = nn.ModuleList([BasicTransformerBlock(dim, context_dim, head_dim)])
        self.proj_out = nn.Conv2d(dim, dim, 1)

    def forward(self, x, _emb, context):
        b, c, height, width = x.shape
        h = self.proj_in(self.norm(x)).flatten(2).transpose(1, 2)
        h = self.transformer_blocks[0](h, context)
        return x + self.proj_out(h.transpose(1, 2).reshape(b, c, height, width))


class Downsample(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.op = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x, _emb, _context):
        return self.op(x)


class Upsample(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x, _emb, _context):
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class Plain(nn.Conv2d):
    """The first convolution, called like the other parts."""

    def forward(self, x, _emb, _context):
        return super().forward(x)


def timestep_embedding(timesteps, dim):
    """Cosines first."""
    half = dim // 2
    freqs = torch.exp(-math.log(10000) * torch.arange(half, dtype=torch.float32, device=timesteps.device) / half)
    angles = timesteps[:, None].float() * freqs
    return torch.cat([angles.cos(), angles.sin()], dim=1)


class UNet(nn.Module):
    def __init__(self, in_channels=10, out_channels=3, model_channels=256, channel_mult=(1, 2, 3, 4), num_res_blocks=2,
                 attention_resolutions=(8, 4, 2), num_head_channels=32, context_dim=768, norm_groups=32):
        super().__init__()
        c = self.model_channels = model_channels
        emb = 4 * c
        self.time_embed = nn.Sequential(nn.Linear(c, emb), nn.SiLU(), nn.Linear(emb, emb))

        def res(inputs, outputs, factor):
            parts = [ResBlock(inputs, outputs, emb, norm_groups)]
            if factor in attention_resolutions:
                parts.append(transformer(outputs))
            return parts

        def transformer(channels):
            return SpatialTransformer(channels, context_dim, num_head_channels, norm_groups)

        self.input_blocks = nn.ModuleList([nn.ModuleList([Plain(in_channels, c, 3, padding=1)])])
        skips, channels, factor = [c], c, 1
        for level, mult in enumerate(channel_mult):
            for _ in range(num_res_blocks):
                self.input_blocks.append(nn.ModuleList(res(channels, mult * c, factor)))
                channels = mult * c
                skips.append(channels)
            if level + 1 < len(channel_mult):
                self.input_blocks.append(nn.ModuleList([Downsample(channels)]))
                skips.append(channels)
                factor *= 2
        ends = [ResBlock(channels, channels, emb, norm_groups) for _ in range(2)]
        self.middle_block = nn.ModuleList([ends[0], transformer(channels), ends[1]])
        self.output_blocks = nn.ModuleList()
        for level, mult in reversed(list(enumerate(channel_mult))):
            for i in range(num_res_blocks + 1):
                parts = res(channels + skips.pop(), mult * c, factor)
                channels = mult * c
                if level > 0 and i == num_res_blocks:
                    parts.append(Upsample(channels))
                    factor //= 2
                self.output_blocks.append(nn.ModuleList(parts))
        conv = nn.Conv2d(channels, out_channels, 3, padding=1)
        self.out = nn.Sequential(nn.GroupNorm(norm_groups, channels), nn.SiLU(), conv)

    def forward(self, x, timesteps, context):
        emb = self.time_embed(timestep_embedding(timesteps, self.model_channels))
        skips = []
        for block in self.input_blocks:
            for part in block:
                x = part(x, emb, context)
            skips.append(x)
        for part in self.middle_block:
            x = part(x, emb, context)
        for block in self.output_blocks:
            x = torch.cat([x, skips.pop()], dim=1)
            for part in block:
                x = part(x, emb, context)
        return self.out(x)
