"""The networks of this folder against recorded outputs of the original implementations."""

import os
import pathlib
import pickle

import torch
from networks import avhubert, difftalk, lpips, syncnet, unet, vq, wav2lip
from store import generated, generated_bytes, goldens

ROOT = pathlib.Path(__file__).resolve().parents[2]


def loaded(net, weights, absent=()):
    """With the weights; only counters of batch norm, and names that begin as `absent` says, may have none."""
    state = {name: tensor for name, tensor in weights.items() if name in net.state_dict()}
    left = [name for name in net.state_dict() if name not in state and not name.endswith("num_batches_tracked")]
    wrong = [name for name in left if not name.startswith(tuple(absent))] if absent else left
    assert not wrong, f"no weights for {wrong}"
    net.load_state_dict(state, strict=False)
    return net.eval().requires_grad_(False)


def unets(golden):
    sizes = {k: v for k, v in golden.case["config"]["unet"].items() if k in unet.UNet.__init__.__code__.co_varnames}
    net = loaded(unet.UNet(**sizes), golden.weights)
    for name in (name for name in golden.io if name.startswith("out.eps_K")):
        tokens, time = name[len("out.eps_K") :].split("_t")
        x = golden.io["in.x"]
        timesteps = golden.io["in.t_mixed"] if time == "mixed" else torch.full((len(x),), int(time))
        yield name, net(x, timesteps, golden.io[f"in.context_K{tokens}"]), 1e-5, 0.0
    # Inputs of small variance, which show a wrong epsilon of a norm.
    res = net.input_blocks[1][0](golden.io["in.probe_res_x"], golden.io["in.probe_emb"], None)
    yield "out.probe_resblock", res, 1e-4, 0.0
    context = golden.io[max(name for name in golden.io if name.startswith("in.context_K"))][:1]
    yield "out.probe_spatial_transformer", net.middle_block[1](golden.io["in.probe_st_x"], None, context), 1e-4, 0.0


def autoencoders(golden):
    given = golden.case["config"]["dd"]
    sizes = {name: given[name] for name in ("in_channels", "z_channels", "ch", "ch_mult", "num_res_blocks")}
    made = golden.case["weight_generator"]
    weights = golden.weights or generated(made["model_tensors"], made["seed"])
    net = loaded(vq.VQModel(**sizes, n_embed=golden.case["config"]["n_embed"]), weights)
    latent = net.encode(golden.io["in.image"])
    yield "out.prequant", latent, 2e-5, 0.0
    yield "out.quantised", net.quantize(latent), 2e-5, 0.0
    yield "out.decoded", net.decode(latent), 2e-5, 0.0
    yield "out.decoded_from_in_latent", net.decode(golden.io["in.latent"]), 2e-5, 0.0
    for part in ("block_1", "attn_1"):
        yield f"out.probe_mid_{part}", net.encoder.mid[part](golden.io["in.probe_x"]), 1e-4, 0.0


def encoder_sizes(given):
    names = {"dim": "dim", "num_layers": "layers", "num_heads": "heads", "feed_forward_dim": "ffn"}
    names |= {"position_kernel": "conv_pos", "position_groups": "groups"}
    return {ours: given[theirs] for ours, theirs in names.items()}


UNUSED = ("label_embs_concat", "final_proj", "mask_emb")


def audio_encoders(golden):
    net = avhubert.AVHubert(**encoder_sizes(golden.case["config"]["encoder"]))
    net = loaded(net, golden.weights, ("feature_extractor_video", *UNUSED))
    for i in (i for i in range(9) if f"out.features{i}" in golden.io):
        yield f"out.final{i}", net(golden.io[f"out.features{i}"][None]), 5e-5, 0.0


def readers(golden):
    sizes = encoder_sizes(golden.case["config"]["enc"])
    given = golden.case["config"]["dec"]
    decoder = {"dim": sizes["dim"], "num_layers": given["layers"], "num_heads": given["heads"]}
    decoder |= {"feed_forward_dim": given["ffn"], "vocabulary": given["vocab"]}
    made = golden.case["resnet_weight_generator"]
    prefix = "encoder.w2v_model."
    resnet = generated(made["tensors"], made["seed"]).items()
    weights = golden.weights | {f"{prefix}feature_extractor_video.resnet.{name}": value for name, value in resnet}
    net = loaded(avhubert.Reader(sizes, decoder), weights, tuple(prefix + name for name in UNUSED))
    mouths = (golden.io["in.gray_u8"][:, 4:92, 4:92].float() / 255 - 0.421) / 0.165
    memory, logits = net(mouths[None], golden.io["in.prev_tokens"])
    yield "out.encoder", memory, 5e-5, 0.0
    yield "out.logits", logits, 1e-4, 0.0
    both = net.encoder["w2v_model"](golden.io["in.audio_features"][None], mouths[None])
    yield "out.encoder_audio_visual", both, 5e-5, 0.0


