#!/usr/bin/env python3
"""The encoder of moonshine-tiny as float32 safetensors, from the quantized ONNX graph of its npm package.

    npm pack @moonshine-ai/moonshine-js && tar xzf moonshine-ai-moonshine-js-*.tgz
    pip install numpy onnx safetensors
    tools/moonshine_weights.py package/dist/model/tiny/quantized/encoder_model.onnx moonshine.safetensors

The graph holds each weight in 8 bits with one scale; names are those of the published state dict, so that the file
serves `syncdiff train speech --moonshine` as the published one does. Moonshine is under the MIT licence.
"""

import sys

import numpy as np
import onnx
from onnx import numpy_helper
from safetensors.numpy import save_file

LAYERS = 6


def main(graph_file, result):
    graph = onnx.load(graph_file).graph
    tensors = {item.name: numpy_helper.to_array(item) for item in graph.initializer}
    nodes = {node.name: node for node in graph.node}

    def dequantized(name):
        scale, zero = tensors[f"{name}_scale"], tensors[f"{name}_zero_point"]
        values = tensors[f"{name}_quantized"].astype(np.float32)
        # Convolutions hold the offset already multiplied by the scale, and with its sign.
        return values * scale + zero if zero.dtype == np.float32 else (values - np.float32(zero)) * scale

    def matrix(node):
        name = nodes[f"{node}/MatMul_quant"].input[1].removesuffix("_quantized")
        return np.ascontiguousarray(dequantized(name).T)

    def bias(node):
        return next(tensors[item] for item in nodes[f"{node}/Add"].input if item in tensors)

    out = {f"conv{i}.weight": dequantized(f"conv{i}.weight") for i in (1, 2, 3)}
    out |= {f"conv{i}.bias": tensors[f"conv{i}.bias"] for i in (2, 3)}
    for part, node, kind in (("weight", "Mul", "Mul"), ("bias", "Add", "Add")):
        inputs = nodes[f"/groupnorm/{node}"].input
        out[f"groupnorm.{part}"] = next(tensors[item] for item in inputs if item in tensors).reshape(-1)
    for layer in range(LAYERS):
        here = f"layers.{layer}"
        for name, theirs in (("q_proj", "q_proj"), ("k_proj", "k_proj"), ("v_proj", "v_proj"), ("o_proj", "dense")):
            out[f"{here}.self_attn.{name}.weight"] = matrix(f"/{here}/self_attn/{theirs}")
        for name in ("fc1", "fc2"):
            out[f"{here}.mlp.{name}.weight"] = matrix(f"/{here}/mlp/{name}")
            out[f"{here}.mlp.{name}.bias"] = bias(f"/{here}/mlp/{name}")
        for name in ("input_layernorm", "post_attention_layernorm"):
            out[f"{here}.{name}.weight"] = tensors[f"{here}.{name}.weight"]
    out["layer_norm.weight"] = tensors["layer_norm.weight"]
    out = {f"model.encoder.{name}": np.ascontiguousarray(value, dtype=np.float32) for name, value in out.items()}
    print(f"{sum(value.size for value in out.values()):,} parameters")
    save_file(out, result)


if __name__ == "__main__":
    main(*sys.argv[1:])
