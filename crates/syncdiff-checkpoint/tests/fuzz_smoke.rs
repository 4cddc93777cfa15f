//! A few seconds of what the fuzz targets do for hours: mutated files must not make the reader panic.

mod common;

use std::time::{Duration, Instant};

use syncdiff_checkpoint::read_pickle;

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

#[test]
fn fuzz_smoke() {
    let corpus = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    let folders = ["pickle", "zip", "legacy", "safetensors"].map(|name| corpus.join(name));
    let files_in = |folder: &std::path::Path| {
        let mut paths: Vec<_> = std::fs::read_dir(folder).expect("a corpus").flatten().map(|e| e.path()).collect();
        paths.sort();
        paths.iter().map(|path| std::fs::read(path).expect("a seed")).collect::<Vec<_>>()
    };
    let pickles = files_in(&folders[0]);
    let files: Vec<Vec<u8>> = folders[1..].iter().flat_map(|folder| files_in(folder)).collect();
    assert!(pickles.len() >= 3 && files.len() >= 6);
    let start = Instant::now();
    let (mut runs, mut read) = (0u64, 0u64);
    while start.elapsed() < Duration::from_secs(3) {
        runs += 1;
        let mut generator = Generator(runs);
        let slowest = Instant::now();
        let other = &files[generator.below(files.len())];
        if runs % 2 == 0 {
            let mut bytes = pickles[generator.below(pickles.len())].clone();
            mutate(&mut generator, &mut bytes, other);
            read += u64::from(common::use_fully(common::archive(&bytes)).is_ok());
            read += u64::from(read_pickle(bytes).is_ok());
        } else {
            let mut bytes = files[generator.below(files.len())].clone();
            mutate(&mut generator, &mut bytes, other);
            read += u64::from(common::use_fully(bytes).is_ok());
        }
        assert!(slowest.elapsed() < Duration::from_secs(3), "run {runs} took {:?}", slowest.elapsed());
    }
    // Both ways must be taken, or the mutations are too wild or too tame.
    assert!(read > runs / 100 && read < runs * 2, "{read} of {runs} were read");
}
