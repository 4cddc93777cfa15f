//! Files made to harm: each ends in an error, or in a value that is only looked at, quickly and in little memory.

mod common;

use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use common::{Member, archive, use_fully, zip};
use peak_alloc::PeakAlloc;
use syncdiff_checkpoint::{Checkpoint, CheckpointError, Value, limits, read_pickle};

/// Counts the bytes that are allocated; a buffer that grows counts with its old and its new size.
#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// How long a hostile file may keep the reader busy.
const SECOND: Duration = Duration::from_secs(1);
/// How much it may make the reader allocate beyond the bytes of the file itself; the worst file here, with as many
/// values as a pickle may have, needs 100 MiB.
const MOST_BYTES: usize = 160 << 20;

/// Memory is counted for the whole process: tests take turns.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Does `work` with a file, in a second and in bounded memory. A machine that is busy with other things may need a
/// second and a third try.
fn quickly<T>(what: &str, file: Vec<u8>, work: impl Fn(Vec<u8>) -> T) -> T {
    static LARGEST: AtomicUsize = AtomicUsize::new(0);
    let mut times = Vec::new();
    loop {
        let copy = file.clone();
        MEMORY.reset_peak_usage();
        let (before, start) = (MEMORY.current_usage(), Instant::now());
        let result = work(copy);
        let (time, bytes) = (start.elapsed(), MEMORY.peak_usage() - before);
        assert!(bytes < MOST_BYTES, "{what}: {bytes} bytes");
        if LARGEST.fetch_max(bytes, Ordering::Relaxed) < bytes && bytes > 1 << 20 {
            println!("{what}: {:.1} MiB, {time:.2?}", bytes as f64 / f64::from(1 << 20));
        }
        times.push(time);
        if time < SECOND {
            return result;
        }
        assert!(times.len() < 3, "{what} took {times:?}");
    }
}

fn error_of(what: &str, file: Vec<u8>) -> CheckpointError {
    quickly(what, file, use_fully).expect_err(what)
}

fn assert_refused(what: &str, file: Vec<u8>, budget_words: &str) {
    match error_of(what, file) {
        CheckpointError::Refused { budget, found, limit, .. } => {
            assert!(budget.contains(budget_words) && found > limit, "{what}: {budget} {found} {limit}");
        }
        other => panic!("{what}: {other}"),
    }
}

fn assert_damaged(what: &str, file: Vec<u8>, words: &str) {
    let error = error_of(what, file);
    assert!(matches!(error, CheckpointError::Damaged { .. }) && error.to_string().contains(words), "{what}: {error}");
}

/// A float tensor over storage `0`, as text opcodes: offset, sizes and strides as Python writes them.
fn tensor(elements: &str, offset: &str, sizes: &str, strides: &str) -> Vec<u8> {
    let tuple = |values: &str| {
        let items: String = values.split_whitespace().map(|value| format!("L{value}L\n")).collect();
        format!("({items}t")
    };
    format!(
        "}}V w\nctorch._utils\n_rebuild_tensor_v2\n((Vstorage\nctorch\nFloatStorage\nV0\nVcpu\nL{elements}L\ntQ\
         L{offset}L\n{}{}I00\n}}tRs.",
        tuple(sizes),
        tuple(strides)
    )
    .into_bytes()
}

#[test]
fn an_honest_file_of_these_helpers_is_read() {
    let _turn = turn();
    let checkpoint = Checkpoint::from_bytes("x", archive(&tensor("6", "1", "2 2", "1 2"))).unwrap();
    assert_eq!(checkpoint.tensors()[0].shape, [2, 2]);
    assert_eq!(checkpoint.read_bytes(" w").unwrap(), [1; 16]);
}

fn assert_shown_only(pickle: Vec<u8>) {
    let Value::Object { class, args, .. } = read_pickle(pickle.clone()).unwrap() else { panic!("no object") };
    assert!(class.ends_with(".system") && args[0].as_str().is_some_and(|text| text.contains("touch")), "{class}");
    let checkpoint = Checkpoint::from_bytes("x", archive(&pickle)).unwrap();
    assert!(checkpoint.tensors().is_empty());
    assert_eq!(checkpoint.foreign_classes(), [class]);
}

