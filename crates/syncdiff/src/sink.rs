//! Where finished frames go: into a video, or one of them into a picture.

use std::ops::Range;
use std::path::PathBuf;

use syncdiff_media::{Plan, Tools, VideoWriter, Written, write_png};

use crate::clock::{Clock, Phase};
use crate::error::{Error, Outcome};
use crate::render::Rendered;
use crate::settings::GenerateSettings;
use crate::source::Source;

/// Takes the frames of an output in order.
pub struct Sink {
    kind: Kind,
    /// Also every frame as PNG, before encoding.
    frames: Option<PathBuf>,
}

enum Kind {
    Video(Box<VideoWriter>),
    Preview { path: PathBuf, shown: usize },
}

impl Sink {
    /// Opens the output that the job asks for. A preview shows the last of the rendered `outputs`.
    ///
    /// # Errors
    /// As [`Source::writer`]; [`Error::Io`] if the folder for frames cannot be made.
    pub fn open(
        tools: &Tools,
        settings: &GenerateSettings,
        source: &Source,
        plan: &Plan,
        outputs: &Range<usize>,
    ) -> Outcome<Self> {
        if let Some(folder) = &settings.frames {
            std::fs::create_dir_all(folder).map_err(|cause| Error::io("write frames", folder, cause))?;
        }
        let kind = match &settings.preview {
            Some(path) => Kind::Preview { path: path.clone(), shown: outputs.end - 1 },
            None => Kind::Video(Box::new(source.writer(tools, settings, plan)?)),
        };
        Ok(Sink { kind, frames: settings.frames.clone() })
    }

    /// Takes the next frame.
    ///
    /// # Errors
    /// As [`VideoWriter::push`] and [`write_png`].
    pub fn take(&mut self, rendered: &Rendered<'_>, clock: &mut Clock) -> Outcome<()> {
        if let Some(folder) = &self.frames {
            write_png(&folder.join(format!("{:06}.png", rendered.output)), rendered.frame)?;
        }
        clock.time(Phase::Encode, || match &mut self.kind {
            Kind::Video(writer) => writer.push(rendered.frame, rendered.pts),
            Kind::Preview { path, shown } if *shown == rendered.output => write_png(path, rendered.frame),
            Kind::Preview { .. } => Ok(()),
        })?;
        Ok(())
    }

    /// Puts the output in place; none for a preview, which is there already.
    ///
    /// # Errors
    /// As [`VideoWriter::finish`].
    pub fn finish(self) -> Outcome<Option<Written>> {
        match self.kind {
            Kind::Video(writer) => Ok(Some(writer.finish()?)),
            Kind::Preview { .. } => Ok(None),
        }
    }
}
