//! Names: from the path of a parameter inside a Burn module to its dotted name on disk.

use std::fmt;
use std::sync::Arc;

type NameFn = Arc<dyn Fn(&str) -> Option<String> + Send + Sync>;

/// Translates module paths to names on disk. One direction serves saving and loading.
///
/// Before any rule runs, a norm's `gamma` and `beta` have become `weight` and `bias`, and the names of enum variants
/// have left the path. The first rule whose pattern matches the *leading* segments of a path replaces them; the rest
/// of the path stays. `*` stands for one whole segment; those of the replacement take the matches in order.
///
/// # Examples
///
/// ```
/// use syncdiff_model::weights::Remap;
/// let remap = Remap::table(&[("blocks.*.norm_in", "input_blocks.*.0.in_layers.0")]).with_prefix("denoiser.");
/// assert_eq!(remap.disk_name("blocks.7.norm_in.weight"), "denoiser.input_blocks.7.0.in_layers.0.weight");
/// assert_eq!(remap.disk_name("out.bias"), "denoiser.out.bias");
/// ```
#[derive(Clone, Default)]
pub struct Remap {
    rules: Vec<(Vec<String>, Vec<String>)>,
    custom: Option<NameFn>,
    prefix: String,
    ignored: Vec<Vec<String>>,
}

impl Remap {
    /// Names on disk are the paths of the module.
    pub fn identity() -> Self {
        Self::default()
    }

    /// A table of `(pattern of leading segments, replacement)`; the first match wins.
    ///
    /// # Panics
    ///
    /// When a replacement has more `*` than its pattern: a table is source code, not input.
    pub fn table(rules: &[(&str, &str)]) -> Self {
        let rules = rules
            .iter()
            .map(|(from, to)| {
                let (from, to) = (segments(from), segments(to));
                let stars = |parts: &[String]| parts.iter().filter(|part| *part == "*").count();
                assert!(stars(&to) <= stars(&from), "remap rule {from:?} -> {to:?}: too many `*`");
                (from, to)
            })
            .collect();
        Self { rules, ..Self::default() }
    }

    /// A function that is asked before the table; `None` leaves the path to the table.
    pub fn with_names(mut self, names: impl Fn(&str) -> Option<String> + Send + Sync + 'static) -> Self {
        self.custom = Some(Arc::new(names));
        self
    }

    /// Puts `prefix` (with its dot) before every name; tensors outside the prefix are none of this module's.
    pub fn with_prefix(mut self, prefix: &str) -> Self {
        self.prefix = prefix.to_owned();
        self
    }

    /// Tensors of a file that may be there although the module has no use for them: patterns of leading segments,
    /// counted after the prefix.
    pub fn ignoring(mut self, patterns: &[&str]) -> Self {
        self.ignored.extend(patterns.iter().map(|pattern| segments(pattern)));
        self
    }

    /// The prefix of all names, empty if there is none.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The name on disk of the parameter at `module_path`.
    pub fn disk_name(&self, module_path: &str) -> String {
        let name =
            self.custom.as_ref().and_then(|names| names(module_path)).unwrap_or_else(|| self.by_table(module_path));
        format!("{}{name}", self.prefix)
    }

    /// Whether a tensor that no parameter asked for is allowed to be in the file.
    pub fn allows_unused(&self, disk_name: &str) -> bool {
        let Some(name) = disk_name.strip_prefix(self.prefix.as_str()) else { return true };
        let name = segments(name);
        self.ignored.iter().any(|pattern| leading_match(pattern, &name).is_some())
    }

    fn by_table(&self, module_path: &str) -> String {
        let path = segments(module_path);
        for (from, to) in &self.rules {
            let Some(stars) = leading_match(from, &path) else { continue };
            let mut stars = stars.into_iter();
            let mut name: Vec<&str> =
                to.iter().map(|part| if part == "*" { stars.next().unwrap_or("*") } else { part.as_str() }).collect();
            name.extend(path[from.len()..].iter().map(String::as_str));
            return name.join(".");
        }
        module_path.to_owned()
    }
}

impl fmt::Debug for Remap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remap")
            .field("prefix", &self.prefix)
            .field("rules", &self.rules.len())
            .field("custom", &self.custom.is_some())
            .finish()
    }
}

fn segments(path: &str) -> Vec<String> {
    path.split('.').filter(|part| !part.is_empty()).map(str::to_owned).collect()
}

/// What the `*` of `pattern` stand for when it matches the beginning of `path`.
fn leading_match<'a>(pattern: &[String], path: &'a [String]) -> Option<Vec<&'a str>> {
    if pattern.len() > path.len() {
        return None;
    }
    let mut stars = Vec::new();
    for (want, have) in pattern.iter().zip(path) {
        if want == "*" {
            stars.push(have.as_str());
        } else if want != have {
            return None;
        }
    }
    Some(stars)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_match_wins_and_the_rest_of_the_path_stays() {
        let remap = Remap::table(&[("a.*.x", "q.*.first"), ("a", "q"), ("b.*.*", "*.c.*")]);
        assert_eq!(remap.disk_name("a.3.x.weight"), "q.3.first.weight");
        assert_eq!(remap.disk_name("a.3.y.weight"), "q.3.y.weight");
        assert_eq!(remap.disk_name("b.1.2.bias"), "1.c.2.bias");
        assert_eq!(remap.disk_name("ab.1"), "ab.1");
    }

    #[test]
    fn unused_tensors_are_allowed_only_where_named_or_outside_the_prefix() {
        let remap = Remap::identity().with_prefix("audio.").ignoring(&["mask_emb", "final_proj.*"]);
        assert!(remap.allows_unused("audio.mask_emb"));
        assert!(remap.allows_unused("audio.final_proj.bias"));
        assert!(remap.allows_unused("denoiser.out.bias"));
        assert!(!remap.allows_unused("audio.final_projection.bias"));
    }

    #[test]
    fn a_function_goes_before_the_table() {
        let remap = Remap::table(&[("a", "b")]).with_names(|path| (path == "a.0").then(|| "z".to_owned()));
        assert_eq!(remap.disk_name("a.0"), "z");
        assert_eq!(remap.disk_name("a.1"), "b.1");
    }
}
