//! Upstream's state-dict names of the U-Net (without the prefix `model.diffusion_model.`).

use super::config::UNetConfig;
use crate::weights::Remap;

/// Field of this module -> part of upstream's dotted name. Fields that are not listed keep their name.
const PARTS: &[(&str, &str)] = &[
    ("time_embed_0", "time_embed.0"),
    ("time_embed_2", "time_embed.2"),
    ("middle_block_0", "middle_block.0"),
    ("middle_block_1", "middle_block.1"),
    ("middle_block_2", "middle_block.2"),
    ("out_0", "out.0"),
    ("out_2", "out.2"),
    ("conv_in", "0"),
    ("down", "0"),
    ("res", "0"),
    ("transformer", "1"),
    ("in_layers_0", "in_layers.0"),
    ("in_layers_2", "in_layers.2"),
    ("emb_layers_1", "emb_layers.1"),
    ("out_layers_0", "out_layers.0"),
    ("out_layers_3", "out_layers.3"),
    ("transformer_blocks_0", "transformer_blocks.0"),
    ("to_out_0", "to_out.0"),
    ("ff_net_0_proj", "ff.net.0.proj"),
    ("ff_net_2", "ff.net.2"),
];

impl UNetConfig {
    /// From field paths to upstream's names.
    pub fn remap(&self) -> Remap {
        // Upstream numbers the parts of a block by position: the up-sampling comes after the transformer, if any.
        let mut factor = 1 << (self.channel_mult.len() - 1);
        let mut up_index = Vec::new();
        while factor >= 1 {
            up_index.extend(std::iter::repeat_n(if self.attends(factor) { "2" } else { "1" }, self.num_res_blocks + 1));
            factor /= 2;
        }
        Remap::identity().with_names(move |path| {
            let segments: Vec<&str> = path.split('.').collect();
            let name = segments.iter().enumerate().map(|(i, &segment)| {
                if segment == "up" && i == 2 {
                    let block: usize = segments[1].parse().ok()?;
                    return up_index.get(block).copied();
                }
                Some(PARTS.iter().find(|(field, _)| *field == segment).map_or(segment, |(_, upstream)| upstream))
            });
            name.collect::<Option<Vec<_>>>().map(|parts| parts.join("."))
        })
    }
}
