//! How a long job tells where it is, and how it is told to stop.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::{Error, Outcome};

/// A part of the work that takes long enough to be shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Reading the clip and following its faces.
    Track,
    /// Reading the weights.
    Load,
    /// Encoding the speech.
    Speech,
    /// Making the frames of the output.
    Generate,
}

impl Stage {
    /// The words shown to people.
    pub fn text(self) -> &'static str {
        match self {
            Stage::Track => "finding faces",
            Stage::Load => "loading the model",
            Stage::Speech => "encoding the speech",
            Stage::Generate => "generating frames",
        }
    }
}

/// Where the work is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// The part.
    pub stage: Stage,
    /// Frames done; 0 at its start.
    pub done: usize,
    /// Frames in all, where that is known.
    pub total: Option<usize>,
}

/// A wish to stop that any thread may raise.
#[derive(Clone, Debug, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// Raises the wish.
    pub fn raise(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    /// Ends the work if the wish was raised.
    ///
    /// # Errors
    /// [`Error::Cancelled`].
    pub fn check(&self) -> Outcome<()> {
        if self.0.load(Ordering::SeqCst) { Err(Error::Cancelled) } else { Ok(()) }
    }
}

/// The line to whoever started the work: steps go up, the wish to stop comes down.
pub struct Watch<'a> {
    show: Box<dyn FnMut(Step) + 'a>,
    cancel: Cancel,
}

impl<'a> Watch<'a> {
    /// Shows every step with `show`.
    pub fn new(cancel: Cancel, show: impl FnMut(Step) + 'a) -> Self {
        Watch { show: Box::new(show), cancel }
    }

    /// Nobody looks and nobody stops it.
    pub fn silent() -> Self {
        Watch::new(Cancel::default(), |_| {})
    }

    /// Tells a step.
    ///
    /// # Errors
    /// [`Error::Cancelled`] when the wish to stop was raised.
    pub fn step(&mut self, stage: Stage, done: usize, total: Option<usize>) -> Outcome<()> {
        self.cancel.check()?;
        (self.show)(Step { stage, done, total });
        Ok(())
    }

    /// Ends the work if the wish to stop was raised.
    ///
    /// # Errors
    /// [`Error::Cancelled`].
    pub fn check(&self) -> Outcome<()> {
        self.cancel.check()
    }

    /// The wish to stop, for other threads.
    pub fn cancel(&self) -> Cancel {
        self.cancel.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_raised_wish_ends_the_next_step() {
        let cancel = Cancel::default();
        let mut seen = 0;
        let mut watch = Watch::new(cancel.clone(), |step| seen = step.done);
        assert!(watch.step(Stage::Track, 3, None).is_ok());
        cancel.raise();
        assert!(matches!(watch.step(Stage::Track, 4, None), Err(Error::Cancelled)));
        drop(watch);
        assert_eq!(seen, 3);
    }
}
