//! Checkpoints of other projects as tensors under their original names.
//!
//! A [`Layout`] says how to find one network in the files of its project: by a few tensors that only it has, under
//! which prefix, and what else is there that no network needs. Names and shapes stay as they are; the remap table
//! beside each network turns them into its own.
//!
//! # Source
//! File layouts of CompVis/latent-diffusion, sstzal/DiffTalk, facebookresearch/av_hubert, joonson/syncnet_python,
//! Rudrabha/Wav2Lip and richzhang/PerceptualSimilarity; parameter totals counted on the original classes.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use syncdiff_checkpoint::{Checkpoint, TensorInfo};

use crate::error::{ModelError, ModelResult};
use crate::weights::remap::Remap;
use crate::weights::tensor_map::{StoredTensor, TensorMap};

/// A tensor by which a layout is known.
#[derive(Debug, Clone, Copy)]
struct Sign {
    /// Name after the prefix.
    name: &'static str,
    /// Axis and its length, where other layouts have the same name.
    axis: Option<(usize, usize)>,
}

const fn sign(name: &'static str) -> Sign {
    Sign { name, axis: None }
}

/// How a known network lies in the files of its project.
#[derive(Debug)]
pub struct Layout {
    /// The name that the command line takes.
    pub name: &'static str,
    /// What the network is.
    pub title: &'static str,
    /// Whose file it is.
    pub project: &'static str,
    /// Terms of the public weights, as far as the project states them.
    pub licence: &'static str,
    /// Parameters of the official network: running statistics and what is dropped do not count.
    pub parameters: u64,
    /// Prefixes under which the network may lie, the first that fits counts; what lies outside is dropped.
    prefixes: &'static [&'static str],
    signs: &'static [Sign],
    /// Leading segments of names, after the prefix, that are dropped.
    dropped: &'static [&'static str],
    /// Leading segments of names that are kept and not counted in `parameters`.
    uncounted: &'static [&'static str],
    /// The layout of which this is a special case.
    refines: Option<&'static str>,
}

const MIT: &str = "MIT (code); the weights have no terms of their own";
const AVHUBERT_TERMS: &str = "AV-HuBERT licence agreement: non-commercial research";
const WAV2LIP_TERMS: &str = "no licence; its README allows research and personal use only";

