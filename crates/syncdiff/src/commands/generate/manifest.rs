//! The clips of a manifest: a JSON object on each line.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use syncdiff::files::{check_apart, place_of};
use syncdiff::{Error, GenerateSettings, Outcome};

use crate::cli::{CompositeArg, Length, SilenceArg};

/// A line: a clip, and where it differs from the others.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    video: PathBuf,
    audio: PathBuf,
    out: PathBuf,
    mix: Option<PathBuf>,
    length: Option<Length>,
    face: Option<String>,
    fps: Option<String>,
    crf: Option<u8>,
    composite: Option<CompositeArg>,
    silence: Option<SilenceArg>,
    report: Option<PathBuf>,
}

/// Reads the clips; what a line leaves open is as in `rest`.
///
/// # Errors
/// [`Error::Usage`] with the number of a line that is no clip, and for outputs that meet another output or an input.
pub(super) fn read(manifest: &Path, rest: &GenerateSettings) -> Outcome<Vec<GenerateSettings>> {
    let text = std::fs::read_to_string(manifest).map_err(|cause| Error::io("manifest", manifest, cause))?;
    let folder = manifest.parent().unwrap_or(Path::new("."));
    let wrong = |line: usize, detail: String| {
        let remedy = "write a JSON object on each line: {\"video\": .., \"audio\": .., \"out\": ..}";
        Error::usage(format!("--manifest {manifest:?}: line {}: {detail}", line + 1), remedy)
    };
    let mut clips: Vec<GenerateSettings> = Vec::new();
    for (number, text) in text.trim_start_matches('\u{feff}').lines().enumerate() {
        if text.trim().is_empty() {
            continue;
        }
        let line: Line = serde_json::from_str(text).map_err(|error| wrong(number, error.to_string()))?;
        if let Some(crf) = line.crf.filter(|crf| *crf > 51) {
            return Err(wrong(number, format!("crf {crf} is not between 0 and 51")));
        }
        let rest = rest.clone();
        clips.push(GenerateSettings {
            video: folder.join(line.video),
            audio: folder.join(line.audio),
            out: folder.join(line.out),
            mix: line.mix.map(|mix| folder.join(mix)),
            length: line.length.map_or(rest.length, Into::into),
            face: line.face.unwrap_or(rest.face),
            fps: line.fps.unwrap_or(rest.fps),
            crf: line.crf.unwrap_or(rest.crf),
            composite: line.composite.map_or(rest.composite, Into::into),
            silence: line.silence.map_or(rest.silence, Into::into),
            report: line.report.map(|report| folder.join(report)),
            ..rest
        });
    }
    if clips.is_empty() {
        return Err(Error::usage(format!("--manifest {manifest:?} holds no clip"), "write one on each line"));
    }
    apart(&clips, manifest)?;
    Ok(clips)
}

/// No output may be written twice, or be read by any of the clips: they are made in any order.
fn apart(clips: &[GenerateSettings], manifest: &Path) -> Outcome<()> {
    let inputs = clips.iter().flat_map(|clip| [Some(&clip.video), Some(&clip.audio), clip.mix.as_ref()]);
    let inputs: Vec<&Path> = inputs.flatten().map(PathBuf::as_path).chain([manifest]).collect();
    let mut outputs = std::collections::BTreeSet::new();
    for output in clips.iter().flat_map(|clip| [Some(&clip.out), clip.report.as_ref()]).flatten() {
        check_apart(output, &inputs)?;
        if !outputs.insert(place_of(output)) {
            return Err(Error::usage(format!("two clips would write {output:?}"), "give each clip its own output"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use syncdiff::settings::{Composite, Silence};
    use syncdiff_media::LengthPolicy;

    fn rest() -> GenerateSettings {
        GenerateSettings { crf: 30, ..GenerateSettings::new("".into(), "".into(), "".into()) }
    }

    fn clips(text: &str) -> Outcome<Vec<GenerateSettings>> {
        let folder = tempfile::tempdir().unwrap();
        let manifest = folder.path().join("clips.jsonl");
        // `{}` stands for the folder's own name.
        let name = folder.path().file_name().unwrap().to_string_lossy();
        std::fs::write(&manifest, text.replace("{}", &name)).unwrap();
        let mut clips = read(&manifest, &rest())?;
        for clip in &mut clips {
            clip.video = clip.video.strip_prefix(folder.path()).unwrap().to_path_buf();
        }
        Ok(clips)
    }

    #[test]
    fn a_line_says_where_its_clip_differs() {
        let text = "\u{feff}{\"video\": \"a.mp4\", \"audio\": \"b.wav\", \"out\": \"c.mp4\"}\n\n\
                    {\"video\": \"a.mp4\", \"audio\": \"d.wav\", \"out\": \"e.mp4\", \"face\": \"left\", \"crf\": 10, \
                    \"length\": \"video\", \"composite\": \"none\", \"silence\": \"keep\"}\n";
        let found = clips(text).unwrap();
        assert_eq!(found.len(), 2);
        assert_eq!((found[0].video.as_path(), found[0].crf, &found[0].face[..]), (Path::new("a.mp4"), 30, "largest"));
        assert_eq!((found[1].crf, &found[1].face[..]), (10, "left"));
        assert_eq!((found[1].length, found[1].composite), (LengthPolicy::Video, Composite::None));
        assert_eq!((found[0].silence, found[1].silence), (Silence::Model, Silence::Keep));
    }

    #[test]
    fn a_wrong_line_is_told_by_its_number() {
        let good = "{\"video\": \"a.mp4\", \"audio\": \"b.wav\", \"out\": \"c.mp4\"}";
        for (text, part) in [
            ("\n", "no clip"),
            (&format!("{good}\n{{\"video\": \"a.mp4\"}}"), "line 2"),
            ("video a.mp4", "line 1"),
            (&good.replace("\"out\"", "\"mouth\": 1, \"out\""), "mouth"),
            (&good.replace("}", ", \"crf\": 99}"), "99"),
            (&good.replace("}", ", \"length\": \"long\"}"), "long"),
            (&format!("{good}\n{good}"), "two clips"),
            (&good.replace("}", ", \"report\": \"c.mp4\"}"), "two clips"),
            (&format!("{good}\n{}", good.replace("c.mp4", "../{}/c.mp4")), "two clips"),
            // What one clip makes another cannot take: use two manifests.
            (&format!("{good}\n{}", good.replace("c.mp4", "e.mp4").replace("a.mp4", "c.mp4")), "same file"),
            (&good.replace("}", ", \"report\": \"clips.jsonl\"}"), "same file"),
        ] {
            let error = clips(text).unwrap_err();
            assert!(error.to_string().contains(part) && error.exit_code() == 2, "{text}: {error}");
        }
    }
}
