#!/usr/bin/env python3
"""Counts parameters and multiply-accumulates of the PyTorch networks in `networks/`, at the sizes of `models list`.

    /tmp/torch/bin/python tools/torch/count_costs.py

Nothing is computed: the tensors have shapes alone. The tests of `syncdiff_model::cost` hold the printed numbers.
"""

import torch
from networks import avhubert, difftalk, lpips, s3fd, syncnet, unet, vq, wav2lip
from torch.utils.flop_counter import FlopCounterMode

LARGE = {"dim": 1024, "num_layers": 24, "num_heads": 16, "feed_forward_dim": 4096, "position_kernel": 128,
         "position_groups": 16}
DECODER = {"dim": 1024, "num_layers": 9, "num_heads": 8, "feed_forward_dim": 4096, "vocabulary": 1000}
# Rows of an utterance.
ROWS = 250


def count(name, make, run):
    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        net = make().eval()
        run(net)
    parameters = sum(tensor.numel() for tensor in net.parameters())
    # Two operations each: a product and a sum.
    print(f"{name:<24} {parameters:>12} {counter.get_total_flops() // 2:>16}")


def zeros(*shape):
    return torch.zeros(shape)


def denoiser(tokens, **config):
    inputs, dim = config.get("in_channels", 10), config.get("context_dim", 768)
    name = f"{'difftalk' if config else 'ldm'}_unet, {tokens} token{'s'[: tokens > 1]}"
    count(name, lambda: unet.UNet(**config), lambda net: net(zeros(1, inputs, 64, 64), zeros(1), zeros(1, tokens, dim)))


def main():
    denoiser(1)
    denoiser(5)
    denoiser(1, in_channels=9, context_dim=128)
    count("difftalk_condition", difftalk.Condition, lambda net: net(zeros(1, 8, 16, 29), zeros(1, 78)))
    count("ldm_vq_f4, encoder", vq.VQModel, lambda net: net.encoder(zeros(1, 3, 256, 256)))
    count("ldm_vq_f4, decoder", vq.VQModel, lambda net: net.decoder(zeros(1, 3, 64, 64)))
    count("syncnet_v2", syncnet.SyncNet, lambda net: net(zeros(1, 3, 5, 224, 224), zeros(1, 1, 13, 20)))
    count("wav2lip", wav2lip.Generator, lambda net: net(zeros(1, 1, 80, 16), zeros(1, 6, 96, 96)))
    count("wav2lip_expert", wav2lip.ColourSyncNet, lambda net: net(zeros(1, 1, 80, 16), zeros(1, 15, 48, 96)))
    count("wav2lip_disc", wav2lip.Discriminator, lambda net: net(zeros(1, 3, 96, 96)))
    count("s3fd", s3fd.S3fd, lambda net: net(zeros(1, 3, 360, 640)))
    for trunk in ("alex", "vgg"):
        picture = (1, 3, 96, 96)
        count(f"lpips_{trunk}", lambda: lpips.Lpips(trunk), lambda net: net(zeros(*picture), zeros(*picture)))
    count(f"avhubert_base, {ROWS}", avhubert.AVHubert, lambda net: net(zeros(1, ROWS, 104)))
    count(f"avhubert_base_video, {ROWS}", avhubert.AVHubert, lambda net: net(None, zeros(1, ROWS, 88, 88)))
    tokens = (1, ROWS)
    count(f"avhubert_finetuned, {ROWS}", lambda: avhubert.Reader(LARGE, DECODER),
          lambda net: net(zeros(1, ROWS, 88, 88), torch.zeros(tokens, dtype=torch.long)))


if __name__ == "__main__":
    main()
