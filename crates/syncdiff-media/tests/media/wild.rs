//! Clips of the shared data: real files, read only.

use std::path::PathBuf;

use syncdiff_media::{ReadOptions, decode_speech, probe, scan_index};

use crate::support::{packet_pts, times, tools};

fn data() -> PathBuf {
    match std::env::var_os("SYNCDIFF_DATA") {
        Some(path) => path.into(),
        None => PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data"),
    }
}

#[test]
fn wild_clips_keep_their_time_stamps() {
    let folder = data().join("wild");
    if !folder.is_dir() {
        println!("skipped: shared data absent");
        return;
    }
    // One at 29.97, one whose picture starts late, one in MPEG-4.
    for name in ["office_720p_2997", "newsdesk_1080p_smallface", "portrait_512_b"] {
        let path = folder.join(format!("{name}.mp4"));
        let info = probe(&tools(), &path).unwrap();
        let (index, warnings) = scan_index(&tools(), &info, &ReadOptions::default()).unwrap();
        assert_eq!(times(&index), packet_pts(&path), "{path:?}");
        let video = info.video.as_ref().unwrap();
        assert_eq!(Some(index.len() as u64), video.num_frames, "{path:?}");
        assert!(!index.is_variable_rate() && warnings.is_empty(), "{path:?} {warnings:?}");
        let speech = decode_speech(&tools(), &info).unwrap();
        let gap = (speech.duration().secs() - index.duration().secs()).abs();
        assert!(gap < 0.15, "{path:?}: sound and picture differ by {gap} s");
        assert!(speech.warnings.is_empty(), "{path:?} {:?}", speech.warnings);
    }
}
