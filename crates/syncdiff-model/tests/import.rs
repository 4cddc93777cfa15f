//! Checkpoints in the layouts of other projects: found, stripped, counted, and written as a folder of ours.

#[path = "common/find.rs"]
mod find;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use syncdiff_checkpoint::Checkpoint;
use syncdiff_model::ModelError;
use syncdiff_model::weights::import::{LAYOUTS, Layout, import_file, recognise};
use syncdiff_model::weights::{FolderText, Storage, WeightsFolder, WeightsWriter};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../syncdiff-checkpoint/tests/fixtures").join(name)
}

fn layout(name: &str) -> &'static Layout {
    Layout::by_name(name).expect("a known layout")
}

#[test]
fn official_files_are_recognised_by_their_tensors() {
    for (file, names) in [
        ("lightning.ckpt", &["ldm_vq_f4", "ldm_unet"][..]),
        ("fairseq.pt", &["avhubert_base"]),
        ("legacy_fairseq.pt", &["avhubert_base"]),
        ("avhubert_finetuned.pt", &["avhubert_finetuned"]),
        ("syncnet_v2.model", &["syncnet_v2"]),
        ("wav2lip.pth", &["wav2lip"]),
        ("wav2lip_expert.pth", &["wav2lip_expert"]),
        ("wav2lip_disc.pth", &["wav2lip_disc"]),
        ("s3fd.pth", &["s3fd"]),
        ("lpips_alex.pth", &["lpips_alex"]),
        ("lpips_vgg.pth", &["lpips_vgg"]),
        ("zip_types.pt", &[]),
    ] {
        let mut checkpoint = Checkpoint::open(&fixture(file)).unwrap();
        let found: Vec<&str> = recognise(&mut checkpoint).unwrap().iter().map(|layout| layout.name).collect();
        assert_eq!(found, names, "{file}");
    }
}

#[test]
fn prefixes_go_and_what_no_network_needs_is_dropped() {
    let unet = import_file(&fixture("lightning.ckpt"), layout("ldm_unet")).unwrap();
    assert_eq!((unet.root.as_str(), unet.prefix, unet.num_dropped), ("state_dict", "model.diffusion_model.", 8));
    assert_eq!(unet.tensors.keys().collect::<Vec<_>>(), ["input_blocks.0.0.weight", "time_embed.0.weight"]);
    assert_eq!(unet.parameters, 2 * 3 * 3 * 3 + 8);
    let vq = import_file(&fixture("lightning.ckpt"), layout("ldm_vq_f4")).unwrap();
    assert_eq!(vq.tensors.keys().collect::<Vec<_>>(), ["encoder.conv_in.weight", "quantize.embedding.weight"]);
    let reader = import_file(&fixture("avhubert_finetuned.pt"), layout("avhubert_finetuned")).unwrap();
    assert!(reader.tensors.contains_key("decoder.layers.0.fc1.weight"));
    assert!(!reader.tensors.contains_key("encoder.w2v_model.mask_emb"));
    let generator = import_file(&fixture("wav2lip.pth"), layout("wav2lip")).unwrap();
    assert!(generator.tensors.keys().all(|name| !name.starts_with("module.") && !name.contains("num_batches")));
    assert!(generator.tensors.contains_key("face_encoder_blocks.0.0.conv_block.1.running_mean"));
    // Two convolutions, two biases of 2 and one norm weight; the running statistics are no parameters.
    assert_eq!(generator.parameters, 2 * 6 * 49 + 2 + 2 + 3 * 2);
    let perceptual = import_file(&fixture("lpips_vgg.pth"), layout("lpips_vgg")).unwrap();
    assert_eq!((perceptual.tensors.len(), perceptual.num_dropped), (3, 2));
}

