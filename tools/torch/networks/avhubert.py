"""AV-HuBERT: the audio-visual encoder, and the decoder of its fine-tuned lip readers, with fairseq's names."""

import math

import torch
import torch.nn.functional as F
from torch import nn


class BasicBlock(nn.Module):
    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.relu1 = nn.PReLU(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.relu2 = nn.PReLU(outputs)
        self.downsample = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x):
        h = self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(x)))))
        return self.relu2(h + (x if self.downsample is None else self.downsample(x)))


class ResNet(nn.Module):
    """[batch, 1, frames, 88, 88] -> [batch, frames, 512]"""

    def __init__(self):
        super().__init__()
        stem = nn.Conv3d(1, 64, (5, 7, 7), (1, 2, 2), (2, 3, 3), bias=False)
        pool = nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1))
        self.frontend3D = nn.Sequential(stem, nn.BatchNorm3d(64), nn.PReLU(64), pool)
        self.trunk, inputs = nn.Module(), 64
        for i, outputs in enumerate([64, 128, 256, 512]):
            blocks = [BasicBlock(inputs, outputs, 1 if i == 0 else 2), BasicBlock(outputs, outputs, 1)]
            self.trunk.add_module(f"layer{i + 1}", nn.Sequential(*blocks))
            inputs = outputs

    def forward(self, x):
        x = self.frontend3D(x)
        batch, _, frames = x.shape[:3]
        x = x.transpose(1, 2).flatten(0, 1)
        for layer in self.trunk.children():
            x = layer(x)
        return x.mean((2, 3)).unflatten(0, (batch, frames))


class Attention(nn.Module):
    def __init__(self, dim, memory_dim, heads):
        super().__init__()
        self.heads = heads
        self.k_proj, self.v_proj = nn.Linear(memory_dim, dim), nn.Linear(memory_dim, dim)
        self.q_proj, self.out_proj = nn.Linear(dim, dim), nn.Linear(dim, dim)

    def forward(self, x, memory, causal=False):
        def heads(h):
            return h.unflatten(2, (self.heads, -1)).transpose(1, 2)

        q, k, v = heads(self.q_proj(x)), heads(self.k_proj(memory)), heads(self.v_proj(memory))
        h = F.scaled_dot_product_attention(q, k, v, is_causal=causal)
        return self.out_proj(h.transpose(1, 2).flatten(2))


class EncoderLayer(nn.Module):
    def __init__(self, dim, feed_forward_dim, heads):
        super().__init__()
        self.self_attn = Attention(dim, dim, heads)
        self.self_attn_layer_norm = nn.LayerNorm(dim)
        self.fc1, self.fc2 = nn.Linear(dim, feed_forward_dim), nn.Linear(feed_forward_dim, dim)
        self.final_layer_norm = nn.LayerNorm(dim)

    def forward(self, x):
        h = self.self_attn_layer_norm(x)
        x = x + self.self_attn(h, h)
        return x + self.fc2(F.gelu(self.fc1(self.final_layer_norm(x))))


