//! Buffers for tensors, shared where lives do not meet: what is small stays in the cache.

use super::flatbuffer::Wrong;
use super::model::{MAX_ELEMENTS, Model};
use super::plan::{Layout, Step};

/// Gives every tensor a buffer; two tensors share one if their lives do not meet.
pub(super) fn assign_slots(
    model: &Model,
    steps: &[(Step, usize)],
    layouts: &[Layout],
) -> Result<(Vec<usize>, Vec<usize>), Wrong> {
    let mut last_read = vec![0; layouts.len()];
    for (i, (step, _)) in steps.iter().enumerate() {
        for t in step.reads() {
            last_read[t] = i;
        }
    }
    for &t in &model.outputs {
        last_read[t] = usize::MAX;
    }
    let mut slot = vec![usize::MAX; layouts.len()];
    let (mut slot_len, mut free): (Vec<usize>, Vec<usize>) = (Vec::new(), Vec::new());
    // The picture keeps its own buffer: the caller fills it before every run.
    slot[model.inputs[0]] = 0;
    slot_len.push(layouts[model.inputs[0]].len());
    for (i, (step, output)) in steps.iter().enumerate() {
        let reads = step.reads();
        if reads.iter().any(|&t| slot[t] == usize::MAX) || slot[*output] != usize::MAX {
            return Err(format!("step {i} reads what is not computed yet"));
        }
        let len = layouts[*output].len();
        // The free buffer nearest in size, so that small tensors stay in small buffers.
        let best = (0..free.len()).min_by_key(|&f| slot_len[free[f]].abs_diff(len));
        let chosen = best.map_or_else(
            || {
                slot_len.push(0);
                slot_len.len() - 1
            },
            |f| free.swap_remove(f),
        );
        slot_len[chosen] = slot_len[chosen].max(len);
        slot[*output] = chosen;
        let mut done: Vec<usize> = reads.into_iter().filter(|&t| last_read[t] == i && slot[t] != 0).collect();
        done.sort_unstable();
        done.dedup();
        free.extend(done.into_iter().map(|t| slot[t]));
    }
    if slot_len.iter().sum::<usize>() > 4 * MAX_ELEMENTS {
        return Err("it needs too much memory".into());
    }
    if model.outputs.iter().any(|&t| slot[t] == usize::MAX) {
        return Err("an output is never computed".into());
    }
    Ok((slot, slot_len))
}
