//! A prepared clip: crops, geometry, landmarks, lip opening and speech on the 25 fps time line.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use safetensors::Dtype;
use sha2::{Digest, Sha256};
use syncdiff_face::{Affine, FaceBox, NUM_LANDMARKS};
use syncdiff_media::time::SAMPLES_PER_MODEL_FRAME;

use crate::container::{Array, Container, f32_bytes, f32_values, i16_bytes, i16_values, write_container};
use crate::error::DataError;
use crate::index::ClipEntry;

/// Name and version of the file format.
pub const CLIP_FORMAT: &str = "syncdiff-clip-1";

/// Speech samples in one frame.
pub(crate) const FRAME_SAMPLES: usize = SAMPLES_PER_MODEL_FRAME as usize;

/// What is known of a prepared clip beside its arrays.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClipMeta {
    /// `split/corpus/speaker/name`.
    pub clip: String,
    /// Body of data.
    pub corpus: String,
    /// `train`, `valid`, `test` or another word.
    pub split: String,
    /// Who speaks.
    pub speaker: String,
    /// What is said; may be empty.
    pub transcript: String,
    /// Terms of use; may be empty.
    pub licence: String,
    /// Where it comes from; may be empty.
    pub origin: String,
    /// Frames a second of the source, as a fraction.
    pub source_fps: String,
    /// Picture size of the source, `360x288`.
    pub source_size: String,
    /// Fingerprint of the source file and of all options that shape the result.
    pub fingerprint: String,
}

/// The arrays of a clip of N frames with crops of R x R pixels.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ClipArrays {
    /// R.
    pub crop_size: usize,
    /// u8 [N, R, R, 3]; black where there is no face.
    pub frames: Vec<u8>,
    /// Crop pixels from source pixels, `[N, 2, 3]`; zero where there is no face.
    pub crop_from_frame: Vec<f32>,
    /// Box round the face in source pixels, `[N, 4]`: left, upper, right and lower edge; zero where there is no face.
    pub face_box: Vec<f32>,
    /// Crop pixels, `[N, 468, 2]`; zero where the mesh is missing.
    pub landmarks: Vec<f32>,
    /// Inner-lip opening over the distance of the outer eye corners, `[N]`; zero where missing.
    pub opening: Vec<f32>,
    /// 1 where the frame shows the face, its mesh was found and it was decoded without damage.
    pub valid: Vec<u8>,
    /// 16 kHz mono, N * 640 samples; sample 0 belongs to frame 0.
    pub speech: Vec<i16>,
}

impl ClipArrays {
    /// N.
    pub fn num_frames(&self) -> usize {
        self.valid.len()
    }

    /// SHA-256 over crop size, pixels, landmarks, flags and speech, as hexadecimal digits.
    pub fn content_hash(&self) -> String {
        let mut hash = Sha256::new();
        hash.update((self.crop_size as u64).to_le_bytes());
        hash.update(&self.frames);
        hash.update(f32_bytes(&self.landmarks));
        hash.update(&self.valid);
        hash.update(i16_bytes(&self.speech));
        hex(&hash.finalize())
    }

    fn check(&self) -> Result<(), DataError> {
        let (n, r) = (self.num_frames(), self.crop_size);
        let lengths = [
            ("frames", self.frames.len(), n * r * r * 3),
            ("crop_from_frame", self.crop_from_frame.len(), n * 6),
            ("face_box", self.face_box.len(), n * 4),
            ("landmarks", self.landmarks.len(), n * NUM_LANDMARKS * 2),
            ("opening", self.opening.len(), n),
            ("speech", self.speech.len(), n * FRAME_SAMPLES),
        ];
        for (name, found, expected) in lengths {
            if found != expected || n == 0 || r == 0 {
                let detail = format!("`{name}` has {found} values, expected {expected}");
                return Err(DataError::Internal { stage: "write clip", detail });
            }
        }
        Ok(())
    }

