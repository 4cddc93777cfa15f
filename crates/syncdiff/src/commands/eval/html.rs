//! The report for people: one page without anything from elsewhere but the clips that it shows.

use std::fmt::Write;
use std::path::{Component, Path, PathBuf};

use syncdiff::files::write_whole;
use syncdiff::{Error, Outcome};
use syncdiff_eval::{Better, Interval, METRICS, Metric, Row, distribution, escape, metric, speakers};

use super::report::{Report, shown};

/// What the clips are ranked by: the first of these that a clip has.
const RANKING: [&str; 7] = [
    "sync.wild.lse_c",
    "sync.lrs.lse_c",
    "sync.own.lse_c",
    "lips.opening_correlation",
    "mouth.ssim",
    "crop96.ssim",
    "full.ssim",
];
/// Clips shown from each end and the middle.
const SHOWN: usize = 2;

const HEAD: &str = r#"<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>syncdiff eval</title><style>
body{font:15px/1.45 system-ui,sans-serif;margin:2em auto;max-width:75em;padding:0 1em;color:#222;background:#fff}
table{border-collapse:collapse;margin:1em 0}td,th{padding:.2em .7em;border-bottom:1px solid #ddd;text-align:right}
td:first-child,th:first-child,td.l,th.l{text-align:left}.wide{overflow-x:auto}.bad{color:#a00}
.plots{display:flex;flex-wrap:wrap;gap:1em}svg{background:#f7f7f7}svg text{font-size:10px;fill:#444}
svg .title{font-size:11px;fill:#111}.bar{fill:#8fb3d9}.dot{fill:#3a6ea5;opacity:.6}
.axis{stroke:#999}.mean{stroke:#c33;fill:#c33;stroke-width:2}
.pair{display:inline-block;margin:0 1em 1.5em 0}.pair video{width:22em;max-width:45vw;background:#000}
figure{display:inline-block;margin:0 .3em}figcaption{font-size:12px;color:#555}
@media(prefers-color-scheme:dark){body{color:#ddd;background:#161616}td,th{border-color:#444}
svg{background:#222}svg text{fill:#bbb}svg .title{fill:#eee}.bad{color:#f88}figcaption{color:#aaa}}
</style></head><body>
"#;

/// Plays the two clips of a pair together; the second follows the clock of the first.
const SCRIPT: &str = r#"<script>
for(const pair of document.querySelectorAll('.pair')){const v=[...pair.querySelectorAll('video')],b=pair.querySelector('button'),
s=pair.querySelector('input');const label=()=>b.textContent=v[0].paused?'play both':'pause both';
b.onclick=()=>{if(v[0].paused){v[1].currentTime=v[0].currentTime;v.forEach(x=>x.play())}else v.forEach(x=>x.pause());label()};
v[0].ontimeupdate=()=>{if(v[0].duration)s.value=v[0].currentTime/v[0].duration;
if(Math.abs(v[1].currentTime-v[0].currentTime)>.06)v[1].currentTime=v[0].currentTime};
v[0].onended=()=>{v[1].pause();label()};v[0].onpause=()=>{v[1].pause();label()};v[0].onplay=label;
s.oninput=()=>v.forEach(x=>{if(x.duration)x.currentTime=s.value*x.duration})}
</script>
"#;

/// Writes `report.html`; with `copy`, the clips that it shows are copied beside it.
///
/// # Errors
/// [`Error::Io`].
pub(super) fn write(report: &Report<'_>, out: &Path, copy: bool) -> Outcome<()> {
    let mut page = HEAD.to_owned();
    let _ = write!(page, "<h1>Generated clips against their originals</h1>\n{}", summary(report));
    for (what, who) in report.judges {
        let _ = writeln!(page, "<p>{}: {}</p>", escape(what), escape(who));
    }
    page += "<h2>Distributions</h2><p>Bars: clips. Red: mean and its 95 % interval.</p><div class=\"plots\">\n";
    for mean in &report.summary.means {
        let Some(metric) = metric(mean.metric) else { continue };
        let values: Vec<f64> = report.rows.iter().filter_map(|row| row.figures.get(metric.key).copied()).collect();
        let Interval { value, low, high } = mean.interval;
        page += &distribution(metric.title, &values, value, low, high, metric.digits);
        page.push('\n');
    }
    page += "</div>\n<h2>By speaker</h2><p>Dots: clips. Red: the speaker's mean.</p><div class=\"plots\">\n";
    let by_speaker = RANKING.iter().chain(&["crop96.psnr", "crop96.lpips_alex", "time.flicker_ratio", "words.wer"]);
    for metric in by_speaker.filter_map(|key| metric(key)) {
        page += &speakers(metric.title, report.rows, metric.key, metric.digits);
        page.push('\n');
    }
    page += "</div>\n";
    players(&mut page, report.rows, out, copy)?;
    page += &clips(report.rows);
    page += SCRIPT;
    page += "</body></html>\n";
    write_whole("write report", &out.join("report.html"), page.as_bytes())
}

fn summary(report: &Report<'_>) -> String {
    let mut text = String::from(
        "<div class=\"wide\"><table><tr><th>metric</th><th class=\"l\">better</th><th>clips</th><th>mean</th>\
         <th>95 % interval</th><th>over all frames</th></tr>\n",
    );
    for mean in &report.summary.means {
        let Some(&Metric { title, better, digits, .. }) = metric(mean.metric) else { continue };
        let Interval { value, low, high } = mean.interval;
        let over = mean.over_frames.map_or("-".into(), |value| format!("{value:.digits$}"));
        let _ = writeln!(
            text,
            "<tr><td>{}</td><td class=\"l\">{}</td><td>{}</td><td>{value:.digits$}</td>\
             <td>{low:.digits$} to {high:.digits$}</td><td>{over}</td></tr>",
            escape(title),
            better.text(),
            mean.clips
        );
    }
    let (clips, failures, unequal) = (report.summary.clips, report.summary.failures, report.summary.unequal);
    let _ = writeln!(
        text,
        "</table></div><p>{clips} clips scored, {failures} failed, {unequal} with unequal length, size or rate. \
         Intervals: bootstrap over clips.</p>"
    );
    if let Some(fid) = report.fid {
        let _ = writeln!(text, "<p>{}</p>", escape(fid.line().trim()));
    }
    if !report.summary.absent.is_empty() {
        text += "<p>Absent:</p><ul>\n";
        for (key, reason) in &report.summary.absent {
            let _ = writeln!(text, "<li>{}: {}</li>", escape(key), escape(reason));
        }
        text += "</ul>\n";
    }
    text
}

/// Worst, median and best clips, side by side with their originals.
fn players(page: &mut String, rows: &[Row], out: &Path, copy: bool) -> Outcome<()> {
    let Some((metric, ranked)) = ranking(rows) else { return Ok(()) };
    let _ = writeln!(page, "<h2>Worst, median and best by {}</h2>", escape(metric.title));
    for (what, at) in chosen(ranked.len()) {
        let (value, row) = ranked[at];
        let links = [&row.generated_path, &row.reference_path].map(|path| link(Path::new(path), out, copy));
        let [generated, reference] = links;
        let (generated, reference) = (escape(&generated?), escape(&reference?));
        let clip = escape(&row.clip);
        let _ = writeln!(
            page,
            "<div class=\"pair\"><p>{what}: {clip}, {value:.*}</p>\
             <figure><video src=\"{generated}\" preload=\"metadata\"></video><figcaption>generated</figcaption></figure>\
             <figure><video src=\"{reference}\" preload=\"metadata\" muted></video><figcaption>original (mute)\
             </figcaption></figure><br><button type=\"button\">play both</button> \
             <input type=\"range\" min=\"0\" max=\"1\" step=\"any\" value=\"0\" aria-label=\"time\"></div>",
            metric.digits
        );
    }
    Ok(())
}

/// The clips from worst to best by the first metric of [`RANKING`] that they have.
fn ranking(rows: &[Row]) -> Option<(&'static Metric, Vec<(f64, &Row)>)> {
    let metric = RANKING
        .iter()
        .filter_map(|key| metric(key))
        .find(|metric| rows.iter().any(|row| row.figures.contains_key(metric.key)))?;
    let mut ranked: Vec<(f64, &Row)> =
        rows.iter().filter_map(|row| Some((*row.figures.get(metric.key)?, row))).collect();
    ranked.sort_by(|a, b| a.0.total_cmp(&b.0));
    if metric.better == Better::Lower {
        ranked.reverse();
    }
    Some((metric, ranked))
}

/// What each shown clip is, and its place; none twice.
fn chosen(count: usize) -> Vec<(&'static str, usize)> {
    let middle = (count / 2).saturating_sub(SHOWN / 2);
    let worst = (0..SHOWN).map(|i| ("worst", i));
    let median = (0..SHOWN).map(|i| ("median", middle + i));
    let best = (0..SHOWN).map(|i| ("best", count.wrapping_sub(SHOWN - i)));
    let mut shown: Vec<(&str, usize)> = Vec::new();
    for (what, at) in best.chain(worst).chain(median) {
        if at < count && shown.iter().all(|(_, other)| *other != at) {
            shown.push((what, at));
        }
    }
    shown.sort_by_key(|(_, at)| *at);
    shown
}

/// A relative address of a file as seen from the report, or of its copy.
fn link(path: &Path, out: &Path, copy: bool) -> Outcome<String> {
    let io = |cause| Error::io("write report", path, cause);
    let out = out.canonicalize().map_err(io)?;
    let file = path.canonicalize().map_err(io)?;
    if !copy || file.starts_with(&out) {
        return Ok(address(&relative(&file, &out)));
    }
    let folder = out.join("media");
    std::fs::create_dir_all(&folder).map_err(io)?;
    // Two folders may hold files of one name: the folder's name stands before it.
    let parent = file.parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy().into_owned();
    let name = format!("{parent}-{}", file.file_name().unwrap_or_default().to_string_lossy());
    std::fs::copy(&file, folder.join(&name)).map_err(io)?;
    Ok(address(&Path::new("media").join(name)))
}

fn relative(file: &Path, from: &Path) -> PathBuf {
    let (file, from): (Vec<Component<'_>>, Vec<Component<'_>>) =
        (file.components().collect(), from.components().collect());
    let common = file.iter().zip(&from).take_while(|(a, b)| a == b).count();
    let up = from[common..].iter().map(|_| Component::ParentDir);
    up.chain(file[common..].iter().copied()).collect()
}

/// A path as an address: everything but plain letters, digits and a few signs as %XX.
fn address(path: &Path) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte);
    let text = path.to_string_lossy().replace('\\', "/");
    text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

/// The table of all clips.
fn clips(rows: &[Row]) -> String {
    const COLUMNS: [&str; 10] = [
        "crop96.psnr",
        "crop96.psnr_u8wrap",
        "crop96.ssim",
        "crop96.lpips_alex",
        "sync.wild.lse_c",
        "sync.own.lse_c",
        "lips.opening_correlation",
        "time.flicker_ratio",
        "words.wer",
        "words.wer_truth",
    ];
    let there = shown(rows);
    let columns: Vec<&Metric> = METRICS.iter().filter(|m| COLUMNS.contains(&m.key) && there.contains(m)).collect();
    let mut text = String::from("<h2>Clips</h2><div class=\"wide\"><table><tr><th>clip</th><th>frames</th><th>of</th>");
    for metric in &columns {
        let _ = write!(text, "<th>{}</th>", escape(metric.title));
    }
    text += "<th class=\"l\">remarks</th></tr>\n";
    for row in rows {
        let _ = write!(text, "<tr><td>{}</td>", escape(&row.clip));
        let _ = write!(text, "<td>{}</td><td>{}</td>", row.generated.frames, row.reference.frames);
        for metric in &columns {
            let digits = metric.digits;
            let value = row.figures.get(metric.key).map_or("-".into(), |value| format!("{value:.digits$}"));
            let _ = write!(text, "<td>{value}</td>");
        }
        let class = if row.failure.is_some() { "l bad" } else { "l" };
        let remarks: Vec<&str> = row.failure.iter().chain(&row.remarks).map(String::as_str).collect();
        let _ = writeln!(text, "<td class=\"{class}\">{}</td></tr>", escape(&remarks.join("; ")));
    }
    text + "</table></div>\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_lead_from_the_report_to_the_file() {
        let found = address(&relative(Path::new("/a/b/c d/é'\".mp4"), Path::new("/a/x/out")));
        assert_eq!(found, "../../b/c%20d/%C3%A9%27%22.mp4");
    }

    #[test]
    fn no_clip_is_shown_twice() {
        assert!(chosen(0).is_empty());
        assert_eq!(chosen(1), [("best", 0)]);
        assert_eq!(chosen(9), [("worst", 0), ("worst", 1), ("median", 3), ("median", 4), ("best", 7), ("best", 8)]);
        for count in 0..12 {
            let places: Vec<usize> = chosen(count).into_iter().map(|(_, at)| at).collect();
            assert!(places.windows(2).all(|pair| pair[0] < pair[1]) && places.len() == count.min(6), "{count}");
        }
    }
}