/// All layouts that are known by name.
pub static LAYOUTS: [Layout; 13] = [
    Layout {
        name: "ldm_vq_f4",
        title: "VQ-f4 autoencoder, alone or inside a latent-diffusion checkpoint",
        project: "CompVis/latent-diffusion",
        licence: MIT,
        parameters: 55_322_782,
        prefixes: &["first_stage_model.", ""],
        signs: &[sign("quantize.embedding.weight"), sign("encoder.conv_in.weight")],
        dropped: &["loss", "model_ema"],
        uncounted: &[],
        refines: None,
    },
    Layout {
        name: "ldm_unet",
        title: "denoiser of a latent-diffusion checkpoint",
        project: "CompVis/latent-diffusion",
        licence: MIT,
        parameters: 546_211_587,
        prefixes: &["model.diffusion_model.", ""],
        signs: &[sign("time_embed.0.weight"), sign("input_blocks.0.0.weight")],
        dropped: &[],
        uncounted: &[],
        refines: None,
    },
    Layout {
        name: "difftalk_unet",
        title: "denoiser of a DiffTalk checkpoint (9 channels in)",
        project: "sstzal/DiffTalk",
        licence: "no licence",
        parameters: 530_152_963,
        prefixes: &["model.diffusion_model.", ""],
        signs: &[sign("time_embed.0.weight"), Sign { name: "input_blocks.0.0.weight", axis: Some((1, 9)) }],
        dropped: &[],
        uncounted: &[],
        refines: Some("ldm_unet"),
    },
    Layout {
        name: "difftalk_condition",
        title: "sound and landmarks to the context of DiffTalk's denoiser",
        project: "sstzal/DiffTalk",
        licence: "no licence",
        parameters: 57_477,
        prefixes: &["cond_stage_model_for_"],
        signs: &[
            sign("audio.encoder_conv.0.weight"),
            sign("audio_smooth.attentionNet.0.weight"),
            sign("ldm.encoder_fc1.0.weight"),
        ],
        dropped: &[],
        uncounted: &[],
        refines: None,
    },
    Layout {
        name: "avhubert_base",
        title: "AV-HuBERT encoder, pre-trained; counted without its video front end",
        project: "facebookresearch/av_hubert",
        licence: AVHUBERT_TERMS,
        parameters: 91_039_616,
        prefixes: &[""],
        signs: &[sign("feature_extractor_audio.proj.weight"), sign("encoder.pos_conv.0.weight_g")],
        dropped: &["label_embs_concat", "final_proj", "mask_emb"],
        uncounted: &["feature_extractor_video"],
        refines: None,
    },
    Layout {
        name: "avhubert_finetuned",
        title: "AV-HuBERT lip reader: encoder and decoder, large; counted without the decoder and its vocabulary",
        project: "facebookresearch/av_hubert",
        licence: AVHUBERT_TERMS,
        parameters: 324_622_976,
        prefixes: &[""],
        signs: &[sign("encoder.w2v_model.layer_norm.weight"), sign("decoder.layers.0.fc1.weight")],
        dropped: &["encoder.w2v_model.label_embs_concat", "encoder.w2v_model.final_proj", "encoder.w2v_model.mask_emb"],
        uncounted: &["decoder"],
        refines: None,
    },
    Layout {
        name: "syncnet_v2",
        title: "SyncNet, the scorer of LSE-C and LSE-D",
        project: "joonson/syncnet_python",
        licence: "MIT",
        parameters: 13_631_616,
        prefixes: &[""],
        signs: &[sign("netcnnaud.0.weight"), sign("netcnnlip.0.weight"), sign("netfclip.0.weight")],
        dropped: &[],
        uncounted: &[],
        refines: None,
    },
    Layout {
        name: "wav2lip",
        title: "Wav2Lip generator",
        project: "Rudrabha/Wav2Lip",
        licence: WAV2LIP_TERMS,
        parameters: 36_298_035,
        prefixes: &[""],
        signs: &[sign("face_encoder_blocks.0.0.conv_block.0.weight"), sign("output_block.1.weight")],
        dropped: &[],
        uncounted: &[],
        refines: None,
    },
    Layout {
        name: "wav2lip_expert",
        title: "Wav2Lip's colour SyncNet",
        project: "Rudrabha/Wav2Lip",
        licence: WAV2LIP_TERMS,
        parameters: 16_435_072,
        prefixes: &[""],
        signs: &[sign("face_encoder.0.conv_block.0.weight"), sign("audio_encoder.0.conv_block.0.weight")],
        dropped: &[],
        uncounted: &[],
        refines: None,
    },
    Layout {
        name: "wav2lip_disc",
        title: "Wav2Lip's quality discriminator",
        project: "Rudrabha/Wav2Lip",
        licence: WAV2LIP_TERMS,
        parameters: 14_113_793,
        prefixes: &[""],
        signs: &[sign("face_encoder_blocks.0.0.conv_block.0.weight"), sign("binary_pred.0.weight")],
        dropped: &[],
        uncounted: &[],
        refines: None,
    },
    Layout {
        name: "s3fd",
        title: "S3FD face detector",
        project: "Rudrabha/Wav2Lip (from 1adrianb/face-alignment)",
        licence: "BSD-3-Clause (code); the weights have no terms of their own",
        parameters: 22_459_110,
        prefixes: &[""],
        signs: &[sign("conv1_1.weight"), sign("conv3_3_norm.weight"), sign("conv3_3_norm_mbox_conf.weight")],
        dropped: &[],
        uncounted: &[],
        refines: None,
    },
    Layout {
        name: "lpips_alex",
        title: "LPIPS on AlexNet: trunk and heads",
        project: "richzhang/PerceptualSimilarity",
        licence: "BSD-2-Clause",
        parameters: 2_470_848,
        prefixes: &[""],
        signs: &[Sign { name: "net.slice1.0.weight", axis: Some((2, 11)) }, sign("lin0.model.1.weight")],
        dropped: &["scaling_layer", "lins"],
        uncounted: &[],
        refines: None,
    },
    Layout {
        name: "lpips_vgg",
        title: "LPIPS on VGG-16: trunk and heads",
        project: "richzhang/PerceptualSimilarity",
        licence: "BSD-2-Clause",
        parameters: 14_716_160,
        prefixes: &[""],
        signs: &[Sign { name: "net.slice1.0.weight", axis: Some((2, 3)) }, sign("lin0.model.1.weight")],
        dropped: &["scaling_layer", "lins"],
        uncounted: &[],
        refines: None,
    },
];

/// A network taken out of a checkpoint.
#[derive(Debug)]
pub struct Imported {
    /// By which layout.
    pub layout: &'static Layout,
    /// Path of the mapping in the file, empty for its top.
    pub root: String,
    /// What stood before the names.
    pub prefix: &'static str,
    /// The tensors under their original names; they stay in the file until they are read.
    pub tensors: TensorMap,
    /// How many tensors of the mapping were left behind.
    pub num_dropped: usize,
    /// Parameters, counted as [`Layout::parameters`] are.
    pub parameters: u64,
}

