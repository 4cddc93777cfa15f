//! The inputs of a generation: what they are, and whether they can serve.

use std::path::{Path, PathBuf};

use syncdiff_media::{
    FrameIndex, MediaError, MediaInfo, Rational, ReadOptions, Sound, Speech, Time, Tools, VideoWriter, WriterOptions,
    decode_speech, probe,
};
use syncdiff_media::{LengthPolicy, Plan};

use crate::error::{Error, Outcome};
use crate::files::{check_apart, check_place};
use crate::settings::GenerateSettings;
use crate::tracking::picture;

/// Shorter speech is a mistake rather than speech: not even one syllable fits into it.
pub const MIN_SPEECH_MS: i64 = 100;

/// The probed inputs.
#[derive(Clone, Debug)]
pub struct Source {
    /// Shows the face.
    pub video: MediaInfo,
    /// Drives the mouth.
    pub audio: MediaInfo,
    /// What is heard in the output.
    pub sound: Sound,
    /// How frames are read.
    pub read: ReadOptions,
}

impl Source {
    /// Probes the inputs and checks the place of the output. Nothing is decoded.
    ///
    /// # Errors
    /// An unfit input, an output that cannot be written or is one of the inputs.
    pub fn open(tools: &Tools, settings: &GenerateSettings, still_rate: Rational) -> Outcome<Self> {
        let mut inputs: Vec<&Path> = vec![&settings.video, &settings.audio];
        inputs.extend(settings.mix.as_deref());
        for output in outputs_of(settings) {
            check_place(output)?;
            check_apart(output, &inputs)?;
        }
        let video = probe(tools, &settings.video)?;
        picture(&video)?;
        let with_sound = |path: &Path| {
            let info = probe(tools, path)?;
            match info.audio {
                Some(_) => Ok(info),
                None => Err(MediaError::NoAudio { path: path.to_path_buf() }),
            }
        };
        let audio = with_sound(&settings.audio)?;
        let sound = Sound(settings.mix.as_deref().map(with_sound).transpose()?.unwrap_or_else(|| audio.clone()));
        let source = Source { video, audio, sound, read: ReadOptions { still_rate, ..ReadOptions::default() } };
        if settings.preview.is_none() {
            source.check_encoder(tools, settings)?;
        }
        Ok(source)
    }

    /// Starts the encoder for a moment: an unknown file type or quality is found now and not after an hour.
    fn check_encoder(&self, tools: &Tools, settings: &GenerateSettings) -> Outcome<()> {
        let index = FrameIndex::still(Rational::new(25, 1))?;
        let plan = Plan::new(&index, LengthPolicy::Video, Time::from_samples(16_000))?;
        self.writer(tools, settings, &plan).map(drop)
    }

    /// The encoder of the output.
    ///
    /// # Errors
    /// As [`VideoWriter::create`].
    pub fn writer(&self, tools: &Tools, settings: &GenerateSettings, plan: &Plan) -> Outcome<VideoWriter> {
        let video = picture(&self.video)?;
        let colour = Some(video.colour.clone());
        let options = WriterOptions { crf: settings.crf, colour, ..WriterOptions::default() };
        let size = (video.width, video.height);
        Ok(VideoWriter::create(tools, &settings.out, size, plan, Some(&self.sound), &options)?)
    }

    /// The speech as the model hears it.
    ///
    /// # Errors
    /// Sound that cannot be decoded, or is shorter than [`MIN_SPEECH_MS`].
    pub fn speech(&self, tools: &Tools) -> Outcome<Speech> {
        let speech = decode_speech(tools, &self.audio)?;
        let millis = speech.duration().millis();
        if millis < MIN_SPEECH_MS {
            return Err(Error::Input {
                stage: "speech",
                path: self.audio.path.clone(),
                what: format!("the sound is {millis} ms long, at least {MIN_SPEECH_MS} ms are needed"),
                remedy: "give a file with speech",
            });
        }
        Ok(speech)
    }

    /// How much of the video the output can show, where that is less than all of it.
    pub fn needed(&self, length: LengthPolicy, speech: &Speech) -> Option<Time> {
        (length != LengthPolicy::Video).then(|| speech.duration())
    }
}

/// Every file that a job will write.
fn outputs_of(settings: &GenerateSettings) -> Vec<&PathBuf> {
    let result = settings.preview.as_ref().unwrap_or(&settings.out);
    std::iter::once(result).chain(&settings.report).collect()
}
