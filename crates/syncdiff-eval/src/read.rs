//! What a lip reader reads off a clip.

use std::path::Path;

use burn::tensor::Device;
use syncdiff_face::{Affine, warp};
use syncdiff_media::Frame;
use syncdiff_model::ModelError;
use syncdiff_model::reader::{
    AboutReader, BeamSearch, Dictionary, GridReader, GridSentence, LipReader, LipReaderConfig, grid,
};
use syncdiff_model::scorers::own_syncnet::{MOUTH_LEFT, MOUTH_SIDE, MOUTH_TOP};
use syncdiff_model::video::mouth_tensor;
use syncdiff_model::weights::WeightsFolder;

use crate::error::EvalResult;
use crate::figures::Figures;
use crate::inputs::{ClipInputs, Maybe};
use crate::region::CROP;
use crate::words::EditCounts;

/// Reads words off mouths that come at 25 a second.
pub trait Reader {
    /// What it is, where it comes from, and what its figures can be compared with.
    fn description(&self) -> String;
    /// What it looks at.
    fn window(&self) -> MouthWindow;
    /// Why it has nothing to say of a clip of so many frames in which this is said; `None` where it has.
    fn refusal(&self, said: &str, frames: usize) -> Option<String>;
    /// Whether it is quick enough to read the original beside every clip.
    fn reads_originals(&self) -> bool;
    /// What is said.
    ///
    /// # Errors
    /// No mouths, or those of the network.
    fn read(&self, mouths: &Mouths) -> EvalResult<String>;
}

/// Part of the aligned crop's side that a mouth picture of AV-HuBERT shows: about one distance of the outer eye corners.
const SPAN: f64 = 0.465;
/// Middle of the mouth in the aligned crop, in its sides.
const MIDDLE: [f64; 2] = [0.5, 0.64];
/// Side of the mouth pictures, of which AV-HuBERT takes the middle.
const SIDE: usize = 96;
/// The dictionary beside the weights.
const DICTIONARY: &str = "dict.txt";

/// The large AV-HuBERT reader from imported weights.
pub struct MouthReader {
    reader: LipReader,
    dictionary: Dictionary,
    device: Device,
    weights: String,
}

impl MouthReader {
    /// Reads an imported folder with fairseq's `dict.txt` put into it.
    ///
    /// # Errors
    /// Weights or a dictionary that are absent, damaged or not those of the large reader.
    pub fn load(folder: &Path, device: &Device) -> EvalResult<Self> {
        let path = folder.join(DICTIONARY);
        let text = std::fs::read_to_string(&path).map_err(|error| ModelError::Weights {
            path: path.clone(),
            reason: error.to_string(),
            remedy: "Put the `dict.wrd.txt` that came with the checkpoint there under this name".into(),
        })?;
        let dictionary = Dictionary::parse(&text)?;
        let reader = LipReaderConfig::large(dictionary.len()).init(device)?;
        let reader = WeightsFolder::open(folder)?.load(reader, &LipReader::remap())?;
        Ok(MouthReader { reader, dictionary, device: device.clone(), weights: folder.display().to_string() })
    }
}

impl Reader for MouthReader {
    fn description(&self) -> String {
        format!(
            "AV-HuBERT large, fine-tuned ({}), video only, beam 50. Mouth pictures are cut by this program's alignment \
             instead of the original's landmarks: compare rows of this report with each other rather than with \
             published figures",
            self.weights
        )
    }

    fn window(&self) -> MouthWindow {
        MouthWindow { left: MIDDLE[0] - SPAN / 2.0, top: MIDDLE[1] - SPAN / 2.0, span: SPAN, side: SIDE }
    }

    fn refusal(&self, _: &str, _: usize) -> Option<String> {
        None
    }

    /// It takes as long as all other figures together.
    fn reads_originals(&self) -> bool {
        false
    }

    fn read(&self, mouths: &Mouths) -> EvalResult<String> {
        let pictures = mouth_tensor(&mouths.grey, mouths.frames, SIDE, SIDE, &self.device)?;
        let memory = self.reader.encode(pictures);
        let found = self.reader.beam_search(memory, &BeamSearch::new(mouths.frames))?;
        Ok(found.first().map(|best| self.dictionary.text(&best.tokens)).unwrap_or_default())
    }
}

/// Our own reader of GRID commands, from a file that `syncdiff train reader` wrote.
pub struct OwnReader {
    net: GridReader,
    about: AboutReader,
    device: Device,
}

impl OwnReader {
    /// Reads the file.
    ///
    /// # Errors
    /// A file that is absent, damaged, or holds another network.
    pub fn load(path: &Path, device: &Device) -> EvalResult<Self> {
        let about = GridReader::about(path)?;
        Ok(OwnReader { net: GridReader::load(path, device)?, about, device: device.clone() })
    }
}

