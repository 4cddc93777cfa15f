//! `syncdiff scan`.

use serde_json::json;
use syncdiff::files::write_whole;
use syncdiff::progress::Cancel;
use syncdiff::report::write_json;
use syncdiff::scan::{Scan, scan};
use syncdiff::{Error, Outcome};
use syncdiff_face::FaceModels;
use syncdiff_media::{ReadOptions, Tools, probe, write_png};

use crate::cli::ScanArgs;
use crate::folders;
use crate::terminal::{Display, event, say};

pub(crate) fn run(args: &ScanArgs, cancel: &Cancel) -> Outcome<u8> {
    let tools = Tools::default();
    if let Some(folder) = &args.out {
        std::fs::create_dir_all(folder).map_err(|cause| Error::io("write thumbnails", folder, cause))?;
        // Found out now and not after a long clip.
        write_whole("write thumbnails", &folder.join("scan.json"), b"{}\n")?;
    }
    let info = probe(&tools, &args.video)?;
    let models = FaceModels::load(&args.face_models.clone().unwrap_or_else(folders::face_models))?;
    let mut display = Display::new(args.progress);
    let mut found = scan(&tools, &info, &models, &ReadOptions::default(), &mut display.watch(cancel.clone()))?;
    drop(display);
    if let Some(folder) = &args.out {
        for face in &mut found.faces {
            let name = format!("face-{}.png", face.id);
            write_png(&folder.join(&name), &face.picture)?;
            face.thumbnail = Some(name);
        }
        write_json(&folder.join("scan.json"), &found)?;
    }
    if args.json {
        let text = serde_json::to_string_pretty(&found)
            .map_err(|error| Error::Internal { stage: "scan", detail: error.to_string() })?;
        say(&text);
    } else {
        say(&table(&found));
    }
    if args.progress.is_json() {
        event(&json!({"event": "success", "text": format!("{} faces", found.faces.len())}));
    }
    if found.faces.is_empty() {
        return Err(Error::NoFace { path: args.video.clone(), frames: found.frames });
    }
    Ok(0)
}

fn table(found: &Scan) -> String {
    let mut lines = vec![format!(
        "{}x{}, {} frames at {} a second, {:.2} s, {} cuts",
        found.width,
        found.height,
        found.frames,
        found.rate,
        found.secs,
        found.cuts.len()
    )];
    if !found.faces.is_empty() {
        lines.push(format!(
            "{:>4} {:>7} {:>8} {:>8} {:>7}  {:<26} frame ranges",
            "id", "frames", "from s", "to s", "side px", "choices"
        ));
    }
    for face in &found.faces {
        let mut ranges: Vec<String> =
            face.ranges.iter().take(6).map(|range| format!("{}-{}", range.start, range.end - 1)).collect();
        if face.ranges.len() > 6 {
            ranges.push(format!("and {} more", face.ranges.len() - 6));
        }
        lines.push(format!(
            "{:>4} {:>7} {:>8.2} {:>8.2} {:>7.0}  {:<26} {}",
            face.id,
            face.frames,
            face.first_secs,
            face.last_secs,
            face.mean_side_px,
            face.choices.join(" "),
            ranges.join(" ")
        ));
    }
    lines.extend(found.warnings.iter().map(|warning| format!("warning: {warning}")));
    lines.join("\n")
}
