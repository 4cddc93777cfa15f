"""Checkpoints in the forms of the original projects, with inputs and the outputs that PyTorch computes.

Each case is a function of a size, `official` or `small`. Small checkpoints are narrow, with weights that are views into
a few numbers, which PyTorch stores once. Where a project fixes the width of its network, a small case holds a table
instead, from which the weights of the official width are generated.
"""

import argparse
import collections
import math
import pathlib
import sys

import torch
from networks import avhubert, difftalk, lpips, s3fd, syncnet, unet, vq, wav2lip
from store import generated

sys.path.append(str(pathlib.Path(__file__).resolve().parents[1]))
from make_checkpoints import foreign  # noqa: E402

# Numbers that the weights of a small checkpoint share, for each mean and deviation.
SHARED = 2048
DROPOUT_FREE = {"dropout": 0.0}


class Filler:
    """Gives a network weights that keep the size of what flows through it."""

    def __init__(self, size, seed, fixed_width=False):
        self.views, self.seed = size == "small" and not fixed_width, seed
        self.generator = torch.Generator().manual_seed(seed)
        self.shared = {}
        # Name, shape, scale and offset of each tensor that is generated.
        self.table = [] if size == "small" and fixed_width else None

    def normal(self, *shape):
        return torch.randn(*shape, generator=self.generator)

    def fill(self, net, gain=1.0, chosen=None):
        """`chosen` are means and deviations of tensors that need others than usual."""
        for name, tensor in [*net.named_parameters(), *net.named_buffers()]:
            if tensor.is_floating_point() and not name.startswith("scaling_layer"):
                moments = (chosen or {}).get(name) or self.moments(name, tensor, gain)
                tensor.data = self.values(name, *moments, tensor.shape)
        for module in net.modules():
            if hasattr(module, "num_batches_tracked"):
                module.num_batches_tracked.fill_(3)
        return net.eval().requires_grad_(False)

    @staticmethod
    def moments(name, tensor, gain):
        """Mean and deviation of a tensor's values."""
        last = name.rsplit(".", 1)[-1]
        if "relu" in name or name.endswith("frontend3D.2.weight"):
            # Slopes of PReLU.
            return 0.25, 0.0625
        if last == "running_var" or last == "weight_g" or (last == "weight" and tensor.dim() == 1):
            # Batch, group and layer norms, and L2 norms.
            return 1.0, 0.125
        if name.endswith(("embedding.weight", "embed_tokens.weight")):
            return 0.0, 1.0
        if tensor.dim() == 1:
            return 0.0, 0.125
        if ".model.1." in name:
            # Heads of LPIPS are not negative.
            return 0.5, 0.125
        return 0.0, math.sqrt(gain / tensor[0].numel())

    def values(self, name, mean, deviation, shape):
        if self.table is not None:
            # Uniform values of this deviation.
            row = {"name": name, "shape": list(shape), "scale": deviation * math.sqrt(3.0), "offset": mean}
            self.table.append(row)
            return generated([row], self.seed)[name]
        if not self.views:
            return mean + deviation * self.normal(*shape)
        deviation = 2.0 ** round(math.log2(deviation))
        if (mean, deviation) not in self.shared:
            self.shared[mean, deviation] = mean + deviation * self.normal(SHARED).clamp(-4.0, 4.0)
        return self.view(self.shared[mean, deviation], shape)

    def view(self, numbers, shape):
        """Rows and columns of a large weight overlap, each shifted against the one before."""
        strides, count = [], math.prod(shape)
        for length in shape:
            count //= length
            strides.append(count)
        if math.prod(shape) > SHARED:
            room = SHARED - math.prod(shape[2:])
            rows = max(1, min(2 * room // 3, room - shape[1]) // shape[0])
            columns = max(1, (room - rows * shape[0]) // shape[1])
            strides[:2] = [rows, columns] if rows != columns else [rows + 1, max(1, columns - 1)]
        last = sum((length - 1) * stride for length, stride in zip(shape, strides))
        assert last < SHARED and min(strides) > 0, f"{shape} with strides {strides}"
        offset = int(torch.randint(SHARED - last, (), generator=self.generator))
        return torch.as_strided(numbers, shape, strides, offset)

    def bytes(self, *shape):
        return torch.randint(256, shape, generator=self.generator, dtype=torch.uint8)


class Case:
    """One checkpoint and the networks in it."""

    def __init__(self, file, checkpoint, form="zip"):
        self.file, self.checkpoint, self.form = file, checkpoint, form
        self.networks, self.io = {}, {}

    def expect(self, layout, config, inputs, outputs):
        self.networks[layout] = config
        self.io |= {f"{layout}.in.{name}": tensor for name, tensor in inputs.items()}
        self.io |= {f"{layout}.out.{name}": tensor for name, tensor in outputs.items()}
        return self

    def save(self, path):
        torch.save(self.checkpoint, path, _use_new_zipfile_serialization=self.form == "zip")


def prefixed(prefix, net):
    return {prefix + name: tensor for name, tensor in net.state_dict().items()}


def lightning(*parts):
    """As pytorch-lightning writes it, with classes as keys."""
    stopper = foreign("pytorch_lightning.callbacks.model_checkpoint", "ModelCheckpoint")
    state = collections.OrderedDict()
    for part in parts:
        state |= part
    callbacks = {stopper: {"monitor": "val/loss_simple_ema", "best_model_score": torch.tensor(0.25)}}
    return {"epoch": 1, "global_step": 10, "pytorch-lightning_version": "1.4.2", "state_dict": state,
            "callbacks": callbacks, "lr_schedulers": [], "optimizer_states": [{"state": {}, "param_groups": []}]}


def diffusion(net, size):
    """What a checkpoint holds of the denoiser: with the buffers of its schedule and its moving averages."""
    state = {"betas": torch.linspace(0.0015**0.5, 0.0195**0.5, 1000) ** 2} | prefixed("model.diffusion_model.", net)
    # The bytes of all tensors are bounded by a multiple of the file's, so that views have their limit.
    averaged = list(net.state_dict().items())[: None if size == "official" else 4]
    averages = {"model_ema.diffusion_model" + name.replace(".", ""): value for name, value in averaged}
    state |= {"model_ema.decay": torch.tensor(0.9999), "model_ema.num_updates": torch.tensor(7, dtype=torch.int32)}
    return state | averages


def autoencoder(fill, size):
    config = {"in_channels": 3, "z_channels": 3, "ch": 128, "ch_mult": [1, 2, 4], "num_res_blocks": 2, "n_embed": 8192}
    config |= {"norm_groups": 32} | ({"ch": 16, "n_embed": 256, "norm_groups": 16} if size == "small" else {})
    net = fill.fill(vq.VQModel(**config))
    height, width = (16, 24) if size == "small" else (48, 64)
    image, latent = fill.normal(1, 3, height, width).clamp(-1, 1), fill.normal(1, 3, height // 4, width // 4)
    # Latents at an equal distance from two codes would be decided by rounding.
    distances = vq.squared_distances(latent.double(), net.quantize.embedding.weight.double())
    nearest = distances.topk(2, largest=False).values
    assert (nearest[:, 1] - nearest[:, 0]).min() > 1e-5, "choose another seed"
    outputs = {"latent": net.encode(image), "decoded": net.decode(latent)}
    return net, (config, {"image": image, "latent": latent}, outputs)


def denoiser(fill, size, in_channels, contexts):
    config = {"in_channels": in_channels, "out_channels": 3, "model_channels": 256, "channel_mult": [1, 2, 3, 4],
              "num_res_blocks": 2, "attention_resolutions": [8, 4, 2], "num_head_channels": 32, "norm_groups": 32}
    config["context_dim"] = next(iter(contexts.values())).shape[2]
    if size == "small":
        config |= {"model_channels": 16, "num_head_channels": 16, "norm_groups": 16}
    net = fill.fill(unet.UNet(**config))
    batch = next(iter(contexts.values())).shape[0]
    x, t = fill.normal(batch, in_channels, 16, 24), torch.tensor([731, 42])[:batch]
    outputs = {name: net(x, t, context) for name, context in contexts.items()}
    return net, (config, {"x": x, "t": t} | contexts, outputs)


def ldm(fill, size):
    """A latent-diffusion checkpoint of the paper's sizes."""
    contexts = {"context_1": fill.normal(2, 1, 768), "context_5": fill.normal(2, 5, 768)}
    net, expected = denoiser(fill, size, 10, contexts)
    first, first_expected = autoencoder(fill, size)
    checkpoint = lightning(diffusion(net, size), prefixed("first_stage_model.", first))
    case = Case("last.ckpt", checkpoint)
    return case.expect("ldm_unet", *expected).expect("ldm_vq_f4", *first_expected)


def vq_f4(fill, size):
    """The autoencoder alone, with the losses that it was trained with."""
    net, expected = autoencoder(fill, size)
    losses = {"loss.discriminator.main.0.weight": fill.normal(64, 3, 4, 4)[:, :, :2, :2]}
    return Case("model.ckpt", lightning(prefixed("", net), losses)).expect("ldm_vq_f4", *expected)


def talk(fill, size):
    """A DiffTalk checkpoint: its condition of sound and landmarks, nine channels in."""
    condition = fill.fill(difftalk.Condition(), gain=2.0)
    windows, landmarks = fill.normal(2, 8, 16, 29), fill.normal(2, 78)
    context = condition(windows, landmarks)
    net, expected = denoiser(fill, size, 9, {"context_1": context})
    first, first_expected = autoencoder(fill, size)
    others = [prefixed("first_stage_model.", first), prefixed("cond_stage_model_for_", condition)]
    case = Case("last.ckpt", lightning(diffusion(net, size), *others))
    inputs = {"windows": windows, "landmarks": landmarks}
    case.expect("difftalk_condition", {}, inputs, {"context": context})
    return case.expect("difftalk_unet", *expected).expect("ldm_vq_f4", *first_expected)


def fairseq(net):
    """As fairseq writes it: arguments, configuration classes, a dictionary of words, the optimiser's state."""
    words = foreign("fairseq.data.dictionary", "Dictionary")()
    words.symbols, words.count = ["<s>", "<pad>", "</s>", "<unk>"], [1, 1, 1, 1]
    words.indices = {symbol: index for index, symbol in enumerate(words.symbols)}
    config = foreign("omegaconf.dictconfig", "DictConfig", (dict,))
    seen = collections.defaultdict(list)
    seen["train"].append(3)
    moments = {0: {"step": 5, "exp_avg": torch.ones(2), "exp_avg_sq": torch.ones(2)}}
    return {
        "args": argparse.Namespace(arch="av_hubert", max_update=400000),
        "cfg": config(task=config(name="av_hubert_pretraining", normalize=True), lr=[0.002]),
        "model": net.state_dict(),
        "optimizer_history": [{"num_updates": 5, "optimizer_name": "FP16Optimizer", "lr_scheduler_state": {}}],
        "task_state": {"dictionaries": [words], "seen": seen},
        "extra_state": {"epoch": 3, "metrics": {}, "train_iterator": {"shuffle": True}},
        "last_optimizer_state": {"state": moments, "param_groups": [{"lr": 0.1, "params": [0]}]},
    }


def encoder_sizes(size, base):
    small = {"dim": 64, "num_layers": 3, "num_heads": 4, "feed_forward_dim": 128}
    sizes = {"position_kernel": 128, "position_groups": 16} | (small if size == "small" else base)
    return sizes | ({"position_kernel": 32, "position_groups": 4} if size == "small" else {})


def config_of(sizes):
    return sizes | {"num_frozen_layers": 0} | DROPOUT_FREE


def mouth(grey):
    return ((grey.float() / 255 - 0.421) / 0.165)[None]


def avhubert_base(fill, size):
    base = {"dim": 768, "num_layers": 12, "num_heads": 12, "feed_forward_dim": 3072}
    sizes = encoder_sizes(size, base)
    net = fill.fill(avhubert.AVHubert(**sizes, clusters=2000 if size == "official" else 20))
    rows, grey = fill.normal(1, 4, 104), fill.bytes(4, 88, 88)
    outputs = {"audio": net(rows), "video": net(None, mouth(grey)), "both": net(rows, mouth(grey))}
    case = Case("base_vox_iter5.pt", fairseq(net))
    return case.expect("avhubert_base", config_of(sizes), {"rows": rows, "grey": grey}, outputs)


def avhubert_reader(fill, size):
    large = {"dim": 1024, "num_layers": 24, "num_heads": 16, "feed_forward_dim": 4096}
    sizes = encoder_sizes(size, large)
    decoder = {"dim": 1024, "num_layers": 9, "num_heads": 8, "feed_forward_dim": 4096, "vocabulary": 1000}
    if size == "small":
        decoder |= {"dim": 64, "num_layers": 2, "num_heads": 4, "feed_forward_dim": 128, "vocabulary": 40}
    net = fill.fill(avhubert.Reader(sizes, decoder))
    grey, tokens = fill.bytes(4, 88, 88), torch.tensor([2, 7, 11, 4, 30])
    memory, logits = net(mouth(grey), tokens[None])
    config = {"encoder": config_of(sizes), "decoder": decoder | DROPOUT_FREE}
    case = Case("large_noise_pt_noise_ft_433h.pt", fairseq(net))
    inputs = {"grey": grey, "tokens": tokens}
    return case.expect("avhubert_finetuned", config, inputs, {"memory": memory, "logits": logits})


def syncnet_v2(fill, _size):
    # Values up to 255 come in: the first norm brings them down, as in the trained network.
    chosen = {"netcnnlip.1.running_var": (16384.0, 2048.0), "netcnnaud.1.running_var": (64.0, 8.0)}
    net = fill.fill(syncnet.SyncNet(), gain=2.0, chosen=chosen)
    lips, cepstra = fill.bytes(1, 3, 5, 28, 28), 10.0 * fill.normal(1, 1, 13, 20)
    lip, sound = net(lips.repeat_interleave(8, 3).repeat_interleave(8, 4).float(), cepstra)
    case = Case("syncnet_v2.model", net.state_dict(), "legacy")
    return case.expect("syncnet_v2", {}, {"lips": lips, "cepstra": cepstra}, {"lip": lip, "sound": sound})


def trained(net):
    """As Wav2Lip writes it, from a network on several cards."""
    state = collections.OrderedDict(prefixed("module.", net))
    optimizer = torch.optim.Adam([torch.nn.Parameter(torch.ones(2))], lr=1e-4)
    return {"state_dict": state, "optimizer": optimizer.state_dict(), "global_step": 7, "global_epoch": 1}


def wav2lip_generator(fill, _size):
    net = fill.fill(wav2lip.Generator(), chosen={"output_block.1.weight": (0.0, 2.0**-3)})
    mel, faces = fill.normal(1, 1, 80, 16), fill.bytes(1, 6, 96, 96)
    case = Case("wav2lip_gan.pth", trained(net), "legacy")
    outputs = {"face": net(mel, faces.float() / 255)}
    return case.expect("wav2lip", {}, {"mel": mel, "faces": faces}, outputs)


def wav2lip_expert(fill, _size):
    net = fill.fill(wav2lip.ColourSyncNet())
    mel, faces = fill.normal(1, 1, 80, 16), fill.bytes(1, 15, 48, 96)
    audio, face = net(mel, faces.float() / 255)
    case = Case("lipsync_expert.pth", trained(net), "legacy")
    return case.expect("wav2lip_expert", {}, {"mel": mel, "faces": faces}, {"audio": audio, "face": face})


def wav2lip_disc(fill, _size):
    # Far from where the sigmoid is flat.
    net = fill.fill(wav2lip.Discriminator(), gain=2.0, chosen={"binary_pred.0.weight": (0.0, 2.0**-6)})
    faces = fill.bytes(2, 3, 96, 96)
    case = Case("visual_quality_disc.pth", trained(net), "legacy")
    return case.expect("wav2lip_disc", {}, {"faces": faces}, {"real": net(faces.float() / 255)})


def face_detector(fill, _size):
    # Values up to 255 come in.
    net = fill.fill(s3fd.S3fd(), gain=2.0, chosen={"conv1_1.weight": (0.0, 2.0**-8)})
    pictures = fill.bytes(2, 3, 64, 96)
    levels = net(pictures.float() - torch.tensor([104.0, 117.0, 123.0])[:, None, None])
    outputs = {}
    for i, (scores, offsets) in enumerate(levels):
        outputs |= {f"scores_{i}": scores, f"offsets_{i}": offsets}
    outputs |= {f"boxes_{i}": boxes for i, boxes in enumerate(s3fd.faces(levels))}
    case = Case("s3fd.pth", net.state_dict(), "legacy")
    return case.expect("s3fd", {}, {"pictures": pictures}, outputs)


def perceptual(trunk):
    def case(fill, _size):
        net = fill.fill(lpips.Lpips(trunk), gain=2.0)
        x, y = fill.bytes(2, 3, 48, 64), fill.bytes(2, 3, 48, 64)
        made = Case(f"{trunk}.pth", net.state_dict())
        terms = net(x.float() / 127.5 - 1, y.float() / 127.5 - 1)
        return made.expect(f"lpips_{trunk}", {}, {"x": x, "y": y}, {"terms": terms})

    return case


# By name: the case, and whether its project fixes the width of its network or of a part of it.
CASES = {
    "ldm": (ldm, False),
    "vq_f4": (vq_f4, False),
    "difftalk": (talk, False),
    "avhubert_base": (avhubert_base, True),
    "avhubert_reader": (avhubert_reader, True),
    "syncnet_v2": (syncnet_v2, True),
    "wav2lip": (wav2lip_generator, True),
    "wav2lip_expert": (wav2lip_expert, True),
    "wav2lip_disc": (wav2lip_disc, True),
    "s3fd": (face_detector, True),
    "lpips_alex": (perceptual("alex"), False),
    "lpips_vgg": (perceptual("vgg"), True),
}


@torch.no_grad()
def cases(size, only=()):
    """Every case of a size, or those named, one at a time: the official ones are large."""
    for seed, (name, (make, fixed_width)) in enumerate(CASES.items()):
        if not only or name in only:
            fill = Filler(size, seed, fixed_width)
            case = make(fill, size)
            case.name, case.seed, case.table = name, seed, fill.table
            yield case
