//! Child processes under control: no shell, argument arrays only, bounded time and bounded output.
//!
//! This is the only place of the project that starts a process.

use std::ffi::OsStr;
use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::error::MediaError;

/// Bounds of one child process.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Longest time from start to end.
    pub wall: Duration,
    /// Longest time without a byte of output.
    pub idle: Duration,
    /// Most bytes kept of the standard output; more is an error.
    pub stdout_bytes: usize,
}

impl Default for Limits {
    /// 60 s in all, 30 s without output, 16 MiB of output.
    fn default() -> Self {
        Limits { wall: Duration::from_secs(60), idle: Duration::from_secs(30), stdout_bytes: 16 << 20 }
    }
}

/// What a finished child process left.
#[derive(Clone, Debug)]
pub struct Output {
    /// Did it end with status 0?
    pub success: bool,
    /// Its exit code; none if a signal ended it.
    pub code: Option<i32>,
    /// Its standard output.
    pub stdout: Vec<u8>,
    /// The first and last part of its standard error.
    pub stderr: String,
}

/// Runs a program to its end, with an empty standard input.
///
/// Arguments are passed as they are; no shell reads them. The child is killed when a bound is
/// passed.
///
/// # Errors
/// [`MediaError::ToolMissing`], [`MediaError::Timeout`], [`MediaError::ToolFailed`] when the output
/// is larger than the limit. An exit code other than 0 is no error here: see [`Output::success`].
pub fn run<I, S>(program: &Path, args: I, limits: &Limits) -> Result<Output, MediaError>
where
    I: IntoIterator<Item = S>,
    S: AsRef<OsStr>,
{
    let mut stdout = Vec::new();
    let mut output = run_into(program, args, limits, |chunk| stdout.extend_from_slice(chunk))?;
    output.stdout = stdout;
    Ok(output)
}

/// [`run`] that hands the standard output to a sink piece by piece instead of keeping it.
pub(crate) fn run_into<I, S>(
    program: &Path,
    args: I,
    limits: &Limits,
    mut sink: impl FnMut(&[u8]),
) -> Result<Output, MediaError>
where
    I: IntoIterator<Item = S>,
    S: AsRef<OsStr>,
{
    const STAGE: &str = "run";
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null());
    let mut child = Guarded::spawn(command, program)?;
    let stderr = StderrLog::follow(&mut child.child, |_| {});
    let mut pipe = child
        .child
        .stdout
        .take()
        .ok_or_else(|| MediaError::Internal { stage: STAGE, detail: "the child has no output pipe".into() })?;
    let (sender, receiver) = mpsc::sync_channel::<Vec<u8>>(4);
    // Detached: after a kill a grandchild may still hold the pipe, and nobody waits for it.
    std::thread::spawn(move || {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(count) = pipe.read(&mut buffer) {
            if count == 0 || sender.send(buffer[..count].to_vec()).is_err() {
                break;
            }
        }
    });
    let start = Instant::now();
    let timeout =
        |limit: Duration| MediaError::Timeout { stage: STAGE, program: program.to_path_buf(), secs: limit.as_secs() };
    let mut received = 0;
    loop {
        let left = limits.wall.saturating_sub(start.elapsed());
        match receiver.recv_timeout(left.min(limits.idle)) {
            Ok(chunk) => {
                received += chunk.len();
                if received > limits.stdout_bytes {
                    return Err(MediaError::ToolFailed {
                        stage: STAGE,
                        program: program.to_path_buf(),
                        status: "stopped".into(),
                        detail: format!("it wrote more than {} bytes", limits.stdout_bytes),
                    });
                }
                sink(&chunk);
            }
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => return Err(timeout(limits.wall.min(limits.idle))),
        }
    }
    let left = limits.wall.saturating_sub(start.elapsed());
    let status = child.wait_for(left).ok_or_else(|| timeout(limits.wall))?;
    let (success, code) = (status.success(), status.code());
    Ok(Output { success, code, stdout: Vec::new(), stderr: stderr.text() })
}

/// A child process that is killed and reaped when dropped.
pub(crate) struct Guarded {
    pub(crate) child: Child,
}

impl Guarded {
    /// Starts a program with piped output and error, in a process group of its own, so that an
    /// interrupt from the keyboard reaches this program first and clean-up stays in one hand.
    pub(crate) fn spawn(mut command: Command, program: &Path) -> Result<Self, MediaError> {
        command.env("AV_LOG_FORCE_NOCOLOR", "1").env("LC_ALL", "C");
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        Self::spawn_as_is(command, program)
    }