def conditions(golden):
    sound = loaded(difftalk.AudioNet(), golden.weights_under("audionet64."))
    smooth = loaded(difftalk.AudioAttNet(), golden.weights_under("difftalk_s8_d32."))
    marks = loaded(difftalk.LdmNet(), golden.weights_under("ldmnet."))
    windows = golden.io["in.audio_smooth"]
    rows = sound(windows.flatten(0, 1)).unflatten(0, windows.shape[:2])
    yield "out.audionet64", sound(golden.io["in.ds"]), 2e-5, 1e-4
    yield "out.difftalk_chain", smooth(rows), 2e-5, 1e-4
    yield "out.ldmnet", marks(golden.io["in.landmarks"]), 2e-5, 1e-4


def syncnets(golden):
    made = golden.case["weight_generator"]
    net = loaded(syncnet.SyncNet(), generated(made["tensors"], made["seed"]))
    seed, shape = golden.case["seed"], (2, 3, 5, 224, 224)
    low = generated_bytes("lip_low", seed, (2, 3, 5, 14, 14)).repeat_interleave(16, 3).repeat_interleave(16, 4)
    lips = (3 * low + generated_bytes("lip_noise", seed, shape)) // 4
    lip, sound = net(lips.float(), golden.io["in.mfcc_window"])
    yield "out.lip", lip, 1e-4, 1e-4
    yield "out.aud", sound, 1e-4, 1e-4


def wav2lips(golden):
    def net(name, made):
        table = golden.case["weight_generator"]["models"][name]
        return loaded(made, generated(table["tensors"], table["seed"]))

    mel, faces = golden.io["in.mel"], golden.io["in.face_u8"].float() / 255
    yield "out.generator", net("generator", wav2lip.Generator())(mel, faces), 2e-5, 0.0
    sync_faces = golden.io["in.sync_face_u8"].float() / 255
    audio, face = net("syncnet_color", wav2lip.ColourSyncNet())(mel, sync_faces)
    yield "out.sync_audio", audio, 1e-5, 0.0
    yield "out.sync_face", face, 1e-5, 0.0
    both = torch.cat([faces[:, 3:], faces[:, 3:].flip(3)])
    yield "out.disc", net("disc_qual", wav2lip.Discriminator())(both), 1e-5, 0.0


def distances(golden):
    """LPIPS, with the weights of the package that `syncdiff models pull lpips` fetches."""
    folder = pathlib.Path(os.environ.get("SYNCDIFF_MODELS", ROOT / ".cache" / "models")) / "lpips"
    for trunk, file, name in (("alex", "alexnet.ckpt", "AlexNet_0"), ("vgg", "vgg16.ckpt", "VGG16_0")):
        if not (folder / file).is_file():
            print(f"skipped: {folder / file} absent; `syncdiff models pull lpips`")
            continue
        # A file whose digest the pull has checked: dictionaries of NumPy arrays, kernels as rows, columns, in, out.
        stored = pickle.loads((folder / file).read_bytes())
        stored = stored.get("params", stored)
        convs = [f"net.slice{i + 1}.{part[0]}" for i, parts in enumerate(lpips.TRUNKS[trunk])
                 for part in parts if not isinstance(part, str)]
        weights = {}
        for i, conv in enumerate(convs):
            weights[f"{conv}.weight"] = torch.tensor(stored[name][f"Conv_{i}"]["kernel"]).permute(3, 2, 0, 1)
            weights[f"{conv}.bias"] = torch.tensor(stored[name][f"Conv_{i}"]["bias"])
        for i in range(5):
            head = torch.tensor(stored[f"NetLinLayer_{i}"]["Conv_0"]["kernel"]).permute(3, 2, 0, 1)
            weights |= {f"lin{i}.model.1.weight": head, f"lins.{i}.model.1.weight": head}
        net = loaded(lpips.Lpips(trunk), weights, ("scaling_layer",))
        for key in (key for key in golden.io if key.startswith(f"out.lpips_{trunk}.") and key.endswith(".per_layer")):
            group = key.split(".")[2]
            x, y = (golden.io[f"in.{group}.{side}"].permute(0, 3, 1, 2).float() / 127.5 - 1 for side in "xy")
            yield key, net(x, y), 2e-5, 1e-4


KINDS = {"ldm_unet": unets, "ldm_vq": autoencoders, "avhubert_audio": audio_encoders, "avhubert_video": readers}
KINDS |= {"difftalk_audio": conditions, "syncnet_s": syncnets, "wav2lip": wav2lips, "metrics": distances}


@torch.no_grad()
def check(folder):
    """Compares every case; raises at the first that is outside its tolerance."""
    for kind, outputs in KINDS.items():
        cases = 0
        for golden in goldens(folder, kind):
            cases += 1
            for name, found, absolute, relative in outputs(golden):
                expected = golden.io[name]
                error = (found - expected).abs()
                where = f"{kind}/{golden.case['variant']} {name}"
                assert found.shape == expected.shape, f"{where}: {list(found.shape)}, not {list(expected.shape)}"
                assert (error <= absolute + relative * expected.abs()).all(), f"{where}: off by {error.max():.2e}"
                print(f"{where}: off by at most {error.max():.1e} (allowed {absolute:.0e} + {relative:.0e} x)")
        assert cases, f"no case of {kind} in {folder}"
