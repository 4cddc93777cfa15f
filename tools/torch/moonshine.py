#!/usr/bin/env python3
"""What transformers' MoonshineEncoder makes of a sound, with weights rounded to f16 as ours are kept.

    tools/torch/moonshine.py moonshine.safetensors crates/syncdiff-model/tests/fixtures/moonshine.safetensors

The first file is that of tools/moonshine_weights.py. Made with transformers 5.23.0 and torch 2.11.0.
"""

import sys

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from transformers import MoonshineConfig
from transformers.models.moonshine.modeling_moonshine import MoonshineEncoder

LAYERS = 3


def main(weights, result):
    encoder = MoonshineEncoder(MoonshineConfig()).eval()
    tensors = load_file(weights)
    encoder.load_state_dict({k.removeprefix("model.encoder."): v.half().float() for k, v in tensors.items()})
    time = np.arange(16_000, dtype=np.float64)
    sound = 0.3 * np.sin(time * time * 2e-5) + 0.1 * np.sin(time * 0.5)
    sound[8000:8100] = 0.7
    sound = torch.tensor(sound, dtype=torch.float32)[None]
    with torch.no_grad():
        states = encoder(sound, output_hidden_states=True).hidden_states
        features = encoder.layers[LAYERS].input_layernorm(states[LAYERS])
    save_file({"sound": sound, "features": features.contiguous()}, result)


if __name__ == "__main__":
    main(*sys.argv[1:])