#[test]
fn a_call_of_os_system_is_shown_and_not_made() {
    let _turn = turn();
    let folder = tempfile::tempdir().unwrap();
    let mark = folder.path().join("mark");
    let command = format!("touch {}", mark.display());
    let text = format!("V{command}\n");
    for call in
        [format!("cos\nsystem\n({text}tR."), format!("(cos\nsystem\n{text}o."), format!("({text}ios\nsystem\n.")]
    {
        assert_shown_only(call.into_bytes());
    }
    for (end, name) in [(&b"\x85\x81."[..], "os"), (b"\x85}\x92.", "posix"), (b"\x85R.", "nt")] {
        assert_shown_only([format!("c{name}\nsystem\n{text}").as_bytes(), end].concat());
    }
    assert_shown_only([&b"Vos\nVsystem\n\x93"[..], text.as_bytes(), b"\x85R."].concat());
    std::thread::sleep(Duration::from_millis(50));
    assert!(!mark.exists(), "the command was run");
}

#[test]
fn a_memo_bomb_stays_small() {
    let _turn = turn();
    // Ten references to ten references to ..., thirty levels deep.
    for (open, close) in [(b']', b'e'), (b'(', b't')] {
        let mut pickle = b"\x80\x02](Vlaugh\ne".to_vec();
        for level in 0..30u8 {
            pickle.extend([b'q', level]);
            if open == b']' {
                pickle.push(b']');
            }
            pickle.push(b'(');
            for _ in 0..10 {
                pickle.extend([b'h', level]);
            }
            pickle.push(close);
        }
        pickle.push(b'.');
        assert_refused("a memo bomb", archive(&pickle), "");
        let error = quickly("a tree of a memo bomb", pickle, read_pickle).unwrap_err();
        assert!(matches!(error, CheckpointError::Refused { .. }), "{error}");
    }
}

#[test]
fn names_cannot_be_multiplied() {
    let _turn = turn();
    // A long key on every level: names would be as long as the square of the file.
    let mut pickle = b"\x80\x02X\x00\x00\x10\x00".to_vec();
    pickle.extend(vec![b'k'; 1 << 20]);
    pickle.extend(b"q\x000}");
    for _ in 0..60 {
        pickle.extend(b"h\x00}");
    }
    pickle.extend(vec![b's'; 60]);
    pickle.push(b'.');
    assert_refused("long names", archive(&pickle), "length of all names");
}

#[test]
fn declared_sizes_are_compared_with_the_file_first() {
    let _turn = turn();
    let huge = (1u64 << 60).to_le_bytes();
    for opcode in [0x8d, 0x8e, 0x96] {
        assert_refused("a huge string", archive(&[&[opcode][..], &huge, b"."].concat()), "text of a pickle");
        let long = (limits::PICKLE_STRING_BYTES - 1).to_le_bytes();
        assert_damaged("a long string", archive(&[&[opcode][..], &long, b"."].concat()), "cut short");
    }
    assert_refused("a huge integer", archive(b"\x8b\xff\xff\xff\xff."), "text of a pickle");
    assert_damaged("a huge frame", archive(&[b"\x80\x04\x95", &huge[..], b"N."].concat()), "cut short");
    let exa = 1u64 << 60;
    assert_damaged("a huge tensor", archive(&tensor("6", "0", &exa.to_string(), "1")), "beyond its storage");
    assert_damaged("a huge storage", archive(&tensor(&exa.to_string(), "0", &exa.to_string(), "1")), "has 24");
    assert_damaged("2^120 elements", archive(&tensor("6", "0", &format!("{exa} {exa}"), "1 1")), "larger than any");
    assert_refused("an expanded tensor", archive(&tensor("6", "0", &exa.to_string(), "0")), "expanded");
    assert_refused("a tensor of many axes", archive(&tensor("6", "0", &"1 ".repeat(65), &"1 ".repeat(65))), "axes");
    assert_damaged("an offset outside", archive(&tensor("6", "6", "1", "1")), "beyond its storage");
    assert_damaged("a huge offset", archive(&tensor("6", &i64::MAX.to_string(), "2", "1")), "beyond its storage");
    assert_damaged("a huge stride", archive(&tensor("6", "0", "3", &i64::MAX.to_string())), "beyond its storage");
    assert_damaged("a negative stride", archive(&tensor("6", "5", "3", "-1")), "do not fit");
    assert_damaged("a negative size", archive(&tensor("6", "0", "-3", "1")), "do not fit");
    assert_damaged("strides without sizes", archive(&tensor("6", "0", "", "1")), "0 sizes and 1 strides");
    let expanded = limits::EXPANDED_ELEMENTS.to_string();
    assert_refused("many expanded elements", archive(&tensor("6", "0", &expanded, "0")), "size of all tensors");
}

