//! The first pass from the cache: time stamps, faces and warnings of a clip, about 130 bytes a frame with one face.
//!
//! A clip that was looked at further than a run needs serves it as well: what lies beyond is left out, so that the
//! result is that of a run without a cache. One that was not looked at far enough is looked at again.

use std::path::Path;
use std::time::SystemTime;

use syncdiff_face::{FaceBox, FaceModels, FaceRecord, MODEL_FILES, NUM_RAYS, TrackerOptions};
use syncdiff_media::{FrameIndex, MediaInfo, Rational, ReadOptions, Time, Tools, Warning};

use super::codec::{Bytes, put_count};
use super::{Cache, Kept, Key, Kind};
use crate::cast::Faces;
use crate::clock::{Clock, Phase};
use crate::error::Outcome;
use crate::progress::{Stage, Watch};
use crate::tracking::{self, Tracked, num_looked_at};

/// To be raised with every change of the tracker, of the cuts between shots or of the form of an entry.
const FORMAT: u32 = 2;

/// As [`tracking::track`], which runs only if the cache does not know the clip.
///
/// # Errors
/// As [`tracking::track`].
pub fn track(
    cache: Option<&Cache>,
    tools: &Tools,
    info: &MediaInfo,
    models: &FaceModels,
    read: &ReadOptions,
    needed: Option<Time>,
    clock: &mut Clock,
    watch: &mut Watch<'_>,
) -> Outcome<(Tracked, Option<Kept>)> {
    let before = Stamp::of(&info.path);
    let key = match (cache, before) {
        (Some(_), Some(_)) => clock.time(Phase::Decode, || key(tools, info, read))?,
        _ => None,
    };
    let (tracked, kept) = Cache::find_or_make(
        cache,
        key,
        |bytes| decode(bytes, needed),
        || tracking::track(tools, info, models, read, needed, &mut |_, _, _| {}, clock, watch),
        // What was read while it changed must not be kept under the name of either content.
        |tracked| (Stamp::of(&info.path) == before).then(|| encode(tracked)).flatten(),
    )?;
    if kept == Some(Kept::Found) {
        let frames = tracked.faces.num_frames();
        watch.step(Stage::Track, frames, Some(frames))?;
    }
    Ok((tracked, kept))
}

/// Size and age of a file; a change of its content shows here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp(u64, SystemTime);

impl Stamp {
    /// None for what is no file, such as a pipe, which can be read once only.
    fn of(path: &Path) -> Option<Self> {
        let about = std::fs::metadata(path).ok().filter(std::fs::Metadata::is_file)?;
        Some(Stamp(about.len(), about.modified().ok()?))
    }
}

/// All that the first pass depends on, but for how far it goes; none if the file cannot be read.
fn key(tools: &Tools, info: &MediaInfo, read: &ReadOptions) -> Outcome<Option<Key>> {
    let versions = tools.check()?;
    let mut key = Key::new(Kind::Tracks, FORMAT)
        .with(versions.ffmpeg)
        .with(versions.ffprobe)
        .with(format!("{:?}", TrackerOptions::default()))
        .with(read.still_rate.to_string());
    for file in MODEL_FILES {
        key = key.with(file.sha256);
    }
    Ok(key.with_file(&info.path).ok())
}

fn encode(tracked: &Tracked) -> Option<Vec<u8>> {
    let Tracked { index, faces, warnings } = tracked;
    let warnings = serde_json::to_vec(warnings).ok()?;
    let mut bytes = Vec::new();
    let (base, (width, height)) = (index.time_base(), faces.size());
    put_count(&mut bytes, width);
    put_count(&mut bytes, height);
    for value in [base.num, base.den, i64::from(index.is_still()), index.duration_of(index.len() - 1)] {
        bytes.extend(value.to_le_bytes());
    }
    put_count(&mut bytes, index.len());
    for frame in 0..index.len() {
        bytes.extend(index.pts(frame).to_le_bytes());
    }
    let mut found: Vec<Vec<(u32, &FaceRecord)>> = vec![Vec::new(); faces.num_frames()];
    for (first, track) in faces.tracks() {
        for (frame, record) in track.iter() {
            found.get_mut(first + frame)?.push((track.id(), record));
        }
    }
    let cuts = faces.cuts();
    put_count(&mut bytes, found.len());
    for (frame, faces) in found.iter().enumerate() {
        bytes.push(u8::from(cuts.binary_search(&frame).is_ok()));
        bytes.extend(u32::try_from(faces.len()).ok()?.to_le_bytes());
        for (track, record) in faces {
            bytes.extend(track.to_le_bytes());
            let FaceRecord {
                centre: [x, y],
                side_px,
                angle,
                face_box,
                lip_opening,
                eye_distance_px,
                presence,
                outline,
            } = **record;
            let FaceBox { x0, y0, x1, y1 } = face_box;
            let values = [x, y, side_px, angle, x0, y0, x1, y1, lip_opening, eye_distance_px, presence];
            for value in values.into_iter().chain(outline) {
                bytes.extend(value.to_le_bytes());
            }
        }
    }
    bytes.extend(warnings);
    Some(bytes)
}

