//! Every figure that a clip can have, by its key.

/// Which way a figure is better.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Better {
    /// More.
    Higher,
    /// Less.
    Lower,
    /// Near this value.
    Near(f64),
    /// Neither: it says how to read another one.
    Neither,
}

impl Better {
    /// In a word.
    pub fn text(self) -> String {
        match self {
            Better::Higher => "higher".into(),
            Better::Lower => "lower".into(),
            Better::Near(value) => format!("near {value}"),
            Better::Neither => "-".into(),
        }
    }
}

/// Figures that are asked for together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Group {
    /// PSNR, true and wrapped.
    Psnr,
    /// SSIM.
    Ssim,
    /// LPIPS on AlexNet.
    Lpips,
    /// LPIPS on VGG-16, face box and mouth.
    LpipsVgg,
    /// LPIPS on VGG-16, full frame: seconds a frame.
    LpipsVggFull,
    /// Fréchet distance of features.
    Fid,
    /// Sync by a judge.
    Lse,
    /// Words by a lip reader.
    Wer,
    /// Lip opening and landmarks.
    Lips,
    /// Flicker, jitter, chatter.
    Time,
    /// The clip driven by another speech; only where this program generated it.
    Leak,
    /// What the model's autoencoder alone reaches; only where this program generated the clip.
    Ceiling,
}

impl Group {
    /// Those that can be asked for, by name, with whether `all` holds them.
    pub const NAMED: [(&'static str, Group, bool); 10] = [
        ("psnr", Group::Psnr, true),
        ("ssim", Group::Ssim, true),
        ("lpips", Group::Lpips, true),
        ("lpips-vgg", Group::LpipsVgg, true),
        ("lpips-vgg-full", Group::LpipsVggFull, false),
        ("fid", Group::Fid, true),
        ("lse", Group::Lse, true),
        ("wer", Group::Wer, true),
        ("lips", Group::Lips, true),
        ("time", Group::Time, true),
    ];
}

/// One figure of a clip.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Metric {
    /// Its name in JSON and CSV.
    pub key: &'static str,
    /// Its name for people, with its unit.
    pub title: &'static str,
    /// Which way it is better.
    pub better: Better,
    /// Digits after the point, for people.
    pub digits: usize,
    /// What it is asked for with.
    pub group: Group,
}

const fn of(key: &'static str, title: &'static str, better: Better, digits: usize, group: Group) -> Metric {
    Metric { key, title, better, digits, group }
}

use Better::{Higher, Lower, Near, Neither};

