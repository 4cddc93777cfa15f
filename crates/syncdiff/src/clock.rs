//! Where the time goes: seconds by phase of the work.
//!
//! Phases of different frames run at the same time, each on a clock of its thread; their sum may exceed the time from
//! start to end.

use std::time::{Duration, Instant};

/// A phase of the work whose time is reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Waiting for decoded frames, in both passes.
    Decode,
    /// Detecting and following faces.
    Faces,
    /// Decoding and encoding the speech.
    Audio,
    /// Reading the weights.
    Load,
    /// Cutting the aligned crop and hiding the mouth.
    Align,
    /// What the denoiser is told: audio tokens of the frame, and the known pictures behind each other.
    Condition,
    /// Denoising, all steps.
    Denoise,
    /// Autoencoder.
    Autoencoder,
    /// Pasting back.
    Paste,
    /// Handing frames to the encoder, and finishing the file.
    Encode,
}

const NUM_PHASES: usize = 10;

/// Seconds by phase.
#[derive(Clone, Copy, Debug, Default)]
pub struct Clock {
    spent: [Duration; NUM_PHASES],
}

impl Clock {
    /// Does the work and adds its time to the phase.
    pub fn time<T>(&mut self, phase: Phase, work: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        let result = work();
        self.add(phase, start.elapsed());
        result
    }

    /// Adds time to a phase.
    pub fn add(&mut self, phase: Phase, spent: Duration) {
        self.spent[phase as usize] += spent;
    }

    /// Adds the phases of another clock, as of a thread that has ended.
    pub fn merge(&mut self, other: &Clock) {
        for (spent, more) in self.spent.iter_mut().zip(other.spent) {
            *spent += more;
        }
    }

    /// What falls to each of so many who shared the work.
    pub fn share(&self, of: usize) -> Clock {
        Clock { spent: self.spent.map(|spent| spent / of.max(1) as u32) }
    }

    /// Seconds of a phase.
    pub fn secs(&self, phase: Phase) -> f64 {
        self.spent[phase as usize].as_secs_f64()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_add_up_apart() {
        let mut clock = Clock::default();
        assert_eq!(clock.time(Phase::Paste, || 7), 7);
        clock.add(Phase::Encode, Duration::from_millis(1500));
        clock.add(Phase::Encode, Duration::from_millis(500));
        assert_eq!(clock.secs(Phase::Encode), 2.0);
        assert!(clock.secs(Phase::Paste) < 1.0 && clock.secs(Phase::Decode) == 0.0);
        let mut other = Clock::default();
        other.add(Phase::Encode, Duration::from_secs(1));
        clock.merge(&other);
        assert_eq!((clock.secs(Phase::Encode), clock.secs(Phase::Decode)), (3.0, 0.0));
        assert_eq!(clock.share(2).secs(Phase::Encode), 1.5);
    }
}
