#!/usr/bin/env python3
"""Writes small checkpoints with real PyTorch, and what PyTorch itself reads from them.

    python3 -m venv /tmp/torch && /tmp/torch/bin/pip install torch==2.11.0 numpy
    /tmp/torch/bin/python tools/make_checkpoints.py crates/syncdiff-checkpoint/tests/fixtures

Every NAME.pt (or .pth, .ckpt, .model) gets a NAME.json beside it: file, form, mapping with the most tensors, element
type, shape and values of each of its tensors, and some of the values that are no tensors. With an older PyTorch
(--prefix torch112_ with torch==1.12.1 on Python 3.10, the last whose one wheel has all it needs) the same files show
how the form changed. Nothing here is needed to build or to test; the results are committed.
"""

import argparse
import collections
import io
import json
import pathlib
import struct
import sys
import types
import zipfile

import torch

OUT = pathlib.Path()
PREFIX = ""


def foreign(module_name, class_name, bases=(object,), members=None):
    """A class of a module that the reader has never heard of."""
    module = sys.modules.setdefault(module_name, types.ModuleType(module_name))
    for depth in range(1, module_name.count(".") + 1):
        parent = module_name.rsplit(".", depth)[0]
        sys.modules.setdefault(parent, types.ModuleType(parent))
    made = type(class_name, bases, dict(members or {}, __module__=module_name))
    setattr(module, class_name, made)
    return made


def pattern(shape, dtype=torch.float32, start=0.0):
    """Values that f16 and bf16 hold exactly, so that they compare exactly everywhere."""
    count = 1
    for size in shape:
        count *= size
    values = (torch.arange(count, dtype=torch.float32) % 64 - 20) / 4 + start
    if dtype == torch.bool:
        return (values > 0).reshape(shape)
    if dtype == torch.uint8:
        values = values.abs()
    return values.to(dtype).reshape(shape)


def state(*pairs):
    return collections.OrderedDict(pairs)


def find(mapping, path):
    for key in [part for part in path.split(".") if part]:
        mapping = mapping[key]
    return mapping