class WeightNormConv(nn.Module):
    """The positional convolution, its weight normalised for each place of the kernel."""

    def __init__(self, dim, kernel, groups):
        super().__init__()
        self.groups = groups
        self.bias = nn.Parameter(torch.zeros(dim))
        self.weight_g = nn.Parameter(torch.ones(1, 1, kernel))
        self.weight_v = nn.Parameter(torch.randn(dim, dim // groups, kernel) * math.sqrt(4 / (kernel * dim)))

    def forward(self, x):
        weight = self.weight_g * self.weight_v / self.weight_v.norm(dim=(0, 1), keepdim=True)
        kernel = weight.shape[2]
        y = F.conv1d(x, weight, self.bias, padding=kernel // 2, groups=self.groups)
        return F.gelu(y[:, :, :-1] if kernel % 2 == 0 else y)


class Transformer(nn.Module):
    def __init__(self, dim, num_layers, num_heads, feed_forward_dim, position_kernel, position_groups):
        super().__init__()
        self.pos_conv = nn.ModuleList([WeightNormConv(dim, position_kernel, position_groups)])
        self.layers = nn.ModuleList(EncoderLayer(dim, feed_forward_dim, num_heads) for _ in range(num_layers))
        self.layer_norm = nn.LayerNorm(dim)

    def forward(self, x):
        x = x + self.pos_conv[0](x.transpose(1, 2)).transpose(1, 2)
        for layer in self.layers:
            x = layer(x)
        return self.layer_norm(x)


class AVHubert(nn.Module):
    """`sizes` are those of `Transformer`; the last three tensors belong to pre-training only."""

    def __init__(self, dim=768, num_layers=12, num_heads=12, feed_forward_dim=3072, position_kernel=128,
                 position_groups=16, clusters=2000):
        super().__init__()
        self.feature_extractor_audio = nn.ModuleDict({"proj": nn.Linear(104, dim)})
        self.feature_extractor_video = nn.ModuleDict({"resnet": ResNet(), "proj": nn.Linear(512, dim)})
        self.layer_norm = nn.LayerNorm(2 * dim)
        self.post_extract_proj = nn.Linear(2 * dim, dim)
        self.encoder = Transformer(dim, num_layers, num_heads, feed_forward_dim, position_kernel, position_groups)
        self.mask_emb = nn.Parameter(torch.rand(104))
        self.label_embs_concat = nn.Parameter(torch.rand(clusters, 256 if dim > 256 else 16))
        self.final_proj = nn.Linear(dim, self.label_embs_concat.shape[1])

    def forward(self, rows=None, mouths=None):
        """[batch, time, 104], [batch, time, 88, 88]; a sense that is absent counts as zero after its front end."""
        audio = None if rows is None else self.feature_extractor_audio["proj"](rows)
        if mouths is not None:
            video = self.feature_extractor_video["proj"](self.feature_extractor_video["resnet"](mouths[:, None]))
        else:
            video = torch.zeros_like(audio)
        audio = torch.zeros_like(video) if audio is None else audio
        return self.encoder(self.post_extract_proj(self.layer_norm(torch.cat([audio, video], dim=2))))


class DecoderLayer(nn.Module):
    def __init__(self, dim, memory_dim, feed_forward_dim, heads):
        super().__init__()
        self.self_attn = Attention(dim, dim, heads)
        self.self_attn_layer_norm = nn.LayerNorm(dim)
        self.encoder_attn = Attention(dim, memory_dim, heads)
        self.encoder_attn_layer_norm = nn.LayerNorm(dim)
        self.fc1, self.fc2 = nn.Linear(dim, feed_forward_dim), nn.Linear(feed_forward_dim, dim)
        self.final_layer_norm = nn.LayerNorm(dim)

    def forward(self, x, memory):
        h = self.self_attn_layer_norm(x)
        x = x + self.self_attn(h, h, causal=True)
        x = x + self.encoder_attn(self.encoder_attn_layer_norm(x), memory)
        return x + self.fc2(F.relu(self.fc1(self.final_layer_norm(x))))


class Decoder(nn.Module):
    def __init__(self, memory_dim, dim, num_layers, num_heads, feed_forward_dim, vocabulary):
        super().__init__()
        self.embed_tokens = nn.Embedding(vocabulary, dim)
        layers = (DecoderLayer(dim, memory_dim, feed_forward_dim, num_heads) for _ in range(num_layers))
        self.layers = nn.ModuleList(layers)
        self.layer_norm = nn.LayerNorm(dim)

    def positions(self, count):
        """Sines, then cosines; the first place is 2, after that of the padding."""
        half = self.embed_tokens.weight.shape[1] // 2
        step = math.log(10000) / (half - 1)
        angles = torch.arange(2, count + 2).float()[:, None] * torch.exp(torch.arange(half).float() * -step)
        return torch.cat([angles.sin(), angles.cos()], dim=1)

    def forward(self, tokens, memory):
        x = self.embed_tokens(tokens) + self.positions(tokens.shape[1])
        for layer in self.layers:
            x = layer(x, memory)
        return self.layer_norm(x) @ self.embed_tokens.weight.T


class Reader(nn.Module):
    """`AVHubertSeq2Seq`."""

    def __init__(self, encoder, decoder):
        super().__init__()
        self.encoder = nn.ModuleDict({"w2v_model": AVHubert(**encoder)})
        self.decoder = Decoder(encoder["dim"], **decoder)

    def forward(self, mouths, tokens):
        memory = self.encoder["w2v_model"](None, mouths)
        return memory, self.decoder(tokens, memory)