impl Layout {
    /// The layout of this name.
    pub fn by_name(name: &str) -> Option<&'static Layout> {
        LAYOUTS.iter().find(|layout| layout.name == name)
    }

    /// The prefix under which a mapping of these names and shapes holds the network.
    pub fn prefix_in(&self, shapes: &BTreeMap<String, Vec<usize>>) -> Option<&'static str> {
        let shows = |prefix: &str, sign: &Sign| {
            let shape = shapes.get(&format!("{prefix}{}", sign.name));
            shape.is_some_and(|shape| sign.axis.is_none_or(|(axis, len)| shape.get(axis) == Some(&len)))
        };
        self.prefixes.iter().copied().find(|prefix| self.signs.iter().all(|sign| shows(prefix, sign)))
    }

    /// The name under which a tensor is kept, `None` if it is dropped.
    pub fn kept<'a>(&self, prefix: &str, name: &'a str) -> Option<&'a str> {
        let name = name.strip_prefix(prefix)?;
        let dropped = Remap::identity().ignoring(self.dropped).allows_unused(name);
        // A counter of batch norm that nothing computes with.
        (!dropped && name.rsplit('.').next() != Some("num_batches_tracked")).then_some(name)
    }

    /// Whether a kept tensor counts as a parameter.
    pub fn counts(&self, name: &str) -> bool {
        let last = name.rsplit('.').next();
        !matches!(last, Some("running_mean" | "running_var"))
            && !Remap::identity().ignoring(self.uncounted).allows_unused(name)
    }
}

fn shapes(tensors: &[TensorInfo]) -> BTreeMap<String, Vec<usize>> {
    tensors.iter().map(|tensor| (tensor.name.clone(), tensor.shape.clone())).collect()
}

/// Paths of all mappings, those with the most tensors first.
fn paths(checkpoint: &Checkpoint) -> Vec<String> {
    let mut roots = checkpoint.roots();
    roots.sort_by_key(|root| std::cmp::Reverse(root.tensors));
    roots.into_iter().map(|root| root.path).collect()
}

/// The layouts that a checkpoint holds; a latent-diffusion file holds several.
///
/// # Errors
/// [`ModelError::Checkpoint`].
pub fn recognise(checkpoint: &mut Checkpoint) -> ModelResult<Vec<&'static Layout>> {
    let mut found: Vec<&'static Layout> = Vec::new();
    for path in paths(checkpoint) {
        checkpoint.choose_root(&path)?;
        let shapes = shapes(&checkpoint.tensors());
        for layout in &LAYOUTS {
            if layout.prefix_in(&shapes).is_some() && !found.iter().any(|other| other.name == layout.name) {
                found.push(layout);
            }
        }
    }
    let refined: Vec<&str> = found.iter().filter_map(|layout| layout.refines).collect();
    found.retain(|layout| !refined.contains(&layout.name));
    Ok(found)
}

/// Takes a network out of a checkpoint file of any form.
///
/// # Errors
/// [`ModelError::Checkpoint`] for an unreadable file, [`ModelError::Weights`] when it holds no such network.
pub fn import_file(path: &Path, layout: &'static Layout) -> ModelResult<Imported> {
    import(Checkpoint::open(path)?, layout)
}

/// As [`import_file`], for a checkpoint that is open already.
pub fn import(mut checkpoint: Checkpoint, layout: &'static Layout) -> ModelResult<Imported> {
    for root in paths(&checkpoint) {
        checkpoint.choose_root(&root)?;
        let listed = checkpoint.tensors();
        let Some(prefix) = layout.prefix_in(&shapes(&listed)) else { continue };
        let checkpoint = Arc::new(checkpoint);
        let (mut tensors, mut num_dropped, mut parameters) = (TensorMap::new(), 0, 0);
        for tensor in listed {
            let Some(name) = layout.kept(prefix, &tensor.name) else {
                num_dropped += 1;
                continue;
            };
            let name = name.to_owned();
            let stored = StoredTensor::in_checkpoint(&checkpoint, tensor)?;
            if stored.dtype().is_float() && layout.counts(&name) {
                parameters += stored.num_elements() as u64;
            }
            tensors.insert(name, stored);
        }
        return Ok(Imported { layout, root, prefix, tensors, num_dropped, parameters });
    }
    let needed: Vec<&str> = layout.signs.iter().map(|sign| sign.name).collect();
    let reason = format!("no mapping in it has the tensors of {}: {}", layout.name, needed.join(", "));
    let remedy = "See what it holds with `syncdiff models import FILE --list`, or choose another layout";
    Err(ModelError::weights(checkpoint.path(), reason, remedy))
}