def expect(path, form, root, tensors, values=None, drop=""):
    """Writes the JSON beside a checkpoint: `tensors` are what PyTorch read back."""
    names = {torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}
    names |= {torch.int64: "I64", torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8"}
    names |= {torch.bool: "BOOL"}
    listed = []
    for name, tensor in tensors.items():
        flat = tensor.detach().to(torch.float64).reshape(-1).tolist()
        name = name[len(drop):] if name.startswith(drop) else name
        listed.append({"name": name, "dtype": names[tensor.dtype], "shape": list(tensor.shape), "values": flat})
    made = {"file": path.name, "form": form, "root": root, "torch": torch.__version__.split("+")[0]}
    text = json.dumps(made | {"tensors": listed, "values": values or {}}, indent=None, separators=(",", ":"))
    path.with_suffix(".json").write_text(text.replace('{"name"', '\n{"name"') + "\n")


def save(name, value, form="zip", root="", tensors=None, values=None, drop="", **options):
    path = OUT / (PREFIX + name)
    torch.save(value, path, _use_new_zipfile_serialization=form == "zip", **options)
    trusted = {} if torch.__version__.startswith("1.12") else {"weights_only": False}
    back = torch.load(path, map_location="cpu", **trusted)
    expect(path, form, root, tensors(back) if tensors else find(back, root), values, drop)
    return path


def every_type():
    kinds = ["float32", "float16", "bfloat16", "float64", "int64", "int32", "int16", "int8", "uint8", "bool"]
    return state(*((f"layer.{kind}", pattern((2, 3), getattr(torch, kind))) for kind in kinds))


def views():
    base = pattern((4, 6))
    flat = pattern((10,), start=7.0)
    return state(
        ("base", base),
        ("same", base),
        ("transposed", base.t()),
        ("column", base[:, 2]),
        ("block", base[1:3, 2:5]),
        ("every_second", base[::2, ::3]),
        ("offset", flat[3:7]),
        ("expanded", flat[2:3].expand(2, 3, 4)),
        ("permuted", pattern((2, 3, 4)).permute(2, 0, 1)),
        ("scalar", torch.tensor(2.5)),
        ("empty", torch.zeros(0, 3)),
        ("parameter", torch.nn.Parameter(pattern((2, 2)))),
        ("half_column", pattern((3, 4), torch.float16)[:, 1]),
    )


def fairseq():
    """As fairseq's `checkpoint_utils`: arguments, configuration classes, task state with a dictionary, optimiser."""
    dictionary_class = foreign("fairseq.data.dictionary", "Dictionary")
    dictionary = dictionary_class()
    dictionary.symbols, dictionary.count = ["<s>", "<pad>", "</s>", "<unk>", "AH"], [1, 1, 1, 1, 7]
    dictionary.indices = {symbol: index for index, symbol in enumerate(dictionary.symbols)}
    dictionary.bos_word = "<s>"
    box = foreign("some.project.config", "AttributeDict", (dict,))
    choice = foreign("some.project.config", "Choice")()
    choice.value, choice.parent = "trainable", None
    choice.parent = choice
    config = box(task=box(name="av_hubert_pretraining", normalize=True), lr=[0.002], choice=choice)
    counts = collections.defaultdict(list)
    counts["train"].append(3)
    counts["valid"].append(torch.tensor([1.0, 2.0]))
    model = state(
        ("mask_emb", pattern((8,))),
        ("label_embs_concat", pattern((4, 4))),
        ("feature_extractor_audio.proj.weight", pattern((4, 3))),
        ("feature_extractor_audio.proj.bias", pattern((4,))),
        ("encoder.pos_conv.0.weight_g", pattern((1, 1, 4), torch.float16)),
        ("encoder.layers.0.fc1.weight", pattern((6, 4), torch.float16)),
    )
    moments = {index: {"step": 5, "exp_avg": pattern((2,))} for index in range(4)}
    return {
        "args": argparse.Namespace(arch="av_hubert", max_update=400000, dropout=0.1, groups=("a", 1)),
        "cfg": config,
        "model": model,
        "optimizer_history": [{"num_updates": 5, "lr_scheduler_state": {"best": None}}],
        "task_state": {"dictionaries": [dictionary], "seen": counts},
        "extra_state": {"epoch": 3, "big": 2**70, "train_iterator": {"shuffle": True}},
        "last_optimizer_state": {"state": moments, "param_groups": [{"lr": 0.1, "params": list(range(4))}]},
    }


FAIRSEQ_VALUES = {
    "args": {"class": "argparse.Namespace", "args": [], "state": {"arch": "av_hubert", "max_update": 400000,
                                                                 "dropout": 0.1, "groups": ["a", 1]}},
    "cfg.task": {"name": "av_hubert_pretraining", "normalize": True},
    "cfg.choice": {"class": "some.project.config.Choice", "args": [], "state": {"value": "trainable",
                                                                              "parent": "<cut>"}},
    "task_state.seen": {"train": [3], "valid": ["<tensor F32 [2]>"]},
    "extra_state": {"epoch": 3, "big": "<integer of 9 bytes>", "train_iterator": {"shuffle": True}},
}


def lightning():
    """As a latent-diffusion checkpoint: both networks in one state dict, averaged copies, classes as keys."""
    stopper = foreign("pytorch_lightning.callbacks.model_checkpoint", "ModelCheckpoint")
    tensors = state(
        ("betas", pattern((4,))),
        ("model.diffusion_model.time_embed.0.weight", pattern((4, 2))),
        ("model.diffusion_model.input_blocks.0.0.weight", pattern((2, 3, 3, 3))),
        ("model_ema.decay", torch.tensor(0.9999)),
        ("model_ema.num_updates", torch.tensor(7, dtype=torch.int32)),
        ("model_ema.diffusion_modeltime_embed0weight", pattern((4, 2), start=1.0)),
        ("first_stage_model.encoder.conv_in.weight", pattern((2, 3, 3, 3))),
        ("first_stage_model.quantize.embedding.weight", pattern((8, 3))),
        ("first_stage_model.loss.perceptual_loss.lin0.model.1.weight", pattern((1, 4, 1, 1))),
        ("cond_stage_model.embedding.weight", pattern((3, 2))),
    )
    callbacks = {stopper: {"monitor": "val/loss_simple_ema", "best_model_score": torch.tensor(0.25)}}
    return {"epoch": 1, "global_step": 10, "pytorch-lightning_version": "1.4.2", "state_dict": tensors,
            "callbacks": callbacks, "lr_schedulers": [], "optimizer_states": [{"state": {}, "param_groups": []}]}


def known_layouts():
    """Files of other networks: a few of their names, in the nesting of the official files."""

    def conv(name, out_channels, in_channels, *kernel, norm=False):
        pairs = [(f"{name}.0.weight", pattern((out_channels, in_channels, *kernel))), (f"{name}.0.bias", pattern((2,)))]
        if norm:
            pairs += [(f"{name}.1.{part}", pattern((2,))) for part in ("weight", "running_mean", "running_var")]
            pairs += [(f"{name}.1.num_batches_tracked", torch.tensor(3))]
        return pairs

    def training(tensors):
        tensors = state(*((f"module.{name}", tensor) for name, tensor in tensors))
        return {"state_dict": tensors, "optimizer": None, "global_step": 7, "global_epoch": 1}

    face = "face_encoder_blocks.0.0.conv_block"
    generator = conv(face, 2, 6, 7, 7, norm=True) + [("output_block.1.weight", pattern((3, 2, 1, 1)))]
    expert = conv("face_encoder.0.conv_block", 2, 15, 7, 7, norm=True)
    expert += conv("audio_encoder.0.conv_block", 2, 1, 3, 3, norm=True)
    judge = conv(face, 2, 3, 7, 7) + conv("binary_pred", 1, 2, 1, 1)
    syncnet = conv("netcnnaud", 2, 1, 3, 3) + conv("netcnnlip", 2, 3, 5, 7, 7) + conv("netfclip", 2, 2)
    detector = [("conv1_1.weight", pattern((2, 3, 3, 3))), ("conv3_3_norm.weight", pattern((2,)))]
    detector += [("conv3_3_norm_mbox_conf.weight", pattern((4, 2, 3, 3)))]
    finetuned = [("encoder.w2v_model.layer_norm.weight", pattern((4,))), ("encoder.w2v_model.mask_emb", pattern((4,)))]
    finetuned += [("decoder.layers.0.fc1.weight", pattern((4, 2))), ("decoder.embed_tokens.weight", pattern((3, 2)))]
    save("wav2lip.pth", training(generator), form="legacy", root="state_dict", drop="module.")
    save("wav2lip_expert.pth", training(expert), form="legacy", root="state_dict", drop="module.")
    save("wav2lip_disc.pth", training(judge), form="legacy", root="state_dict", drop="module.")
    save("syncnet_v2.model", state(*syncnet), form="legacy")
    save("s3fd.pth", state(*detector), form="legacy")
    save("avhubert_finetuned.pt", {"args": None, "model": state(*finetuned)}, root="model")
    for net, kernel in (("alex", 11), ("vgg", 3)):
        perceptual = [("scaling_layer.shift", pattern((1, 3, 1, 1))), ("net.slice1.0.bias", pattern((2,)))]
        perceptual += [("net.slice1.0.weight", pattern((2, 3, kernel, kernel)))]
        perceptual += [(f"{name}.model.1.weight", pattern((1, 2, 1, 1))) for name in ("lin0", "lins.0")]
        save(f"lpips_{net}.pth", state(*perceptual))


def module():
    """A whole pickled network, its class unknown to the reader."""
    net_class = foreign("models.net", "Net", (torch.nn.Module,))
    net = net_class()
    net.conv = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.BatchNorm2d(2))
    net.register_parameter("gain", torch.nn.Parameter(pattern((3,))))
    for parameter in net.parameters():
        parameter.data = pattern(parameter.shape)
    return net


