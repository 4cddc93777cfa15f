//! Out of memory: what of it can be caught, so that the work goes on with less at once.
//!
//! The back ends of GPUs and LibTorch end an operation for which there is no memory with a panic that says so;
//! [`guarded`] makes [`Error::OutOfMemory`] of it, and whoever asked for several pictures at once asks for fewer.
//!
//! On the CPU there is nothing to catch. Linux promises memory that it may not have and kills the program that uses it;
//! where an allocation does fail, as under a limit on address space, Rust ends the program. There, the memory is
//! compared with what the model needs before the work begins, and a smaller batch can be asked for.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use crate::error::{Error, Outcome, panic_text};

/// How back ends say it: cubecl (CUDA, Vulkan, Metal), its launches, its allocator; LibTorch on a GPU and on the CPU.
const WORDS: [&str; 5] =
    ["out of device memory", "out-of-memory", "can't allocate buffer", "out of memory", "can't allocate memory"];

/// Does some work of a network; a panic that tells of a lack of memory becomes an error, every other one goes on.
///
/// # Errors
/// [`Error::OutOfMemory`], and those of the work.
pub fn guarded<T>(work: impl FnOnce() -> Outcome<T>) -> Outcome<T> {
    // Networks hold nothing that a panic leaves half done: results are handed back whole.
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| match panic_text(&*panic).and_then(lack) {
        Some(detail) => Err(Error::OutOfMemory { detail }),
        None => resume_unwind(panic),
    })
}

/// The line of a message that tells of a lack of memory.
fn lack(message: &str) -> Option<String> {
    let tells = |line: &&str| WORDS.iter().any(|words| line.to_lowercase().contains(words));
    message.lines().find(tells).map(|line| line.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lack_of_memory_is_told_from_a_defect() {
        for (message, line) in [
            ("Error while reading data: out of device memory allocating 4096 bytes\nbacktrace", None),
            (
                "called `Result::unwrap()` on an `Err` value: Torch(\"CUDA out of memory. Tried to allocate 2 GiB\")",
                None,
            ),
            ("Launch\nCaused by:\n  An out-of-memory error happened during launch\nBacktrace", Some(2)),
        ] {
            let expected = message.lines().nth(line.unwrap_or(0)).unwrap().trim();
            let error = guarded::<()>(|| panic!("{message}")).unwrap_err();
            assert!(matches!(&error, Error::OutOfMemory { detail } if detail == expected), "{error}");
            assert_eq!(error.exit_code(), 6);
        }
        let panic = catch_unwind(|| guarded::<()>(|| panic!("index out of bounds"))).unwrap_err();
        assert_eq!(panic.downcast_ref::<&str>(), Some(&"index out of bounds"));
        assert_eq!(guarded(|| Ok(7)).unwrap(), 7);
        assert!(matches!(guarded::<()>(|| Err(Error::Cancelled)), Err(Error::Cancelled)));
    }
}
