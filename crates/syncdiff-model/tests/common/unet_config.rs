//! The U-Net that a golden case's `case.json` describes.

use super::common::Golden;
use syncdiff_model::unet::UNetConfig;

/// Reads `/config/unet`.
pub(crate) fn unet_config(golden: &Golden) -> UNetConfig {
    let list = |path: &str| -> Vec<usize> {
        let items = golden.case.pointer(path).and_then(|v| v.as_array()).expect("a list in case.json");
        items.iter().map(|v| v.as_u64().expect("an integer") as usize).collect()
    };
    UNetConfig {
        in_channels: golden.number("/config/unet/in_channels"),
        out_channels: golden.number("/config/unet/out_channels"),
        model_channels: golden.number("/config/unet/model_channels"),
        channel_mult: list("/config/unet/channel_mult"),
        num_res_blocks: golden.number("/config/unet/num_res_blocks"),
        attention_resolutions: list("/config/unet/attention_resolutions"),
        num_head_channels: golden.number("/config/unet/num_head_channels"),
        context_dim: golden.number("/config/unet/context_dim"),
        norm_groups: 32,
    }
}