#[test]
fn storages_are_where_the_pickle_says_or_nowhere() {
    let _turn = turn();
    let pickle = tensor("6", "0", "6", "1");
    let without = zip(&[Member::stored("a/data.pkl", &pickle)]);
    assert_damaged("no storage", without, "\"a/data/0\" is missing");
    let short = zip(&[Member::stored("a/data.pkl", &pickle), Member::stored("a/data/0", &[0; 23])]);
    assert_damaged("a short storage", short, "has 23");
    let twice = zip(&[
        Member::stored("a/data.pkl", &pickle),
        Member::stored("a/data/0", &[0; 24]),
        Member::stored("a/data/0", &[0; 24]),
    ]);
    assert_damaged("two storages of one name", twice, "two zip members");
    let climbing = String::from_utf8(pickle.clone()).unwrap().replace("V0\n", "V../../etc/passwd\n");
    assert_damaged("a key that climbs", archive(climbing.as_bytes()), "missing");
}

#[test]
fn compressed_members_may_not_grow_beyond_reason() {
    let _turn = turn();
    let deflate = |len: usize| {
        let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(&vec![b'N'; len]).unwrap();
        encoder.finish().unwrap()
    };
    let member = |name, len: usize, claimed_len| Member { name, method: 8, packed: deflate(len), claimed_len };
    let bomb = zip(&[member("a/data.pkl", 100 << 20, 100 << 20)]);
    assert!(bomb.len() < 200_000);
    assert_refused("a bomb", bomb, "zip member");
    assert_damaged("a bomb that lies", zip(&[member("a/data.pkl", 100 << 20, 1000)]), "another size");
    assert_refused("a bomb of 2^60", zip(&[member("a/data.pkl", 10, 1 << 60)]), "zip member");
    assert_damaged("a short member", zip(&[member("a/data.pkl", 10, 1000)]), "another size");
    let elements = ((64 << 20) / 4).to_string();
    let pickle = tensor(&elements, "0", &elements, "1");
    let storage = zip(&[Member::stored("a/data.pkl", &pickle), member("a/data/0", 64 << 20, 64 << 20)]);
    assert_refused("a storage of zeros", storage, "size of all tensors");
    let elements = ((4 << 20) / 4).to_string();
    let pickle = tensor(&elements, "0", &elements, "1");
    let storage = zip(&[Member::stored("a/data.pkl", &pickle), member("a/data/0", 4 << 20, 4 << 20)]);
    assert_refused("a smaller storage of zeros", storage, "compression ratio");
    let strange = Member { name: "a/data.pkl", method: 14, packed: vec![0; 9], claimed_len: 9 };
    assert!(matches!(error_of("LZMA", zip(&[strange])), CheckpointError::Unsupported { .. }));
}

#[test]
fn a_cut_anywhere_is_an_error() {
    let _turn = turn();
    for name in ["zip_views.pt", "legacy_fairseq.pt", "plain.safetensors", "torch112_fairseq.pt"] {
        let whole = std::fs::read(common::fixtures().join(name)).unwrap();
        use_fully(whole.clone()).unwrap();
        for len in 0..whole.len() {
            let cut = quickly(name, whole[..len].to_vec(), use_fully);
            assert!(cut.is_err(), "{name} cut to {len} of {} bytes was read", whole.len());
        }
    }
    let pickle = tensor("6", "1", "2 2", "1 2");
    for len in 0..pickle.len() {
        assert_damaged("a cut pickle", archive(&pickle[..len]), "");
    }
}

#[test]
fn machines_without_a_stack_or_memo() {
    let _turn = turn();
    for opcodes in [
        &b"."[..],
        b"0.",
        b"2.",
        b"1.",
        b"a.",
        b"e.",
        b"s.",
        b"u.",
        b"t.",
        b"l.",
        b"d.",
        b"R.",
        b"b.",
        b"Q.",
        b"o.",
        b"q\0.",
        b"\x85.",
        b"\x87.",
        b"\x81.",
        b"\x92.",
        b"\x93.",
        b"\x94.",
        b"\x90.",
        b"(.",
        b"(N(.",
        b"(N(a.",
        b"(o.",
        b"Na.",
        b"NNa.",
        b"N(NNu.",
        b"}(Nu.",
        b"NNR.",
        b"NN\x93.",
        b"NQ.",
    ] {
        assert_damaged("underflow", archive(opcodes), "");
        assert!(matches!(read_pickle(opcodes.to_vec()), Err(CheckpointError::Damaged { .. })), "{opcodes:?}");
    }
    for opcodes in [&b"h\x05."[..], b"j\xff\xff\xff\xff.", b"g7\n.", b"g\n.", b"gx\n.", b"g-1\n."] {
        assert_damaged("a missing memo entry", archive(opcodes), "");
    }
    // An index of four billion takes no memory for those below it.
    assert_eq!(read_pickle(b"Nr\xff\xff\xff\xff.".to_vec()).unwrap(), Value::None);
}