    /// Writes the clip; an existing file is replaced only when the new one is whole. Equal content
    /// gives equal bytes. Returns [`ClipArrays::content_hash`].
    ///
    /// # Errors
    /// [`DataError::Io`], [`DataError::DiskFull`]; [`DataError::Internal`] if the lengths of the
    /// arrays do not fit together.
    pub fn write(&self, path: &Path, meta: &ClipMeta) -> Result<String, DataError> {
        self.check()?;
        let (n, r) = (self.num_frames(), self.crop_size);
        let mut words: BTreeMap<String, String> =
            meta.words().map(|(name, value)| (name.to_owned(), value.clone())).into_iter().collect();
        words.insert("format".into(), CLIP_FORMAT.into());
        words.insert("crop_size".into(), r.to_string());
        let content = self.content_hash();
        words.insert("content".into(), content.clone());
        let matrices = f32_bytes(&self.crop_from_frame);
        let boxes = f32_bytes(&self.face_box);
        let landmarks = f32_bytes(&self.landmarks);
        let opening = f32_bytes(&self.opening);
        let speech = i16_bytes(&self.speech);
        let array = |name, dtype, shape: &[usize], bytes| Array { name, dtype, shape: shape.to_vec(), bytes };
        let arrays = [
            array("crop_from_frame", Dtype::F32, &[n, 2, 3], &matrices[..]),
            array("face_box", Dtype::F32, &[n, 4], &boxes),
            array("landmarks", Dtype::F32, &[n, NUM_LANDMARKS, 2], &landmarks),
            array("opening", Dtype::F32, &[n], &opening),
            array("speech", Dtype::I16, &[n * FRAME_SAMPLES], &speech),
            array("valid", Dtype::U8, &[n], &self.valid),
            array("frames", Dtype::U8, &[n, r, r, 3], &self.frames),
        ];
        write_container(path, &words, &arrays)?;
        Ok(content)
    }
}

impl ClipMeta {
    fn words(&self) -> [(&'static str, &String); 10] {
        [
            ("clip", &self.clip),
            ("corpus", &self.corpus),
            ("split", &self.split),
            ("speaker", &self.speaker),
            ("transcript", &self.transcript),
            ("licence", &self.licence),
            ("origin", &self.origin),
            ("source_fps", &self.source_fps),
            ("source_size", &self.source_size),
            ("fingerprint", &self.fingerprint),
        ]
    }
}

/// A prepared clip in memory.
#[derive(Debug)]
pub struct Clip {
    meta: ClipMeta,
    content: String,
    crop_size: usize,
    num_frames: usize,
    /// The whole file; the pixels are lent from it without a copy.
    bytes: Vec<u8>,
    frames: Range<usize>,
    valid: Range<usize>,
    crop_from_frame: Vec<f32>,
    /// Empty in a clip that was prepared before there were boxes.
    face_box: Vec<f32>,
    landmarks: Vec<f32>,
    opening: Vec<f32>,
    speech: Vec<i16>,
}

impl Clip {
    /// Reads a clip that [`ClipArrays::write`] has written.
    ///
    /// # Errors
    /// [`DataError::Io`]; [`DataError::BadFile`] if it is cut off, of another format, or its arrays
    /// do not fit together.
    pub fn read(path: &Path) -> Result<Self, DataError> {
        Self::from_container(Container::read("read clip", path)?)
    }

    /// Reads a clip from its place in a prepared folder: a file of its own or a stretch of a shard. Its bytes are
    /// compared with the hash in the index, if there is one.
    ///
    /// # Errors
    /// [`DataError::Io`]; [`DataError::BadFile`], which names the clip, if it is cut off, changed or of another format.
    pub fn open(folder: &Path, entry: &ClipEntry) -> Result<Self, DataError> {
        const STAGE: &str = "read clip";
        let bytes = entry.read(STAGE, folder)?;
        let clip = Self::parse(STAGE, &folder.join(&entry.file), bytes)?;
        if clip.num_frames != entry.num_frames || clip.content != entry.content {
            return Err(entry.bad(STAGE, folder, "it is not the clip that the index describes"));
        }
        Ok(clip)
    }

    /// A clip from its bytes; `path` is for messages.
    pub(crate) fn parse(stage: &'static str, path: &Path, bytes: Vec<u8>) -> Result<Self, DataError> {
        Self::from_container(Container::parse(stage, path, bytes)?)
    }

