//! The two programs behind this crate, and how they are called.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, OnceLock};

use crate::error::MediaError;
use crate::process::{Guarded, Limits, run};

/// Where ffmpeg and ffprobe are. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Tools {
    /// The `ffmpeg` program: a path, or a bare name looked up in `PATH`.
    pub ffmpeg: PathBuf,
    /// The `ffprobe` program.
    pub ffprobe: PathBuf,
    versions: Arc<OnceLock<ToolVersions>>,
}

/// What the programs say of themselves.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct ToolVersions {
    /// Version of ffmpeg, as printed (for example `5.1.9-0+deb12u1`).
    pub ffmpeg: String,
    /// Version of ffprobe.
    pub ffprobe: String,
    /// Major and minor number of ffmpeg; none for development builds.
    pub number: Option<(u32, u32)>,
}

impl Default for Tools {
    /// `ffmpeg` and `ffprobe` from `PATH`.
    fn default() -> Self {
        Tools::new("ffmpeg", "ffprobe")
    }
}

impl Tools {
    /// The programs at these paths. Nothing is started.
    pub fn new(ffmpeg: impl Into<PathBuf>, ffprobe: impl Into<PathBuf>) -> Self {
        Tools { ffmpeg: ffmpeg.into(), ffprobe: ffprobe.into(), versions: Arc::default() }
    }

    /// Starts both programs once and reads their versions. The answer is kept.
    ///
    /// # Errors
    /// [`MediaError::ToolMissing`] with how to install them; [`MediaError::ToolFailed`] if one does
    /// not run, or ffmpeg is older than 4.4.
    pub fn check(&self) -> Result<ToolVersions, MediaError> {
        if let Some(versions) = self.versions.get() {
            return Ok(versions.clone());
        }
        let (ffmpeg, ffprobe) = (version(&self.ffmpeg)?, version(&self.ffprobe)?);
        let number = number(&ffmpeg);
        if number.is_some_and(|number| number < (4, 4)) {
            return Err(MediaError::ToolFailed {
                stage: "check",
                program: self.ffmpeg.clone(),
                status: format!("version {ffmpeg}"),
                detail: "version 4.4 or later is needed; install a newer ffmpeg".into(),
            });
        }
        Ok(self.versions.get_or_init(|| ToolVersions { ffmpeg, ffprobe, number }).clone())
    }

    /// The options that hand frames through with their own time stamps; the name changed in 5.1.
    pub(crate) fn passthrough(&self) -> Result<[&'static str; 2], MediaError> {
        let old = self.check()?.number.is_some_and(|number| number < (5, 1));
        Ok([if old { "-vsync" } else { "-fps_mode" }, "passthrough"])
    }

    /// Starts ffmpeg with these arguments after the common ones.
    pub(crate) fn spawn_ffmpeg(&self, level: &str, args: &Args, stdin: Stdio) -> Result<Guarded, MediaError> {
        let mut command = Command::new(&self.ffmpeg);
        command.args(["-hide_banner", "-nostdin", "-nostats", "-y", "-loglevel", level]);
        command.args(&args.0).stdin(stdin);
        Guarded::spawn(command, &self.ffmpeg)
    }
}

fn version(program: &Path) -> Result<String, MediaError> {
    let output = run(program, ["-version"], &Limits::default())?;
    let text = String::from_utf8_lossy(&output.stdout);
    let word = text.lines().next().and_then(|line| line.split("version ").nth(1));
    match word.and_then(|rest| rest.split_whitespace().next()) {
        Some(version) if output.success => Ok(version.to_owned()),
        _ => Err(MediaError::ToolFailed {
            stage: "check",
            program: program.to_path_buf(),
            status: format!("exit code {:?}", output.code),
            detail: "`-version` did not print a version; is this the right program?".into(),
        }),
    }
}

fn number(version: &str) -> Option<(u32, u32)> {
    let digits = |part: &str| {
        let end = part.find(|c: char| !c.is_ascii_digit()).unwrap_or(part.len());
        part[..end].parse::<u32>().ok()
    };
    // Release builds begin with the number, some distributions with an `n`.
    let mut parts = version.trim_start_matches('n').split('.');
    let major = digits(parts.next()?)?;
    Some((major, parts.next().and_then(digits).unwrap_or(0)))
}

/// An argument array under construction.
#[derive(Clone, Debug, Default)]
pub(crate) struct Args(pub(crate) Vec<OsString>);

impl Args {
    pub(crate) fn add<S: Into<OsString>>(&mut self, args: impl IntoIterator<Item = S>) {
        self.0.extend(args.into_iter().map(Into::into));
    }

    /// An input file: no network, a forced format, and the name as data behind `file:`.
    pub(crate) fn input(&mut self, demuxer: &str, path: &Path) {
        self.add(["-protocol_whitelist", "file,pipe", "-f", demuxer, "-i"]);
        self.0.push(file_url(path));
    }
}

/// `file:` before the name: then a leading dash, a colon or a percent sign in it means nothing.
pub(crate) fn file_url(path: &Path) -> OsString {
    let mut url = OsString::from("file:");
    url.push(path);
    url
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_numbers_of_several_builders() {
        assert_eq!(number("5.1.9-0+deb12u1"), Some((5, 1)));
        assert_eq!(number("n7.0"), Some((7, 0)));
        assert_eq!(number("6"), Some((6, 0)));
        assert_eq!(number("N-112233-gdeadbeef"), None);
    }

    #[test]
    fn the_installed_programs_answer() {
        let versions = Tools::default().check().expect("ffmpeg is installed");
        assert!(!versions.ffmpeg.is_empty() && !versions.ffprobe.is_empty());
    }
}
