//! Which clips a batch waits for: those that came back quickly the last time, and no longer than a batch takes from when
//! they were answered. Who begins apart therefore meets; who is slow is not waited for, and who has a stretch without a
//! face is waited for once.

use std::collections::HashMap;
use std::time::{Duration, Instant};

/// Who has asked, and who is expected to ask again.
pub(super) struct Rota {
    seats: HashMap<usize, Turn>,
    /// How long somebody who has been answered is expected: what the last batch took, `least` at least.
    patience: Duration,
    least: Duration,
}

enum Turn {
    /// Is in the batch that is gathered; asked quickly or not.
    Asked { quick: bool },
    /// Was answered then, having asked quickly or not.
    Answered { quick: bool, at: Instant },
}

impl Rota {
    pub(super) fn new(least: Duration) -> Self {
        Rota { seats: HashMap::new(), patience: least, least }
    }

    /// This seat has asked for a place in the next batch. Who is new is taken for quick.
    pub(super) fn asked(&mut self, seat: usize, at: Instant) {
        let quick = match self.seats.get(&seat) {
            Some(Turn::Answered { at: answered, .. }) => at.saturating_duration_since(*answered) <= self.patience,
            Some(Turn::Asked { quick }) => *quick,
            None => true,
        };
        self.seats.insert(seat, Turn::Asked { quick });
    }

    /// The batch of all who had asked was worked on from `start` to `end`.
    pub(super) fn answered(&mut self, start: Instant, end: Instant) {
        self.patience = self.least.max(end.saturating_duration_since(start));
        for turn in self.seats.values_mut() {
            if let Turn::Asked { quick } = *turn {
                *turn = Turn::Answered { quick, at: end };
            }
        }
    }

    /// This seat will not ask again.
    pub(super) fn left(&mut self, seat: usize) {
        self.seats.remove(&seat);
    }

    /// How long somebody is still expected; `None` where nobody is.
    pub(super) fn wait(&self, now: Instant) -> Option<Duration> {
        let expected = self.seats.values().filter_map(|turn| match turn {
            Turn::Answered { quick: true, at } => (*at + self.patience).checked_duration_since(now),
            Turn::Answered { quick: false, .. } | Turn::Asked { .. } => None,
        });
        expected.max().filter(|wait| !wait.is_zero())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A rota whose times are milliseconds.
    struct Clocked(Rota, Instant);

    impl Clocked {
        fn new() -> Self {
            Clocked(Rota::new(Duration::ZERO), Instant::now())
        }

        fn at(&self, ms: u64) -> Instant {
            self.1 + Duration::from_millis(ms)
        }

        fn asked(&mut self, seat: usize, ms: u64) {
            self.0.asked(seat, self.at(ms));
        }

        fn answered(&mut self, start: u64, end: u64) {
            self.0.answered(self.at(start), self.at(end));
        }

        fn wait(&self, ms: u64) -> Option<u64> {
            self.0.wait(self.at(ms)).map(|wait| u64::try_from(wait.as_millis()).unwrap())
        }
    }

    #[test]
    fn the_first_batch_waits_for_nobody() {
        let mut rota = Clocked::new();
        assert_eq!(rota.wait(0), None);
        rota.asked(1, 0);
        assert_eq!(rota.wait(0), None);
    }

    #[test]
    fn who_was_answered_is_expected_for_as_long_as_a_batch_takes() {
        let mut rota = Clocked::new();
        rota.asked(1, 0);
        rota.answered(0, 100);
        rota.asked(2, 50);
        assert_eq!([100, 130, 199].map(|ms| rota.wait(ms)), [Some(100), Some(70), Some(1)]);
        assert_eq!([200, 900].map(|ms| rota.wait(ms)), [None, None]);
        rota.asked(1, 130);
        assert_eq!(rota.wait(130), None, "all are here");
    }

    #[test]
    fn who_asks_while_the_others_are_drawn_is_quick() {
        let mut rota = Clocked::new();
        rota.asked(1, 0);
        rota.answered(0, 100);
        // The batch of the second takes until 200; the first asked at 105 and is heard of afterwards.
        rota.asked(2, 50);
        rota.answered(100, 200);
        rota.asked(1, 105);
        assert_eq!(rota.wait(200), Some(100), "the second is expected");
        rota.asked(2, 205);
        rota.answered(205, 305);
        assert_eq!(rota.wait(305), Some(100), "both are expected");
    }

    #[test]
    fn who_was_slow_is_not_expected_until_quick_again() {
        let mut rota = Clocked::new();
        rota.asked(1, 0);
        rota.answered(0, 100);
        rota.asked(1, 500);
        rota.answered(500, 600);
        assert_eq!(rota.wait(600), None);
        rota.asked(1, 610);
        rota.answered(610, 710);
        assert_eq!(rota.wait(710), Some(100));
    }

    #[test]
    fn who_has_left_is_not_expected() {
        let mut rota = Clocked::new();
        rota.asked(1, 0);
        rota.asked(2, 0);
        rota.answered(0, 100);
        rota.0.left(1);
        assert_eq!(rota.wait(100), Some(100));
        rota.0.left(2);
        assert_eq!(rota.wait(100), None);
    }
}