#[test]
fn deep_and_endless_containers() {
    let _turn = turn();
    let deep = [vec![b']'; 1_000_000], vec![b'a'; 999_999], vec![b'.']].concat();
    assert_refused("a million lists", archive(&deep), "depth");
    quickly("a million lists as a tree", deep, read_pickle).unwrap();
    assert_damaged("a list in itself", archive(b"]q\0h\0a."), "holds itself");
    assert_damaged("a dict in itself", archive(b"}q\0Vself\nh\0s."), "holds itself");
    assert_damaged("a dict in its list", archive(b"}q\0Vlist\n]h\0as."), "holds itself");
    assert_eq!(read_pickle(b"]q\0h\0a.".to_vec()).unwrap(), Value::List(vec![Value::Cut]));
    // A foreign object that knows itself harms nobody.
    let object = b"cmodels\nNode\n)Rq\0}Vparent\nh\0sb.";
    assert_eq!(use_fully(archive(object)).unwrap(), 0);
}

#[test]
fn work_is_bounded() {
    let _turn = turn();
    let opcodes = [vec![b'N'], b"20".repeat(3_000_000), vec![b'.']].concat();
    assert_refused("opcodes", archive(&opcodes), "opcodes");
    assert_refused("values", archive(&vec![b'N'; 3_000_000]), "values of a pickle");
    // One long list, copied by each of many calls.
    let mut pickle = b"]q\x01(".to_vec();
    pickle.extend(vec![b'N'; 100_000]);
    pickle.extend(b"e0c__builtin__\nset\nq\x02");
    for _ in 0..100_000 {
        pickle.extend(b"h\x02h\x01\x85R0");
    }
    assert_refused("copies", archive(&pickle), "values of a pickle");
    // Many objects that share one long state.
    let mut pickle = b"}q\x01(".to_vec();
    pickle.extend(b"NN".repeat(50_000));
    pickle.extend(b"u0cmodels\nNet\nq\x02(");
    for _ in 0..100_000 {
        pickle.extend(b"h\x02)\x81h\x01b");
    }
    pickle.extend(b"l.");
    assert_refused("shared states", archive(&pickle), "values reached");
}

#[test]
fn hostile_safetensors() {
    let _turn = turn();
    let file = |header: &str, data: usize| {
        [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &vec![0; data]].concat()
    };
    let entry =
        |shape: &str, range: &str| format!(r#"{{"a":{{"dtype":"F32","shape":{shape},"data_offsets":{range}}}}}"#);
    assert_eq!(use_fully(file(&entry("[1]", "[0,4]"), 4)).unwrap(), 1);
    for (header, data) in [
        (entry("[1]", "[0,4]"), 3),
        (entry("[1]", "[0,4]"), 5),
        (entry("[1]", "[1,5]"), 5),
        (entry("[1]", "[4,0]"), 4),
        (entry("[1]", "[0,8]"), 8),
        (entry("[4611686018427387905,4]", "[0,16]"), 16),
        (entry("[-1]", "[0,4]"), 4),
        (r#"{"a":3}"#.to_owned(), 0),
        (r#"{"a""#.to_owned(), 0),
        (format!("{{\"a\":{}", "[".repeat(100_000)), 0),
    ] {
        assert_damaged(&header[..header.len().min(80)], file(&header, data), "");
    }
    let strange = entry("[1]", "[0,1]").replace("F32", "Q9");
    assert!(matches!(error_of("Q9", file(&strange, 1)), CheckpointError::Unsupported { .. }));
    let long = [&(limits::SAFETENSORS_HEADER_BYTES + 1).to_le_bytes()[..], b"{"].concat();
    assert_refused("a long header", long, "header");
}