impl Reader for OwnReader {
    fn description(&self) -> String {
        let AboutReader { seed, steps, data, .. } = &self.about;
        format!(
            "our own reader of GRID commands: six words of a fixed grammar; only for GRID sentences; compare rows with \
             each other, not with published figures. Seed {seed}, {steps} steps on {data}; it reads the speakers of its \
             training far better than others: see the word error rate of the originals"
        )
    }

    fn window(&self) -> MouthWindow {
        MouthWindow { left: MOUTH_LEFT, top: MOUTH_TOP, span: MOUTH_SIDE, side: grid::PICTURE }
    }

    fn refusal(&self, said: &str, frames: usize) -> Option<String> {
        if GridSentence::parse(said).is_none() {
            return Some("our own reader reads GRID commands only (`bin blue at f two now`)".into());
        }
        let most = grid::MAX_FRAMES;
        (frames > most).then(|| format!("our own reader reads one GRID command of at most {most} frames"))
    }

    fn reads_originals(&self) -> bool {
        true
    }

    fn read(&self, mouths: &Mouths) -> EvalResult<String> {
        Ok(self.net.read(&mouths.grey, &self.device)?.to_string())
    }
}

/// A square part of the aligned crop, in parts of its side, as pictures of `side` pixels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MouthWindow {
    /// Left edge.
    pub left: f64,
    /// Upper edge.
    pub top: f64,
    /// Width and height.
    pub span: f64,
    /// Width and height in pixels.
    pub side: usize,
}

impl MouthWindow {
    /// From frame pixels to those of a mouth picture.
    fn mouth_from_frame(&self, crop_from_frame: &Affine) -> Affine {
        let side = self.side as f64;
        // Pixel centres at integers: crop pixel p lies at (p + 0.5) / CROP of the side.
        let shift = |edge: f64| (0.5 / CROP as f64 - edge) * side / self.span - 0.5;
        crop_from_frame.then(&Affine::scale_shift(side / (CROP as f64 * self.span), shift(self.left), shift(self.top)))
    }
}

/// The mouths of a clip: `side` squared bytes a frame.
#[derive(Clone, Debug, PartialEq)]
pub struct Mouths {
    window: MouthWindow,
    grey: Vec<u8>,
    frames: usize,
}

impl Mouths {
    /// None yet.
    pub fn new(window: MouthWindow) -> Self {
        Self { window, grey: Vec::new(), frames: 0 }
    }

    /// Adds the mouth of a frame; without a face the last mouth is seen again.
    pub fn push(&mut self, frame: &Frame, crop_from_frame: Option<&Affine>) {
        let MouthWindow { side, .. } = self.window;
        match crop_from_frame {
            Some(crop) => self.grey.extend(grey(&warp(frame, &self.window.mouth_from_frame(crop), side))),
            None if self.frames > 0 => self.grey.extend_from_within(self.grey.len() - side * side..),
            None => self.grey.resize(side * side, 0),
        }
        self.frames += 1;
    }
}

/// As OpenCV's `COLOR_BGR2GRAY`.
fn grey(frame: &Frame) -> impl Iterator<Item = u8> + '_ {
    let weigh = |[r, g, b]: &[u8; 3]| 0.299 * f32::from(*r) + 0.587 * f32::from(*g) + 0.114 * f32::from(*b);
    frame.data.as_chunks::<3>().0.iter().map(move |pixel| weigh(pixel).round() as u8)
}

/// Error rates of a clip, and of its original where the reader is quick: `mouths` are of both. Edits against the words
/// that were said; `None` where nothing was read or may be.
///
/// # Errors
/// Those of the reader.
pub(crate) fn word_figures(
    figures: &mut Figures,
    reader: &Maybe<Box<dyn Reader>>,
    inputs: &ClipInputs<'_>,
    mouths: Option<&[Mouths; 2]>,
) -> EvalResult<Option<EditCounts>> {
    const TRUTH: &str = "words.wer_truth";
    let Some(said) = inputs.transcript else { return Ok(None) };
    let read = match (inputs.read, reader, mouths) {
        (Some(read), _, _) => {
            figures.absent.insert(TRUTH.into(), "what was read off the original is not known".into());
            read.to_owned()
        }
        (None, Ok(reader), Some([ours, truth])) => {
            if let Some(reason) = reader.refusal(said, ours.frames) {
                for key in ["words.wer", "words.cer", TRUTH] {
                    figures.absent.insert(key.into(), reason.clone());
                }
                return Ok(None);
            }
            if reader.reads_originals() {
                figures.put(TRUTH, Some(EditCounts::of_words(said, &reader.read(truth)?).rate()));
            } else {
                let reason = "this reader takes too long for it: score the originals against themselves";
                figures.absent.insert(TRUTH.into(), reason.into());
            }
            reader.read(ours)?
        }
        _ => return Ok(None),
    };
    let counts = EditCounts::of_words(said, &read);
    figures.put("words.wer", Some(counts.rate()));
    figures.put("words.cer", Some(EditCounts::of_characters(said, &read).rate()));
    Ok(Some(counts))
}

#[cfg(test)]
mod tests {
    use super::*;