    /// The bytes that it was read from.
    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    fn from_container(file: Container) -> Result<Self, DataError> {
        if file.word("format")? != CLIP_FORMAT {
            let found = file.word("format")?;
            return Err(file.bad(format!("format {found:?}, expected {CLIP_FORMAT:?}")));
        }
        let (_, shape, _) = file.array("frames")?;
        let (num_frames, crop_size) = match *shape {
            [n, height, width, 3] if n > 0 && height == width && width > 0 => (n, width),
            _ => return Err(file.bad(format!("`frames` has the shape {shape:?}"))),
        };
        let n = num_frames;
        let frames = file.expect("frames", Dtype::U8, &[n, crop_size, crop_size, 3])?;
        let valid = file.expect("valid", Dtype::U8, &[n])?;
        let floats = |name: &str, shape: &[usize]| -> Result<Vec<f32>, DataError> {
            let values = f32_values(&file.bytes[file.expect(name, Dtype::F32, shape)?]);
            match values.iter().position(|v| !v.is_finite()) {
                Some(at) => Err(file.bad(format!("value {at} of `{name}` is not finite"))),
                None => Ok(values),
            }
        };
        let crop_from_frame = floats("crop_from_frame", &[n, 2, 3])?;
        let face_box = match file.names().any(|name| name == "face_box") {
            true => floats("face_box", &[n, 4])?,
            false => Vec::new(),
        };
        let landmarks = floats("landmarks", &[n, NUM_LANDMARKS, 2])?;
        let opening = floats("opening", &[n])?;
        let speech = i16_values(&file.bytes[file.expect("speech", Dtype::I16, &[n * FRAME_SAMPLES])?]);
        let word = |name: &str| file.words.get(name).cloned().unwrap_or_default();
        let meta = ClipMeta {
            clip: file.word("clip")?.to_owned(),
            corpus: word("corpus"),
            split: word("split"),
            speaker: word("speaker"),
            transcript: word("transcript"),
            licence: word("licence"),
            origin: word("origin"),
            source_fps: word("source_fps"),
            source_size: word("source_size"),
            fingerprint: word("fingerprint"),
        };
        Ok(Clip {
            meta,
            content: word("content"),
            crop_size,
            num_frames,
            frames,
            valid,
            crop_from_frame,
            face_box,
            landmarks,
            opening,
            speech,
            bytes: file.bytes,
        })
    }

    /// What is known beside the arrays.
    pub fn meta(&self) -> &ClipMeta {
        &self.meta
    }

    /// [`ClipArrays::content_hash`] at the time of writing.
    pub fn content_hash(&self) -> &str {
        &self.content
    }

    /// R, the side of the crops in pixels.
    pub fn crop_size(&self) -> usize {
        self.crop_size
    }

    /// N.
    pub fn num_frames(&self) -> usize {
        self.num_frames
    }

    /// All crops, u8 [N, R, R, 3].
    pub fn frames(&self) -> &[u8] {
        &self.bytes[self.frames.clone()]
    }

    /// One crop, u8 [R, R, 3].
    ///
    /// # Panics
    /// If there is no such frame.
    pub fn frame(&self, frame: usize) -> &[u8] {
        let size = self.crop_size * self.crop_size * 3;
        &self.frames()[frame * size..(frame + 1) * size]
    }

    /// The map from source pixels to crop pixels; `None` where there is no face.
    ///
    /// # Panics
    /// If there is no such frame.
    pub fn crop_from_frame(&self, frame: usize) -> Option<Affine> {
        let m = &self.crop_from_frame[frame * 6..frame * 6 + 6];
        let row = |at: usize| [0, 1, 2].map(|k| f64::from(m[at + k]));
        m.iter().any(|v| *v != 0.0).then(|| Affine { m: [row(0), row(3)] })
    }

    /// The box round the face in source pixels; `None` where there is no face.
    ///
    /// # Errors
    /// [`DataError::Parameter`] for a clip that was prepared before boxes were kept.
    ///
    /// # Panics
    /// If there is no such frame.
    pub fn face_box(&self, frame: usize) -> Result<Option<FaceBox>, DataError> {
        if self.face_box.is_empty() {
            let detail =
                format!("clip {} was prepared without face boxes: prepare it into a new folder", self.meta.clip);
            return Err(DataError::Parameter { stage: "face box", detail });
        }
        let [x0, y0, x1, y1] = [0, 1, 2, 3].map(|k| self.face_box[frame * 4 + k]);
        Ok((x1 > x0).then_some(FaceBox { x0, y0, x1, y1 }))
    }

    /// The 468 landmarks of a frame in crop pixels, `x, y, x, y, ...`; zero where missing.
    ///
    /// # Panics
    /// If there is no such frame.
    pub fn landmarks(&self, frame: usize) -> &[f32] {
        &self.landmarks[frame * NUM_LANDMARKS * 2..(frame + 1) * NUM_LANDMARKS * 2]
    }