    fn spawn_as_is(mut command: Command, program: &Path) -> Result<Self, MediaError> {
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        match command.spawn() {
            Ok(child) => Ok(Guarded { child }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                Err(MediaError::ToolMissing { program: program.to_path_buf() })
            }
            Err(error) => Err(MediaError::io("start", program, error)),
        }
    }

    /// Waits for the end; none if it has not ended in that time (and then it still runs).
    pub(crate) fn wait_for(&mut self, limit: Duration) -> Option<ExitStatus> {
        let start = Instant::now();
        let mut pause = Duration::from_micros(200);
        loop {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Some(status);
            }
            if start.elapsed() >= limit {
                return None;
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(20));
        }
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        // Both fail only if the child has ended and been reaped already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A program that works beside this one, and is ended when this value goes.
///
/// Its messages go where this program's go; its standard output goes nowhere. It has a process group of its own, so
/// that an interrupt from the keyboard reaches this program, which decides.
pub struct Companion {
    _child: Guarded,
}

impl Companion {
    /// Starts it, with an empty standard input.
    ///
    /// # Errors
    /// [`MediaError::ToolMissing`], [`MediaError::Io`].
    pub fn start<I, S>(program: &Path, args: I) -> Result<Self, MediaError>
    where
        I: IntoIterator<Item = S>,
        S: AsRef<OsStr>,
    {
        let mut command = Command::new(program);
        command.args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::inherit());
        Ok(Self { _child: Guarded::spawn_as_is(command, program)? })
    }
}

/// The exit status in words.
pub(crate) fn status_text(status: ExitStatus) -> String {
    match status.code() {
        Some(code) => format!("exit code {code}"),
        None => "ended by a signal".into(),
    }
}

/// Most bytes kept from the begin and from the end of a child's messages.
const KEPT_BYTES: usize = 8 << 10;

/// Follows a child's standard error in a thread, keeps a bounded part, and shows every line to an
/// observer.
pub(crate) struct StderrLog {
    kept: Arc<Mutex<Kept>>,
    ended: mpsc::Receiver<()>,
}

#[derive(Default)]
struct Kept {
    first: Vec<String>,
    first_bytes: usize,
    last: std::collections::VecDeque<String>,
    last_bytes: usize,
}

impl Kept {
    fn push(&mut self, line: String) {
        if self.last.is_empty() && self.first_bytes + line.len() <= KEPT_BYTES {
            self.first_bytes += line.len();
            self.first.push(line);
            return;
        }
        self.last_bytes += line.len();
        self.last.push_back(line);
        while self.last_bytes > KEPT_BYTES {
            match self.last.pop_front() {
                Some(old) => self.last_bytes -= old.len(),
                None => break,
            }
        }
    }
}

impl StderrLog {
    /// Takes the child's error pipe. Lines for which the observer is the right place (frame
    /// records) should be dropped from the log by [`is_frame_record`].
    pub(crate) fn follow(child: &mut Child, mut observer: impl FnMut(&str) + Send + 'static) -> Self {
        let kept = Arc::new(Mutex::new(Kept::default()));
        let (done, ended) = mpsc::channel();
        if let Some(mut pipe) = child.stderr.take() {
            let kept = Arc::clone(&kept);
            std::thread::spawn(move || {
                let mut buffer = vec![0; 16 << 10];
                let mut line = Vec::new();
                let mut finish = |line: &mut Vec<u8>| {
                    let text = String::from_utf8_lossy(line).trim_end().to_owned();
                    line.clear();
                    if text.is_empty() {
                        return;
                    }
                    observer(&text);
                    if !is_frame_record(&text)
                        && let Ok(mut kept) = kept.lock()
                    {
                        kept.push(text);
                    }
                };
                while let Ok(count) = pipe.read(&mut buffer) {
                    if count == 0 {
                        break;
                    }
                    for &byte in &buffer[..count] {
                        // A line without an end is cut, so that it cannot grow for ever.
                        if byte == b'\n' || byte == b'\r' || line.len() >= 4096 {
                            finish(&mut line);
                        }
                        if byte != b'\n' && byte != b'\r' {
                            line.push(byte);
                        }
                    }
                }
                finish(&mut line);
                let _ = done.send(());
            });
        }
        StderrLog { kept, ended }
    }

