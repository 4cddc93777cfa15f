//! Hard cuts.
use syncdiff_media::Frame;
/// Tells whether a frame follows a hard cut.
pub struct CutDetector;
impl CutDetector {
    /// A fresh detector.
    pub fn new() -> Self { unimplemented!() }
    /// Shows the next frame; true if it is not a continuation of the last.
    pub fn push(&mut self, _frame: &Frame) -> bool { unimplemented!() }
}
