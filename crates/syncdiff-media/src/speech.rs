//! stub
use crate::{MediaError, MediaInfo, Time, Tools, Warning};
/// The 16 kHz mono copy of the sound that the model hears.
#[derive(Clone, Debug)]
pub struct Speech {
    /// 16 kHz, mono.
    pub samples: Vec<i16>,
    /// What went wrong without ending the work.
    pub warnings: Vec<Warning>,
}
impl Speech {
    /// Its length.
    pub fn duration(&self) -> Time { Time::from_samples(self.samples.len() as i64) }
}
/// Decodes the sound of a probed file.
pub fn decode_speech(_tools: &Tools, _info: &MediaInfo) -> Result<Speech, MediaError> { unimplemented!() }