    /// Waits until the child has closed its error pipe, for a moment at most.
    pub(crate) fn settle(&self) {
        let _ = self.ended.recv_timeout(Duration::from_secs(2));
    }

    /// What was kept, after [`StderrLog::settle`].
    pub(crate) fn text(&self) -> String {
        self.settle();
        let Ok(kept) = self.kept.lock() else { return String::new() };
        let lines: Vec<&str> = kept.first.iter().chain(kept.last.iter()).map(String::as_str).collect();
        lines.join("\n")
    }
}

/// Is this a line of ffmpeg's `showinfo` filter? There are several for each frame.
pub(crate) fn is_frame_record(line: &str) -> bool {
    line.starts_with("[Parsed_showinfo")
}

/// The last line of ffmpeg's messages that tells a cause, without addresses in memory.
pub(crate) fn last_useful_line(stderr: &str) -> String {
    const EMPTY_WORDS: [&str; 10] = [
        "Conversion failed",
        "Error while filtering",
        "Failed to inject frame",
        "At least one output file must be",
        "Nothing was written into output file",
        "Output file is empty",
        "Last message repeated",
        "frame=",
        "video:",
        "Exiting normally",
    ];
    let useful = |line: &&str| {
        let line = line.trim();
        !line.is_empty() && !EMPTY_WORDS.iter().any(|words| line.contains(words))
    };
    let lines = || stderr.lines().filter(useful);
    let line = lines().next_back().or_else(|| stderr.lines().next_back()).unwrap_or("no message");
    clean_line(line)
}

/// Removes `[name @ 0x55...]` addresses, which differ from run to run, and bounds the length.
pub(crate) fn clean_line(line: &str) -> String {
    let mut text = line.trim();
    let mut name = "";
    while text.starts_with('[') {
        let Some((head, tail)) = text.split_once(']') else { break };
        let Some((component, _)) = head[1..].split_once(" @ ") else { break };
        name = component;
        text = tail.trim_start();
    }
    let text: String = text.chars().filter(|c| !c.is_control()).take(300).collect();
    if name.is_empty() { text } else { format!("{name}: {text}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_and_exit_code_come_back() {
        let output = run(Path::new("printf"), ["%s|", "a b", "$(x)", "-"], &Limits::default());
        let output = output.expect("printf runs");
        assert!(output.success);
        assert_eq!(output.stdout, b"a b|$(x)|-|");
        let output = run(Path::new("false"), [""; 0], &Limits::default()).expect("false runs");
        assert_eq!(output.code, Some(1));
    }

    #[test]
    fn a_missing_program_says_how_to_install_it() {
        let error = run(Path::new("/no/such/ffmpeg"), [""; 0], &Limits::default()).unwrap_err();
        assert!(error.to_string().contains("apt-get install ffmpeg"), "{error}");
    }

    #[test]
    fn a_silent_child_is_stopped() {
        let limits = Limits { idle: Duration::from_millis(100), ..Limits::default() };
        let start = Instant::now();
        let error = run(Path::new("sleep"), ["30"], &limits).unwrap_err();
        assert!(matches!(error, MediaError::Timeout { .. }), "{error}");
        assert!(start.elapsed() < Duration::from_secs(5));
    }

    #[test]
    fn too_much_output_is_an_error() {
        let limits = Limits { stdout_bytes: 10, ..Limits::default() };
        let error = run(Path::new("printf"), ["%s", "12345678901"], &limits).unwrap_err();
        assert!(error.to_string().contains("more than 10 bytes"), "{error}");
    }

    #[test]
    fn a_companion_ends_with_its_value() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("lines");
        let script = OsStr::new("while :; do echo >> \"$0\"; sleep 0.01; done");
        let arguments = [OsStr::new("-c"), script, file.as_os_str()];
        let companion = Companion::start(Path::new("sh"), arguments).expect("sh runs");
        let written = || std::fs::metadata(&file).map_or(0, |file| file.len());
        let start = Instant::now();
        while written() < 3 {
            assert!(start.elapsed() < Duration::from_secs(30), "it writes nothing");
            std::thread::sleep(Duration::from_millis(5));
        }
        drop(companion);
        let last = written();
        std::thread::sleep(Duration::from_millis(300));
        assert_eq!(written(), last);
    }

    #[test]
    fn addresses_are_removed_from_messages() {
        let stderr = "[mov,mp4 @ 0x55d] moov atom not found\nConversion failed!\n";
        assert_eq!(last_useful_line(stderr), "mov,mp4: moov atom not found");
    }
}