/// None for an entry that makes no sense or does not reach far enough.
fn decode(bytes: &[u8], needed: Option<Time>) -> Option<Tracked> {
    let mut bytes = Bytes(bytes);
    let size = [bytes.i64()?, bytes.i64()?].map(usize::try_from);
    let [Ok(width), Ok(height)] = size else { return None };
    let base = (bytes.i64()?, bytes.i64()?);
    if base.0 < 1 || base.1 < 1 {
        return None;
    }
    let base = Rational::new(base.0, base.1);
    let (still, last_duration) = (bytes.i64()? != 0, bytes.i64()?);
    let pts: Vec<i64> = (0..bytes.count(8)?).map(|_| bytes.i64()).collect::<Option<_>>()?;
    let index = match still {
        true => FrameIndex::still(base.recip()).ok()?,
        false => FrameIndex::new(base, pts, last_duration).ok()?,
    };
    let (looked_at, wanted) = (bytes.count(5)?, num_looked_at(&index, needed));
    if looked_at < wanted || looked_at > index.len() {
        return None;
    }
    let mut faces = Faces::new(width, height);
    for frame in 0..looked_at {
        let cut = bytes.u8()? != 0;
        let found: Vec<(u32, FaceRecord)> = (0..bytes.u32()?).map(|_| face(&mut bytes)).collect::<Option<_>>()?;
        if frame < wanted {
            faces.push_records(cut, found);
        }
    }
    let warnings: Vec<Warning> = serde_json::from_slice(bytes.0).ok()?;
    Some(Tracked { index, faces, warnings })
}

fn face(bytes: &mut Bytes<'_>) -> Option<(u32, FaceRecord)> {
    let track = bytes.u32()?;
    let (mut values, mut outline) = ([0.0; 11], [0.0; NUM_RAYS]);
    for value in values.iter_mut().chain(&mut outline) {
        *value = bytes.f32()?;
    }
    let [x, y, side_px, angle, x0, y0, x1, y1, lip_opening, eye_distance_px, presence] = values;
    let face_box = FaceBox { x0, y0, x1, y1 };
    Some((
        track,
        FaceRecord { centre: [x, y], side_px, angle, face_box, lip_opening, eye_distance_px, presence, outline },
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAMES: usize = 60;

    fn record(frame: usize, track: u32) -> FaceRecord {
        let at = frame as f32 + track as f32 / 3.0;
        FaceRecord {
            centre: [at, at / 7.0],
            side_px: 90.0 + at,
            angle: -0.1 * at,
            face_box: FaceBox { x0: at, y0: -at, x1: at + 50.3, y1: at + 60.1 },
            lip_opening: at / 100.0,
            eye_distance_px: 40.0 + at,
            presence: 12.5,
            outline: std::array::from_fn(|ray| at + ray as f32),
        }
    }

    /// Two faces, one of which is not always there, and a cut; looked at up to a frame.
    fn tracked(looked_at: usize) -> Tracked {
        let mut faces = Faces::new(640, 360);
        for frame in 0..looked_at {
            let shot = u32::from(frame >= 40);
            let mut found = vec![(shot, record(frame, shot))];
            if !(20..30).contains(&frame) {
                found.push((7, record(frame, 7)));
            }
            faces.push_records(frame == 40, found);
        }
        let pts = (0..FRAMES as i64).map(|frame| 3 + frame * 40).collect();
        let index = FrameIndex::new(Rational::new(1, 1000), pts, 33).unwrap();
        let warnings = vec![
            Warning::DamagedFrame { frame: 3, detail: "a \"word\"".into() },
            Warning::EarlyEnd { frames: 60, end_ms: 2400, promised_ms: 3000 },
        ];
        Tracked { index, faces, warnings }
    }

    fn assert_same(a: &Tracked, b: &Tracked) {
        assert_eq!((&a.index, &a.warnings), (&b.index, &b.warnings));
        assert_eq!((a.faces.num_frames(), a.faces.size()), (b.faces.num_frames(), b.faces.size()));
        assert_eq!(a.faces.cuts(), b.faces.cuts());
        assert!(a.faces.tracks().eq(b.faces.tracks()));
    }

    #[test]
    fn an_entry_gives_back_every_bit() {
        let whole = tracked(FRAMES);
        assert_same(&decode(&encode(&whole).unwrap(), None).unwrap(), &whole);
        let index = FrameIndex::still(Rational::new(30_000, 1001)).unwrap();
        let mut faces = Faces::new(8, 9);
        faces.push_records(false, []);
        let still = Tracked { index, faces, warnings: vec![] };
        assert_same(&decode(&encode(&still).unwrap(), None).unwrap(), &still);
    }

    #[test]
    fn a_shorter_run_gets_what_it_would_have_looked_at_itself() {
        let whole = encode(&tracked(FRAMES)).unwrap();
        // Half a second, and the margin of one: frame 38 is the first beyond it.
        let needed = Some(Time::from_samples(8000));
        let found = decode(&whole, needed).unwrap();
        assert_same(&found, &tracked(39));
        assert_same(&decode(&encode(&tracked(39)).unwrap(), needed).unwrap(), &found);
        assert!(decode(&encode(&tracked(38)).unwrap(), needed).is_none());
        assert!(decode(&encode(&tracked(39)).unwrap(), None).is_none());
    }

    #[test]
    fn no_nonsense_is_believed() {
        let whole = encode(&tracked(FRAMES)).unwrap();
        for len in 0..whole.len() {
            assert!(decode(&whole[..len], None).is_none(), "{len} bytes");
        }
        // Any value may be wrong: no panic, no endless memory.
        for at in 0..whole.len() {
            for value in [0, 0x7f, 0xff] {
                let mut bytes = whole.clone();
                bytes[at] = value;
                let _ = decode(&bytes, None);
            }
        }
        let size = whole.len() - serde_json::to_vec(&tracked(1).warnings).unwrap().len();
        // A face takes its track and 28 numbers; one of the two is missing in ten frames.
        assert_eq!(size, 8 * (2 + 4 + 1 + FRAMES + 1) + 5 * FRAMES + (2 * FRAMES - 10) * (4 + 28 * 4));
    }
}
