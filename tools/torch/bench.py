#!/usr/bin/env python3
"""PyTorch's side of `cargo xtask bench-torch`, started by it with a folder that holds `case.json`.

Makes weights and inputs, stores them with PyTorch's outputs in the folder, says that it is ready, and then runs a round
for each line `round` on its standard input.
"""

import contextlib
import json
import math
import pathlib
import sys
import time

import torch
import torch.nn.functional as F
from cases import Filler
from networks import unet, vq
from store import write

# Seconds that a round lasts at least, unless one run takes longer.
ROUND_SECONDS = 0.2
COMPARED_STEPS = 3


def resident_mb(key):
    try:
        lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith(key + ":")), None)


def reset_peak():
    try:
        pathlib.Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        pass


class TrainStep:
    """What our training loop does: loss, gradients, clipping, AdamW, moving average of the weights.

    The forward pass alone is under autocast, whose copies of the weights live as long as it does.
    """

    def __init__(self, net, io, low):
        self.net, self.io, self.low, self.updates = net.train().requires_grad_(True), io, low, 0
        self.optimizer = torch.optim.AdamW(net.parameters(), lr=1e-4, eps=1e-8, weight_decay=0.01)
        self.shadow = [parameter.detach().clone() for parameter in net.parameters()]

    def __call__(self):
        self.optimizer.zero_grad()
        with self.low:
            loss = F.mse_loss(self.net(self.io["x"], self.io["t"], self.io["context"]), self.io["target"])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.net.parameters(), 0.1)
        self.optimizer.step()
        self.updates += 1
        decay = min(0.9999, (1 + self.updates) / (10 + self.updates))
        torch._foreach_lerp_(self.shadow, [parameter.detach() for parameter in self.net.parameters()], 1.0 - decay)
        return loss


def prepare(case, fill, low):
    """The network, if there is one, its inputs, and the function that is timed."""
    op, batch, side = case["op"], case["batch"], case["latent_size"]
    if op == "attention":
        # The self-attention of the U-Net's second level.
        heads = 2 * case["unet"]["model_channels"] // case["unet"]["num_head_channels"]
        case["heads"] = heads
        io = {name: fill.normal(batch, (side // 2) ** 2, 2 * case["unet"]["model_channels"]) for name in "qkv"}

        def attention():
            q, k, v = (io[name].unflatten(2, (heads, -1)).transpose(1, 2) for name in "qkv")
            return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)

        return None, io, attention
    if op == "linear":
        # The way into the feed-forward layer of the U-Net's second level: for `paper` about the roof of the processor.
        dim = 2 * case["unet"]["model_channels"]
        io = {"x": fill.normal(batch, (side // 2) ** 2, dim), "weight": fill.normal(dim, 8 * dim) / dim**0.5,
              "bias": fill.normal(8 * dim)}
        weight = io["weight"].T.contiguous()
        return None, io, lambda: F.linear(io["x"], weight, io["bias"])
    if op.startswith("vq"):
        net = fill.fill(vq.VQModel(**case["autoencoder"]))
        if op == "vq_encode":
            io = {"image": fill.normal(batch, 3, case["crop_size"], case["crop_size"]).clamp(-1, 1)}
            return net, io, lambda: net.encode(io["image"])
        # Codes themselves: no latent lies between two of them.
        codes = torch.randint(len(net.quantize.embedding.weight), (batch, side, side), generator=fill.generator)
        io = {"latent": net.quantize.embedding(codes).permute(0, 3, 1, 2).contiguous()}
        return net, io, lambda: net.decode(io["latent"])
    net = fill.fill(unet.UNet(**case["unet"]))
    io = {
        "x": fill.normal(batch, case["unet"]["in_channels"], side, side),
        "t": torch.tensor([(137 * i + 500) % 1000 for i in range(batch)]),
        "context": fill.normal(batch, case["tokens"], case["unet"]["context_dim"]),
        "target": fill.normal(batch, case["unet"]["out_channels"], side, side),
    }
    if op == "unet_train_step":
        return net, io, TrainStep(net, io, low)
    return net, io, lambda: net(io["x"], io["t"], io["context"])


def main():
    folder = pathlib.Path(sys.argv[1])
    case = json.loads((folder / "case.json").read_text())
    torch.set_num_threads(case["threads"])
    start_mb = resident_mb("VmRSS")
    low = torch.autocast("cpu", torch.bfloat16, enabled=case["dtype"] == "bf16")
    net, io, run = prepare(case, Filler("official", 0), low)
    training = case["op"] == "unet_train_step"
    # Before any training step.
    write(folder / "weights.safetensors", {} if net is None else net.state_dict())
    with contextlib.nullcontext() if training else low, torch.set_grad_enabled(training):
        if training:
            outputs = {"losses": torch.stack([run().detach() for _ in range(COMPARED_STEPS)])}
        else:
            outputs = {"out": run().float()}
        write(folder / "io.safetensors", io | outputs)
        # Our side reads what this one adds.
        (folder / "case.json").write_text(json.dumps(case))
        started = time.perf_counter()
        run()
        runs = max(1, math.ceil(ROUND_SECONDS / (time.perf_counter() - started)))
        reset_peak()
        print(json.dumps({"ready": True}), flush=True)
        for request in sys.stdin:
            if request.strip() != "round":
                peak = resident_mb("VmHWM")
                print(json.dumps({"peak_mb": None if peak is None else peak - start_mb}), flush=True)
                return
            started = time.perf_counter()
            for _ in range(runs):
                run()
            print(json.dumps({"ms": (time.perf_counter() - started) * 1e3 / runs}), flush=True)


if __name__ == "__main__":
    main()
