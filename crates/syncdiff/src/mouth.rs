//! What the renderer asks of a model: to look at crops ahead, to draw one mouth after the other, to show it.

use syncdiff_face::KeepMaskKind;
use syncdiff_media::Frame;

use crate::clock::Clock;
use crate::error::Outcome;

/// A model that can draw speaking mouths. The speech is part of it already.
///
/// A frame takes three steps, each on a thread of its own: [`MouthModel::look`] ahead, [`MouthSequence::draw`] in
/// order, [`MouthModel::picture`] behind.
pub trait MouthModel: Sync {
    /// A masked crop and its moment, understood.
    type Seen: Send;
    /// A mouth before it is a picture.
    type Drawn: Send;

    /// Side of its square crops in pixels.
    fn crop_size(&self) -> usize;

    /// What it must not see.
    fn keep_mask(&self) -> KeepMaskKind;

    /// Whether [`MouthSequence::draw`] only waits for another thread that computes.
    fn draws_elsewhere(&self) -> bool {
        false
    }

    /// Understands what is left visible of some crops, each with its model frame; `clock` gets the time.
    ///
    /// # Errors
    /// Those of the network.
    fn look(&self, masked: &[(Frame, usize)], clock: &mut Clock) -> Outcome<Vec<Self::Seen>>;

    /// Begins a sequence of one person in one shot, given an aligned crop with nothing hidden.
    ///
    /// # Errors
    /// Those of the network.
    fn start(&self, identity: &Frame) -> Outcome<Box<dyn MouthSequence<Self> + '_>>;

    /// The crop of a drawn mouth.
    ///
    /// # Errors
    /// Those of the network.
    fn picture(&self, drawn: Self::Drawn) -> Outcome<Frame>;
}

/// The frames of one person in one shot; each is drawn knowing the last.
pub trait MouthSequence<M: MouthModel + ?Sized> {
    /// Draws the next mouth.
    ///
    /// # Errors
    /// Those of the network.
    fn draw(&mut self, seen: M::Seen, clock: &mut Clock) -> Outcome<M::Drawn>;

    /// Forgets the last frame: what comes does not continue it.
    fn restart(&mut self);
}