    /// Inner-lip opening over eye distance for every frame; zero where missing.
    pub fn opening(&self) -> &[f32] {
        &self.opening
    }

    /// 1 for every frame that may be learned from.
    pub fn valid(&self) -> &[u8] {
        &self.bytes[self.valid.clone()]
    }

    /// 16 kHz mono, `N * 640` samples.
    pub fn speech(&self) -> &[i16] {
        &self.speech
    }

    /// Bytes held in memory.
    pub fn num_bytes(&self) -> usize {
        self.bytes.len() + 4 * (self.landmarks.len() + self.opening.len()) + 2 * self.speech.len()
    }
}

/// Lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A clip whose pixels tell their frame.
    pub(crate) fn arrays(num_frames: usize, crop_size: usize) -> ClipArrays {
        let n = num_frames;
        let pixels = crop_size * crop_size * 3;
        ClipArrays {
            crop_size,
            frames: (0..n * pixels).map(|at| (at / pixels) as u8).collect(),
            crop_from_frame: (0..n * 6).map(|at| at as f32 + 1.0).collect(),
            face_box: (0..n * 4).map(|at| at as f32 + 1.0).collect(),
            landmarks: (0..n * NUM_LANDMARKS * 2).map(|at| at as f32 * 0.5).collect(),
            opening: (0..n).map(|at| at as f32 * 0.01).collect(),
            valid: vec![1; n],
            speech: (0..n * FRAME_SAMPLES).map(|at| at as i16).collect(),
        }
    }

    #[test]
    fn a_clip_survives_the_disk_and_equal_content_gives_equal_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let (a, b) = (folder.path().join("x/a.safetensors"), folder.path().join("b"));
        let arrays = arrays(5, 8);
        let meta =
            ClipMeta { clip: "train/c/s/a".into(), transcript: "näh \"quoted\"\t".into(), ..ClipMeta::default() };
        arrays.write(&a, &meta).unwrap();
        arrays.write(&b, &meta).unwrap();
        assert_eq!(std::fs::read(&a).unwrap(), std::fs::read(&b).unwrap());
        let clip = Clip::read(&a).unwrap();
        assert_eq!(clip.meta(), &meta);
        assert_eq!((clip.num_frames(), clip.crop_size()), (5, 8));
        assert_eq!(clip.frames(), arrays.frames);
        assert_eq!(clip.frame(3), [3; 192]);
        assert_eq!(clip.landmarks(2)[0], (2 * 468 * 2) as f32 * 0.5);
        assert_eq!(clip.opening(), arrays.opening);
        assert_eq!(clip.valid(), [1; 5]);
        assert_eq!(clip.speech(), arrays.speech);
        assert_eq!(clip.crop_from_frame(1).unwrap().m[1], [10.0, 11.0, 12.0]);
        assert_eq!(clip.face_box(1).unwrap(), Some(FaceBox { x0: 5.0, y0: 6.0, x1: 7.0, y1: 8.0 }));
        assert_eq!(clip.content_hash(), arrays.content_hash());
    }

    #[test]
    fn damage_is_named_and_never_a_panic() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        arrays(3, 8).write(&path, &ClipMeta::default()).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        for len in [0, 4, 8, 100, bytes.len() / 2, bytes.len() - 1] {
            std::fs::write(&path, &bytes[..len]).unwrap();
            assert!(matches!(Clip::read(&path), Err(DataError::BadFile { .. })), "{len}");
        }
        let mut huge = bytes.clone();
        huge[..8].copy_from_slice(&u64::MAX.to_le_bytes());
        std::fs::write(&path, &huge).unwrap();
        assert!(matches!(Clip::read(&path), Err(DataError::BadFile { .. })));
        let mut other = bytes;
        let at = other.windows(14).position(|w| w == b"syncdiff-clip-").unwrap();
        other[at + 14] = b'9';
        std::fs::write(&path, &other).unwrap();
        assert!(Clip::read(&path).unwrap_err().to_string().contains("syncdiff-clip-9"));
        let mut wrong = arrays(3, 8);
        wrong.speech.pop();
        let error = wrong.write(&path, &ClipMeta::default()).unwrap_err();
        assert!(matches!(error, DataError::Internal { .. }));
    }
}