/// All figures of a clip, in the order of tables. FID belongs to no clip and stands apart.
pub const METRICS: [Metric; 52] = [
    of("crop96.psnr", "PSNR, face box at 96x96 (dB)", Higher, 2, Group::Psnr),
    of("crop96.psnr_u8wrap", "PSNR wrapped to 8 bits, face box at 96x96 (dB)", Higher, 2, Group::Psnr),
    of("crop96.ssim", "SSIM, face box at 96x96", Higher, 4, Group::Ssim),
    of("crop96.lpips_alex", "LPIPS Alex, face box at 96x96", Lower, 4, Group::Lpips),
    of("crop96.lpips_vgg", "LPIPS VGG, face box at 96x96", Lower, 4, Group::LpipsVgg),
    of("full.psnr", "PSNR, full frame (dB)", Higher, 2, Group::Psnr),
    of("full.psnr_u8wrap", "PSNR wrapped to 8 bits, full frame (dB)", Higher, 2, Group::Psnr),
    of("full.ssim", "SSIM, full frame", Higher, 4, Group::Ssim),
    of("full.lpips_alex", "LPIPS Alex, full frame", Lower, 4, Group::Lpips),
    of("full.lpips_vgg", "LPIPS VGG, full frame", Lower, 4, Group::LpipsVggFull),
    of("mouth.psnr", "PSNR, mouth (dB)", Higher, 2, Group::Psnr),
    of("mouth.psnr_u8wrap", "PSNR wrapped to 8 bits, mouth (dB)", Higher, 2, Group::Psnr),
    of("mouth.ssim", "SSIM, mouth", Higher, 4, Group::Ssim),
    of("mouth.lpips_alex", "LPIPS Alex, mouth", Lower, 4, Group::Lpips),
    of("mouth.lpips_vgg", "LPIPS VGG, mouth", Lower, 4, Group::LpipsVgg),
    of("aligned_mouth.psnr", "PSNR, aligned mouth (dB)", Higher, 2, Group::Psnr),
    of("aligned_mouth.psnr_u8wrap", "PSNR wrapped to 8 bits, aligned mouth (dB)", Higher, 2, Group::Psnr),
    of("aligned_mouth.ssim", "SSIM, aligned mouth", Higher, 4, Group::Ssim),
    of("sync.lrs.lse_c", "LSE-C, whole frame", Higher, 3, Group::Lse),
    of("sync.lrs.lse_d", "LSE-D, whole frame", Lower, 3, Group::Lse),
    of("sync.lrs.unmoved", "distance at no shift, whole frame", Lower, 3, Group::Lse),
    of("sync.lrs.offset", "offset of the sound, whole frame (frames)", Near(0.0), 2, Group::Lse),
    of("sync.wild.lse_c", "LSE-C, face", Higher, 3, Group::Lse),
    of("sync.wild.lse_d", "LSE-D, face", Lower, 3, Group::Lse),
    of("sync.wild.unmoved", "distance at no shift, face", Lower, 3, Group::Lse),
    of("sync.wild.offset", "offset of the sound, face (frames)", Near(0.0), 2, Group::Lse),
    of("sync.own.lse_c", "confidence of our own SyncNet, aligned face", Higher, 3, Group::Lse),
    of("sync.own.lse_d", "distance of our own SyncNet, aligned face", Lower, 3, Group::Lse),
    of("sync.own.unmoved", "distance of our own SyncNet at no shift", Lower, 3, Group::Lse),
    of("sync.own.offset", "offset of the sound by our own SyncNet (frames)", Near(0.0), 2, Group::Lse),
    of("words.wer", "word error rate", Lower, 3, Group::Wer),
    of("words.cer", "character error rate", Lower, 3, Group::Wer),
    of("words.wer_truth", "word error rate of the original, the reader's own", Neither, 3, Group::Wer),
    of("lips.opening_correlation", "lip opening, correlation with the truth", Higher, 3, Group::Lips),
    of("lips.opening_best", "the same at its best move of 3 frames", Higher, 3, Group::Lips),
    of("lips.opening_lag", "that move (frames)", Near(0.0), 2, Group::Lips),
    of("lips.opening_other_time", "truth with itself half a clip away", Neither, 3, Group::Lips),
    of("lips.opening_range_ratio", "range of lip opening over the truth's", Near(1.0), 3, Group::Lips),
    of("lips.landmark_distance", "distance of lip landmarks (eye distances)", Lower, 4, Group::Lips),
    of("time.flicker", "flicker: change between frames beyond the truth's (grey levels)", Lower, 3, Group::Time),
    of("time.flicker_ratio", "change between frames over the truth's", Near(1.0), 3, Group::Time),
    of("time.jitter", "jitter of lip landmarks (eye distances)", Lower, 4, Group::Time),
    of("time.jitter_ratio", "jitter over the truth's", Near(1.0), 3, Group::Time),
    of("time.chatter_ratio", "lip motion in silence over the truth's", Near(1.0), 3, Group::Time),
    of(
        "leak.opening_correlation",
        "lip opening with another speech, correlation with the truth",
        Near(0.0),
        3,
        Group::Leak,
    ),
    of("leak.opening_best", "the same at its best move of 3 frames", Neither, 3, Group::Leak),
    of("leak.perfect", "that of a perfect model: truth with the other clip's truth", Neither, 3, Group::Leak),
    of("leak.lse_c", "LSE-C, or our own confidence, with another speech against it", Higher, 3, Group::Leak),
    of("leak.lse_d", "LSE-D, or our own distance, with another speech against it", Lower, 3, Group::Leak),
    of("leak.offset", "offset of the sound with another speech (frames)", Near(0.0), 2, Group::Leak),
    of("ceiling.psnr", "PSNR of the autoencoder alone, aligned mouth (dB)", Higher, 2, Group::Ceiling),
    of("ceiling.ssim", "SSIM of the autoencoder alone, aligned mouth", Higher, 4, Group::Ceiling),
];

/// The metric of a key.
pub fn metric(key: &str) -> Option<&'static Metric> {
    METRICS.iter().find(|metric| metric.key == key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_unique_and_every_name_has_a_metric() {
        for (i, metric) in METRICS.iter().enumerate() {
            assert!(METRICS[..i].iter().all(|other| other.key != metric.key), "{}", metric.key);
            assert_eq!(super::metric(metric.key), Some(metric));
        }
        for (name, group, _) in Group::NAMED {
            assert!(group == Group::Fid || METRICS.iter().any(|metric| metric.group == group), "{name}");
        }
        // The wrapped figure never stands alone.
        for wrapped in METRICS.iter().filter_map(|metric| metric.key.strip_suffix("_u8wrap")) {
            assert_eq!(super::metric(wrapped).map(|metric| metric.group), Some(Group::Psnr));
        }
    }
}