def repacked(source, name, big_endian=False, compress=False):
    """The same archive by another program: compressed, or with the bytes of a big-endian machine."""
    path = OUT / (PREFIX + name)
    method = zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED
    sizes = {"0": 4, "1": 2, "2": 2, "3": 8, "4": 8, "5": 4, "6": 2, "7": 1, "8": 1, "9": 1}
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(path, "w", method) as new:
        for member in old.namelist():
            data = old.read(member)
            if big_endian and "/data/" in member:
                size = sizes[member.rsplit("/", 1)[1]]
                data = b"".join(data[at:at + size][::-1] for at in range(0, len(data), size))
            if big_endian and member.endswith("byteorder"):
                data = b"big"
            new.writestr(zipfile.ZipInfo(member), data, method)
    expect(path, "zip", "", torch.load(path, weights_only=False))


def safetensors(name, tensors):
    path = OUT / (PREFIX + name)
    entries, data = {"__metadata__": {"format": "pt", "title": "a card"}}, io.BytesIO()
    for key, tensor in tensors.items():
        values = tensor.contiguous().view(torch.uint8).numpy().tobytes()
        kind = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}[tensor.dtype]
        offsets = [data.tell(), data.tell() + len(values)]
        entries[key] = {"dtype": kind, "shape": list(tensor.shape), "data_offsets": offsets}
        data.write(values)
    header = json.dumps(entries).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + data.getvalue())
    expect(path, "safetensors", "", tensors, {"": {"format": "pt", "title": "a card"}})


