//! What the operating system says of this program and this machine. Linux answers all of it; elsewhere a value that
//! has no portable source is left out.

use std::path::Path;

/// Peak memory of this program so far, without its child processes.
pub(crate) fn peak_memory_bytes() -> Option<u64> {
    kib_of(&std::fs::read_to_string("/proc/self/status").ok()?, "VmHWM:")
}

/// Memory of the machine: all of it, and what can be had without swapping.
pub(crate) fn memory_bytes() -> Option<(u64, u64)> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    Some((kib_of(&text, "MemTotal:")?, kib_of(&text, "MemAvailable:")?))
}

/// Bytes that may still be written to the disk of a folder.
#[cfg(unix)]
pub(crate) fn free_disk_bytes(folder: &Path) -> Option<u64> {
    let stat = rustix::fs::statvfs(folder).ok()?;
    stat.f_bavail.checked_mul(stat.f_frsize)
}

/// Bytes that may still be written to the disk of a folder.
#[cfg(not(unix))]
pub(crate) fn free_disk_bytes(_: &Path) -> Option<u64> {
    None
}

/// What the processor calls itself.
pub(crate) fn cpu_name() -> Option<String> {
    match std::fs::read_to_string("/proc/cpuinfo") {
        Ok(text) => value_of(&text, "model name"),
        // Windows has it in the environment of every program.
        Err(_) => std::env::var("PROCESSOR_IDENTIFIER").ok(),
    }
}

/// How many programs wanted to run at once over the last minute.
pub(crate) fn load_average() -> Option<f64> {
    std::fs::read_to_string("/proc/loadavg").ok()?.split_whitespace().next()?.parse().ok()
}

/// The processor's instruction sets that decide our speed, each with whether it is there.
pub(crate) fn cpu_features() -> Vec<(&'static str, bool)> {
    #[cfg(target_arch = "x86_64")]
    return vec![
        ("sse4.2", std::arch::is_x86_feature_detected!("sse4.2")),
        ("avx2", std::arch::is_x86_feature_detected!("avx2")),
        ("fma", std::arch::is_x86_feature_detected!("fma")),
        ("avx512f", std::arch::is_x86_feature_detected!("avx512f")),
        ("avx512bf16", std::arch::is_x86_feature_detected!("avx512bf16")),
    ];
    #[cfg(target_arch = "aarch64")]
    return vec![("neon", std::arch::is_aarch64_feature_detected!("neon"))];
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    return Vec::new();
}

/// The value of the first line such as `model name\t: AMD EPYC`.
fn value_of(text: &str, key: &str) -> Option<String> {
    let (_, value) = text.lines().filter_map(|line| line.split_once(':')).find(|(name, _)| name.trim() == key)?;
    Some(value.trim().to_owned())
}

/// The value of a line such as `VmHWM:    1234 kB`, in bytes.
fn kib_of(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_kernel_are_read() {
        assert_eq!(kib_of("VmPeak:\t 5 kB\nVmHWM:\t    1234 kB\n", "VmHWM:"), Some(1234 * 1024));
        assert_eq!(kib_of("VmHWM: x kB", "VmHWM:"), None);
        let text = "processor\t: 0\nmodel\t\t: 1\nmodel name\t: Some CPU: 3 GHz\nmodel name\t: other\n";
        assert_eq!(value_of(text, "model name").as_deref(), Some("Some CPU: 3 GHz"));
        assert_eq!(value_of(text, "flags"), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn linux_tells_all_of_it() {
        assert!(peak_memory_bytes().is_some_and(|bytes| bytes > 1 << 20));
        assert!(memory_bytes().is_some_and(|(all, free)| free > 0 && free <= all));
        assert!(free_disk_bytes(Path::new(".")).is_some());
        assert!(load_average().is_some_and(|load| load >= 0.0));
    }
}
