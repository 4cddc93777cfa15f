//! What the renderer asks of a model: one crop after the other, each drawn after its predecessor.

use syncdiff_face::KeepMaskKind;
use syncdiff_media::Frame;

use crate::clock::Clock;
use crate::error::Outcome;

/// A model that can draw speaking mouths. The speech is part of it already.
pub trait MouthModel {
    /// Side of its square crops in pixels.
    fn crop_size(&self) -> usize;

    /// What it must not see.
    fn keep_mask(&self) -> KeepMaskKind;

    /// Begins a sequence of one person in one shot, given an aligned crop with nothing hidden.
    ///
    /// # Errors
    /// Those of the network.
    fn start(&self, identity: &Frame) -> Outcome<Box<dyn MouthSequence + '_>>;
}

/// The frames of one person in one shot; each is drawn knowing the last.
pub trait MouthSequence {
    /// Draws the crop of a model frame from what is left visible of it.
    ///
    /// # Errors
    /// Those of the network.
    fn next(&mut self, masked: &Frame, model_frame: usize, clock: &mut Clock) -> Outcome<Frame>;

    /// Forgets the last frame: what comes does not continue it.
    fn restart(&mut self);
}
