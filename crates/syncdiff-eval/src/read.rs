//! What a lip reader reads off a clip.

use std::path::Path;

use burn::tensor::Device;
use syncdiff_face::{Affine, warp};
use syncdiff_media::Frame;
use syncdiff_model::ModelError;
use syncdiff_model::reader::{BeamSearch, Dictionary, LipReader, LipReaderConfig};
use syncdiff_model::video::mouth_tensor;
use syncdiff_model::weights::WeightsFolder;

use crate::error::EvalResult;
use crate::region::CROP;

/// Side of the mouth pictures, of which the reader takes the middle.
const SIDE: usize = 96;
/// Part of the aligned crop's side that a mouth picture shows: about one distance of the outer eye corners, as
/// pictures of AV-HuBERT do.
const SPAN: f64 = 0.465;
/// Middle of the mouth in the aligned crop, in its sides.
const MIDDLE: [f64; 2] = [0.5, 0.64];
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

    /// What it is, and how its pictures differ from the original's.
    pub fn description(&self) -> String {
        format!(
            "AV-HuBERT large, fine-tuned ({}), video only, beam 50. Mouth pictures are cut by this program's alignment \
             instead of the original's landmarks: compare rows of this report with each other rather than with \
             published figures",
            self.weights
        )
    }

    /// What is said, by the mouths of a clip at 25 pictures a second.
    ///
    /// # Errors
    /// No pictures, or those of the network.
    pub fn read(&self, mouths: &Mouths) -> EvalResult<String> {
        let pictures = mouth_tensor(&mouths.grey, mouths.frames, SIDE, SIDE, &self.device)?;
        let memory = self.reader.encode(pictures);
        let found = self.reader.beam_search(memory, &BeamSearch::new(mouths.frames))?;
        Ok(found.first().map(|best| self.dictionary.text(&best.tokens)).unwrap_or_default())
    }
}

/// The mouths of a clip: 9 KB a frame.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mouths {
    grey: Vec<u8>,
    frames: usize,
}

impl Mouths {
    /// Adds the mouth of a frame; without a face the last mouth is seen again.
    pub fn push(&mut self, frame: &Frame, crop_from_frame: Option<&Affine>) {
        match crop_from_frame {
            Some(crop) => self.grey.extend(grey(&warp(frame, &mouth_from_frame(crop), SIDE))),
            None if self.frames > 0 => self.grey.extend_from_within(self.grey.len() - SIDE * SIDE..),
            None => self.grey.extend([0; SIDE * SIDE]),
        }
        self.frames += 1;
    }
}

/// From frame pixels to those of a mouth picture.
fn mouth_from_frame(crop_from_frame: &Affine) -> Affine {
    let scale = SIDE as f64 / (CROP as f64 * SPAN);
    // Pixel centres at integers: crop pixel p lies at (p + 0.5) / CROP of the side.
    let shift = |middle: f64| (0.5 / CROP as f64 - (middle - SPAN / 2.0)) * SIDE as f64 / SPAN - 0.5;
    crop_from_frame.then(&Affine::scale_shift(scale, shift(MIDDLE[0]), shift(MIDDLE[1])))
}

/// As OpenCV's `COLOR_BGR2GRAY`.
fn grey(frame: &Frame) -> impl Iterator<Item = u8> + '_ {
    let weigh = |[r, g, b]: &[u8; 3]| 0.299 * f32::from(*r) + 0.587 * f32::from(*g) + 0.114 * f32::from(*b);
    frame.data.as_chunks::<3>().0.iter().map(move |pixel| weigh(pixel).round() as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_of_the_mouth_is_the_middle_of_the_picture() {
        let map = mouth_from_frame(&Affine::IDENTITY);
        // The place (0.5, 0.64) of a crop of 160 pixels, centres at integers.
        let [x, y] = map.apply([0.5 * 160.0 - 0.5, 0.64 * 160.0 - 0.5]);
        assert!((x - 47.5).abs() < 1e-9 && (y - 47.5).abs() < 1e-9, "{x} {y}");
        assert!((map.scale() - 96.0 / (0.465 * 160.0)).abs() < 1e-9);
    }

    #[test]
    fn frames_without_a_face_repeat_the_last_mouth() {
        let mut mouths = Mouths::default();
        mouths.push(&Frame::filled(8, 8, [9; 3]), None);
        mouths.push(&Frame::filled(8, 8, [200, 100, 50]), Some(&Affine::IDENTITY));
        mouths.push(&Frame::filled(8, 8, [9; 3]), None);
        assert_eq!((mouths.frames, mouths.grey.len()), (3, 3 * 96 * 96));
        assert_eq!([mouths.grey[0], mouths.grey[96 * 96], mouths.grey[2 * 96 * 96]], [0, 124, 124]);
    }
}
