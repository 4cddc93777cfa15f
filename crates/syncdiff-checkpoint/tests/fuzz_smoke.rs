//! A few seconds of what the fuzz targets do for hours: the corpus and mutations of it must not make the reader panic.

mod common;

use std::time::{Duration, Instant};

/// SplitMix64: the same mutations in every run.
struct Generator(u64);

impl Generator {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit.max(1) as u64) as usize
    }
}

fn mutate(generator: &mut Generator, bytes: &mut Vec<u8>, other: &[u8]) {
    for _ in 0..=generator.below(4) {
        let at = generator.below(bytes.len());
        let end = (at + 1 + generator.below(16)).min(bytes.len());
        match generator.below(7) {
            0 if !bytes.is_empty() => bytes[at] ^= 1 << generator.below(8),
            1 if !bytes.is_empty() => bytes[at] = generator.next() as u8,
            2 => bytes.truncate(at),
            3 => drop(bytes.drain(at..end)),
            4 => {
                let copy = bytes[at..end].to_vec();
                bytes.splice(at..at, copy);
            }
            5 => {
                let from = generator.below(other.len());
                let piece = &other[from..(from + 1 + generator.below(64)).min(other.len())];
                bytes.splice(at..at, piece.iter().copied());
            }
            _ => {
                // Sizes and offsets at their extremes.
                let value = [0, 1, u64::MAX, 1 << 31, 1 << 32, 1 << 60, u64::from(u32::MAX)][generator.below(7)];
                let width = [1, 2, 4, 8][generator.below(4)];
                for (byte, new) in bytes[at..].iter_mut().zip(value.to_le_bytes().iter().take(width)) {
                    *byte = *new;
                }
            }
        }
    }
}

/// The files of a target's corpus, in the order of their names.
fn corpus(target: &str) -> Vec<Vec<u8>> {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut paths: Vec<_> = std::fs::read_dir(folder).expect("a corpus").flatten().map(|entry| entry.path()).collect();
    paths.sort();
    paths.iter().map(|path| std::fs::read(path).expect("a seed")).collect()
}

/// Runs a target and fails when it takes long.
fn timed(name: &str, target: common::Target, bytes: &[u8]) -> bool {
    let start = Instant::now();
    let read = target(bytes);
    assert!(start.elapsed() < Duration::from_secs(3), "{name} took {:?}: {bytes:?}", start.elapsed());
    read
}

#[test]
fn the_corpus_of_every_target_is_read_or_refused() {
    for (name, target) in common::TARGETS {
        let files = corpus(name);
        let read = files.iter().filter(|bytes| timed(name, target, bytes)).count();
        assert!(read > 0 && files.len() > 10, "{name}: {read} of {} files", files.len());
    }
}

#[test]
fn fuzz_smoke() {
    for (seed, (name, target)) in common::TARGETS.into_iter().enumerate() {
        let files = corpus(name);
        let start = Instant::now();
        let (mut runs, mut read) = (0u64, 0u64);
        while start.elapsed() < Duration::from_secs(1) {
            runs += 1;
            let mut generator = Generator(runs * 4 + seed as u64);
            let mut bytes = files[generator.below(files.len())].clone();
            let other = &files[generator.below(files.len())];
            mutate(&mut generator, &mut bytes, other);
            read += u64::from(timed(name, target, &bytes));
        }
        // Both ways must be taken, or the mutations are too wild or too tame.
        assert!(read > runs / 1000 && read < runs, "{name}: {read} of {runs} were read");
    }
}