    const AV_HUBERT: MouthWindow =
        MouthWindow { left: MIDDLE[0] - SPAN / 2.0, top: MIDDLE[1] - SPAN / 2.0, span: SPAN, side: SIDE };

    fn own(seed: u64) -> OwnReader {
        let (device, folder) = (Device::flex(), tempfile::tempdir().unwrap());
        device.seed(seed);
        let path = folder.path().join("reader.safetensors");
        let about = AboutReader { seed, steps: 0, data: "nothing".into(), licence: "MIT".into() };
        GridReader::new(&device).save(&path, &about).unwrap();
        OwnReader::load(&path, &device).unwrap()
    }

    #[test]
    fn the_middle_of_the_mouth_is_the_middle_of_the_picture() {
        let map = AV_HUBERT.mouth_from_frame(&Affine::IDENTITY);
        // The place (0.5, 0.64) of a crop of 160 pixels, centres at integers.
        let [x, y] = map.apply([0.5 * 160.0 - 0.5, 0.64 * 160.0 - 0.5]);
        assert!((x - 47.5).abs() < 1e-9 && (y - 47.5).abs() < 1e-9, "{x} {y}");
        assert!((map.scale() - 96.0 / (0.465 * 160.0)).abs() < 1e-9);
    }

    /// Prepared clips hold crops of 128 pixels, of which our reader learns columns 32 to 95 and rows 56 to 119.
    #[test]
    fn our_reader_sees_the_pixels_that_it_learnt_from() {
        let value = |i: usize| ((i / 3 % 200) * 2 + (i / 600) * 3 + i % 3 * 50) as u8;
        let frame = Frame { width: 200, height: 200, data: (0..200 * 200 * 3).map(value).collect() };
        let crop = Affine::scale_shift(0.9, -11.0, -7.0);
        let mut mouths = Mouths::new(own(1).window());
        mouths.push(&frame, Some(&crop));
        let prepared = warp(&frame, &crop.then(&Affine::scale_shift(0.8, -0.1, -0.1)), 128).crop(32, 56, 64, 64);
        assert_eq!(mouths.grey, grey(&prepared).collect::<Vec<u8>>());
    }

    #[test]
    fn frames_without_a_face_repeat_the_last_mouth() {
        let mut mouths = Mouths::new(AV_HUBERT);
        mouths.push(&Frame::filled(8, 8, [9; 3]), None);
        mouths.push(&Frame::filled(8, 8, [200, 100, 50]), Some(&Affine::IDENTITY));
        mouths.push(&Frame::filled(8, 8, [9; 3]), None);
        assert_eq!((mouths.frames, mouths.grey.len()), (3, 3 * 96 * 96));
        assert_eq!([mouths.grey[0], mouths.grey[96 * 96], mouths.grey[2 * 96 * 96]], [0, 124, 124]);
    }

    /// Commands have figures of the clip and of its original; other sentences and long clips none, with the reason.
    #[test]
    fn our_reader_has_figures_of_commands_only() {
        let reader: Box<dyn Reader> = Box::new(own(2));
        let about = reader.description();
        assert!(
            about.starts_with("our own reader of GRID commands: six words") && about.contains("0 steps on nothing")
        );
        let window = reader.window();
        let pictures = |frames: usize, step: usize| {
            let mut mouths = Mouths::new(window);
            for t in 0..frames {
                let grey = [(t * step % 250) as u8; 3];
                mouths.push(&Frame::filled(8, 8, grey), Some(&Affine::IDENTITY));
            }
            mouths
        };
        let truth = pictures(30, 7);
        let said = reader.read(&truth).unwrap();
        let wrong = if said.starts_with("bin") { "lay" } else { "bin" };
        let other = format!("{wrong} {}", said.split_once(' ').unwrap().1);
        let paths = Path::new("clip");
        let reader = Ok(reader);
        let figures_of = |transcript: &str, mouths: &[Mouths; 2]| {
            let transcript = Some(transcript);
            let inputs = ClipInputs { generated: paths, reference: paths, speech: None, transcript, read: None };
            let mut figures = Figures::default();
            let words = word_figures(&mut figures, &reader, &inputs, Some(mouths)).unwrap();
            (figures, words)
        };
        let (figures, words) = figures_of(&other, &[truth.clone(), truth.clone()]);
        assert!((figures.values["words.wer"] - 1.0 / 6.0).abs() < 1e-12, "{figures:?}");
        assert_eq!(figures.values["words.wer"], figures.values["words.wer_truth"]);
        assert_eq!(words.unwrap().reference_length(), 6);
        for (said, mouths) in [("guten abend", truth), (&other[..], pictures(251, 1))] {
            let (figures, words) = figures_of(said, &[mouths.clone(), mouths]);
            assert!(figures.values.is_empty() && words.is_none(), "{figures:?}");
            for key in ["words.wer", "words.cer", "words.wer_truth"] {
                assert!(figures.absent[key].contains("GRID command"), "{figures:?}");
            }
        }
    }
}
