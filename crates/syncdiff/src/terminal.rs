//! What the user sees: progress on the error stream, results on the output stream, errors as cause and remedy.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use serde_json::json;
use syncdiff::Error;
use syncdiff::progress::{Cancel, Stage, Step, Watch};

/// How progress is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum ProgressKind {
    /// A bar on a terminal, one line a stage elsewhere
    #[default]
    Auto,
    /// A bar
    Bar,
    /// JSON lines: start, progress, with a manifest each clip that is done, then success or failure
    Json,
    /// Nothing
    None,
}

impl ProgressKind {
    /// Is every line of the error stream JSON?
    pub(crate) fn is_json(self) -> bool {
        self == ProgressKind::Json
    }
}

/// A line of results. A reader that has gone away is no error.
pub(crate) fn say(text: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{text}");
}

/// A JSON line on the error stream, for `--progress json`.
pub(crate) fn event(value: &serde_json::Value) {
    let _ = writeln!(std::io::stderr().lock(), "{value}");
}

/// Shows an error: the cause on one line, each further clause on its own.
pub(crate) fn show_error(error: &Error, progress: ProgressKind) {
    let message = error.to_string();
    if progress.is_json() {
        let text = format!("failed: {message}");
        event(&json!({"event": "failure", "code": error.exit_code(), "message": message, "text": text}));
        return;
    }
    let _ = writeln!(std::io::stderr().lock(), "error: {}", in_clauses(&message));
}

/// A message for people: the cause on one line, each further clause on its own.
pub(crate) fn in_clauses(message: &str) -> String {
    message.split("; ").collect::<Vec<_>>().join(",\n  ")
}

/// Shows the steps of one job.
pub(crate) struct Display {
    kind: ProgressKind,
    /// Number of the clip, where there are several.
    clip: Option<usize>,
    stage: Option<Stage>,
    stage_start: Instant,
    shown: Option<Instant>,
    line_open: bool,
}

impl Display {
    /// For a kind of progress; `auto` looks whether the error stream is a terminal.
    pub(crate) fn new(kind: ProgressKind) -> Self {
        let kind = match kind {
            ProgressKind::Auto if std::io::stderr().is_terminal() => ProgressKind::Bar,
            kind => kind,
        };
        Display { kind, clip: None, stage: None, stage_start: Instant::now(), shown: None, line_open: false }
    }

    /// For one of several clips, by its number; `alone` if no other is made at the same time.
    pub(crate) fn of_clip(kind: ProgressKind, number: usize, alone: bool) -> Self {
        // The bars of several clips would overwrite each other: people are told of each clip when it is done.
        let kind = if alone || kind.is_json() { kind } else { ProgressKind::None };
        Display { clip: Some(number), ..Display::new(kind) }
    }

    /// A watch that shows every step here.
    pub(crate) fn watch(&mut self, cancel: Cancel) -> Watch<'_> {
        Watch::new(cancel, |step| self.step(step))
    }

    fn step(&mut self, step: Step) {
        let new_stage = self.stage != Some(step.stage);
        if new_stage {
            self.close_line();
            (self.stage, self.stage_start, self.shown) = (Some(step.stage), Instant::now(), None);
        }
        let due = self.shown.is_none_or(|shown| shown.elapsed() > Duration::from_millis(200));
        if !due && step.total != Some(step.done) {
            return;
        }
        self.shown = Some(Instant::now());
        match self.kind {
            ProgressKind::None => {}
            ProgressKind::Auto if new_stage => eprintln!("{} ...", step.stage.text()),
            ProgressKind::Auto => {}
            ProgressKind::Json => event(&step_json(step, self.clip)),
            ProgressKind::Bar => {
                eprint!("\r\x1b[2K{}", bar(step, self.stage_start.elapsed()));
                let _ = std::io::stderr().flush();
                self.line_open = true;
            }
        }
    }

    /// Ends the bar's line.
    fn close_line(&mut self) {
        if self.line_open {
            eprintln!();
            self.line_open = false;
        }
    }
}

impl Drop for Display {
    fn drop(&mut self) {
        self.close_line();
    }
}

fn step_json(step: Step, clip: Option<usize>) -> serde_json::Value {
    let fraction = step.total.map(|total| step.done as f64 / total.max(1) as f64);
    let of = step.total.map(|total| format!(" of {total}")).unwrap_or_default();
    let mut value = json!({
        "event": "progress", "stage": step.stage, "done": step.done, "total": step.total, "fraction": fraction,
        "text": format!("{}: frame {}{of}", step.stage.text(), step.done),
    });
    if let Some(clip) = clip {
        value["clip"] = json!(clip);
    }
    value
}

fn bar(step: Step, spent: Duration) -> String {
    let text = step.stage.text();
    let Some(total) = step.total.filter(|total| *total > 0) else {
        return if step.done > 0 { format!("{text}: frame {}", step.done) } else { format!("{text} ...") };
    };
    const WIDTH: usize = 30;
    let done = step.done.min(total);
    let filled = WIDTH * done / total;
    let left = match done {
        0 => String::new(),
        _ => format!(", {:.0} s left", spent.as_secs_f64() / done as f64 * (total - done) as f64),
    };
    format!("{text} [{}{}] {done}/{total}{left}", "#".repeat(filled), ".".repeat(WIDTH - filled))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bar_tells_part_and_time() {
        let step = Step { stage: Stage::Generate, done: 25, total: Some(100) };
        let text = bar(step, Duration::from_secs(5));
        assert!(text.contains("25/100") && text.contains("15 s left"), "{text}");
        let unknown = Step { stage: Stage::Track, done: 7, total: None };
        assert_eq!(bar(unknown, Duration::ZERO), "finding faces: frame 7");
    }

    #[test]
    fn json_steps_carry_a_fraction_and_a_text() {
        let step = Step { stage: Stage::Track, done: 1, total: Some(4) };
        let value = step_json(step, None);
        assert_eq!((value["stage"].as_str(), value["fraction"].as_f64()), (Some("track"), Some(0.25)));
        assert!(value.get("clip").is_none() && step_json(step, Some(3))["clip"] == 3);
    }
}
