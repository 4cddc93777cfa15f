"""Tensors on disk: safetensors files, recorded outputs of original implementations, and their weight generator."""

import json
import os
import pathlib
import struct

import numpy
import torch

KINDS = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "I64": torch.int64, "I32": torch.int32}
KINDS |= {"I16": torch.int16, "U8": torch.uint8}


def read(path):
    """All tensors of a safetensors file."""
    data = pathlib.Path(path).read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header, body = json.loads(data[8 : 8 + length]), memoryview(data)[8 + length :]
    tensors = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        start, end = entry["data_offsets"]
        kind = KINDS[entry["dtype"]]
        flat = torch.frombuffer(bytearray(body[start:end]), dtype=kind) if end > start else torch.empty(0, dtype=kind)
        tensors[name] = flat.reshape(entry["shape"])
    return tensors


def write(path, tensors):
    """Writes tensors of the kinds above."""
    names, at, header = {kind: name for name, kind in KINDS.items()}, 0, {}
    for name, tensor in tensors.items():
        size = tensor.numel() * tensor.element_size()
        header[name] = {"dtype": names[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for tensor in tensors.values():
            file.write(tensor.detach().contiguous().numpy().tobytes())


class Golden:
    """One folder of recorded inputs and outputs: `case.json`, `io.safetensors`, perhaps `weights.safetensors`."""

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self.case = json.loads((self.folder / "case.json").read_text())
        self.io = read(self.folder / "io.safetensors")
        weights = self.folder / "weights.safetensors"
        self.weights = read(weights) if weights.is_file() else None

    def weights_under(self, prefix):
        return {name[len(prefix) :]: tensor for name, tensor in self.weights.items() if name.startswith(prefix)}


def goldens(folder, kind):
    """All cases of a kind, in whatever folders they lie."""
    for path in sorted(pathlib.Path(folder).rglob("case.json")):
        if json.loads(path.read_text())["case"] == kind:
            yield Golden(path.parent)


def generated(table, seed):
    """The weights that a case describes by a table of names, shapes, scales and offsets (SplitMix64)."""
    return {
        row["name"]: (row["offset"] + row["scale"] * (2.0 * unit(row["name"], seed, row["shape"]) - 1.0)).float()
        for row in table
    }


def unit(name, seed, shape):
    bits = split_mix(name, seed, int(numpy.prod(shape, dtype=numpy.int64))) >> numpy.uint64(40)
    return torch.from_numpy(bits.astype(numpy.float64) / float(1 << 24)).reshape(shape)


def generated_bytes(name, seed, shape):
    bits = split_mix(name, seed, int(numpy.prod(shape))) >> numpy.uint64(56)
    return torch.from_numpy(bits.astype(numpy.int64)).reshape(shape)


def split_mix(name, seed, count):
    mask, golden = (1 << 64) - 1, 0x9E3779B97F4A7C15
    key = 0xCBF29CE484222325
    for byte in name.encode():
        key = (key ^ byte) * 0x100000001B3 & mask
    key ^= seed * golden & mask
    with numpy.errstate(over="ignore"):
        z = numpy.uint64(key) + numpy.arange(1, count + 1, dtype=numpy.uint64) * numpy.uint64(golden)
        z = (z ^ (z >> numpy.uint64(30))) * numpy.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> numpy.uint64(27))) * numpy.uint64(0x94D049BB133111EB)
    return z ^ (z >> numpy.uint64(31))


def default_goldens():
    """As the Rust tests look for them."""
    beside = pathlib.Path(__file__).resolve().parents[3] / "shared" / "goldens"
    return pathlib.Path(os.environ.get("SYNCDIFF_GOLDENS", beside))