def main():
    global OUT, PREFIX
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--prefix", default="", help="before every file name")
    options = parser.parse_args()
    OUT, PREFIX = options.out, options.prefix
    OUT.mkdir(parents=True, exist_ok=True)
    types_path = save("zip_types.pt", every_type())
    save("legacy_types.pth", every_type(), form="legacy")
    save("zip_views.pt", views())
    save("legacy_views.pth", views(), form="legacy")
    save("fairseq.pt", fairseq(), root="model", values=FAIRSEQ_VALUES)
    if PREFIX:
        return
    save("legacy_fairseq.pt", fairseq(), form="legacy", root="model", values=FAIRSEQ_VALUES)
    for protocol in (3, 4, 5):
        save(f"protocol{protocol}.pt", every_type(), pickle_protocol=protocol)
    save("legacy_protocol4.model", every_type(), form="legacy", pickle_protocol=4)
    parallel = state(*((f"module.{name}", value) for name, value in every_type().items()))
    wav2lip = {"state_dict": parallel, "optimizer": {"state": {0: {"exp_avg": pattern((3,))}}}, "global_step": 9}
    save("parallel.pth", wav2lip, root="state_dict", drop="module.", values={"global_step": 9})
    save("lightning.ckpt", lightning(), root="state_dict", values={"pytorch-lightning_version": "1.4.2"})
    save("module.pt", module(), tensors=lambda net: dict(net.state_dict()))
    save("bare_tensor.pt", pattern((2, 3)), tensors=lambda tensor: {"tensor": tensor})
    known_layouts()
    repacked(types_path, "repacked.pt", compress=True)
    repacked(types_path, "big_endian.pt", big_endian=True)
    kinds = [torch.float32, torch.float16, torch.bfloat16]
    safetensors("plain.safetensors", state(*((f"a.{kind}"[8:], pattern((2, 3), kind)) for kind in kinds)))


if __name__ == "__main__":
    main()