#[test]
fn an_imported_network_is_written_and_read_as_pytorch_had_it() {
    let imported = import_file(&fixture("fairseq.pt"), layout("avhubert_base")).unwrap();
    let expected = Checkpoint::open(&fixture("fairseq.pt")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut writer = WeightsWriter::new();
    writer.add_tensors(imported.tensors).unwrap();
    let text = FolderText { config_toml: "", model_card: "# card\n", licence: "none" };
    writer.save(folder.path(), Storage::F32, text).unwrap();
    let read = WeightsFolder::open(folder.path()).unwrap();
    assert_eq!(read.tensors().len(), 4);
    for (name, tensor) in read.tensors() {
        assert_eq!(tensor.to_f32().unwrap(), expected.read_f32(name).unwrap(), "{name}");
    }
}

#[test]
fn a_file_without_the_network_names_what_was_looked_for() {
    let error = import_file(&fixture("s3fd.pth"), layout("wav2lip")).unwrap_err();
    assert!(matches!(error, ModelError::Weights { .. }), "{error}");
    for word in ["s3fd.pth", "wav2lip", "output_block.1.weight", "--list"] {
        assert!(error.to_string().contains(word), "{word}: {error}");
    }
    let error = import_file(&fixture("s3fd.json"), layout("s3fd")).unwrap_err();
    assert!(matches!(error, ModelError::Checkpoint(_)), "{error}");
}

/// Counts the tables of names and shapes of the original networks in these cases.
fn count_tables(cases: &[(PathBuf, serde_json::Value)]) -> usize {
    let mut counted = 0;
    for (kind, models) in [
        (
            "wav2lip",
            &[("generator", "wav2lip"), ("syncnet_color", "wav2lip_expert"), ("disc_qual", "wav2lip_disc")][..],
        ),
        ("syncnet_s", &[("", "syncnet_v2")]),
    ] {
        for (_, value) in cases.iter().filter(|(_, case)| find::kind(case) == kind) {
            let generator = &value["weight_generator"];
            for (model, name) in models {
                let table =
                    if model.is_empty() { &generator["tensors"] } else { &generator["models"][model]["tensors"] };
                let shapes: BTreeMap<String, Vec<usize>> = table
                    .as_array()
                    .unwrap_or_else(|| panic!("{kind}: no table of {model}"))
                    .iter()
                    .map(|row| {
                        let shape = serde_json::from_value(row["shape"].clone()).expect("a shape");
                        (row["name"].as_str().expect("a name").to_owned(), shape)
                    })
                    .collect();
                let found: Vec<&str> =
                    LAYOUTS.iter().filter(|layout| layout.prefix_in(&shapes).is_some()).map(|l| l.name).collect();
                assert_eq!(found, [*name]);
                let layout = layout(name);
                let kept = shapes.iter().filter_map(|(name, shape)| Some((layout.kept("", name)?, shape)));
                let total: usize =
                    kept.filter(|(name, _)| layout.counts(name)).map(|(_, s)| s.iter().product::<usize>()).sum();
                let params = &value["params"];
                let expected = if model.is_empty() { params } else { &params[model] };
                assert_eq!(Some(total as u64), expected.as_u64(), "{name}");
                // Variant `a` has the official sizes.
                if value["variant"] == "a" {
                    assert_eq!(total as u64, layout.parameters, "{name}");
                }
                counted += 1;
            }
        }
    }
    counted
}

/// The tables of names and shapes: recognised, and counted as their authors count.
#[test]
fn golden_tables_of_names_have_the_parameters_of_their_layouts() {
    let counted = count_tables(&find::cases());
    println!("{counted} tables were counted");
}

#[test]
fn golden_tables_in_folders_of_other_names_are_counted() {
    let (root, cases) = (tempfile::tempdir().unwrap(), find::cases());
    for (kind, folder) in [("wav2lip", "lips/of/another"), ("syncnet_s", "wav2lip/b")] {
        let Some((from, _)) = find::of_kind(cases.clone(), kind).into_iter().next() else { return };
        let folder = root.path().join(folder);
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::copy(from.join("case.json"), folder.join("case.json")).unwrap();
    }
    assert_eq!(count_tables(&find::cases_in(root.path())), 4);
}
