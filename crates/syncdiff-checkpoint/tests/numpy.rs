//! Tests of the reader of pickled NumPy dictionaries: a sound file, and what a hostile one may try.

use std::path::Path;

use syncdiff_checkpoint::{CheckpointResult, NumpyArray, read_numpy_pickle};

/// What Python writes for `{key: array}`, protocol 3, without the memo.
fn array(shape: &[u8], values: &[f32]) -> Vec<u8> {
    let mut bytes = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85C\x01b\x87R(K\x01(".to_vec();
    shape.iter().for_each(|axis| bytes.extend([b'K', *axis]));
    bytes.extend(
        b"tcnumpy\ndtype\nX\x02\0\0\0f4\x89\x88\x87R(K\x03X\x01\0\0\0<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\0tb\x89",
    );
    bytes.push(b'B');
    bytes.extend((4 * values.len() as u32).to_le_bytes());
    values.iter().for_each(|value| bytes.extend(value.to_le_bytes()));
    bytes.extend(b"tb");
    bytes
}

fn text(text: &str) -> Vec<u8> {
    [&b"X"[..], &(text.len() as u32).to_le_bytes()[..], text.as_bytes()].concat()
}

fn read(body: &[u8]) -> CheckpointResult<Vec<NumpyArray>> {
    let bytes = [b"\x80\x03", body, b"."].concat();
    read_numpy_pickle(Path::new("some.ckpt"), bytes)
}

#[test]
fn nested_dictionaries_become_dotted_names() {
    let inner = [
        b"}(".to_vec(),
        text("kernel"),
        array(&[1, 2], &[1.5, -2.0]),
        text("bias"),
        array(&[1], &[7.0]),
        b"u".to_vec(),
    ];
    let body = [b"}q\x00".to_vec(), text("Conv_0"), inner.concat(), b"s".to_vec()].concat();
    let array = |name: &str, shape: &[usize], values: &[f32]| NumpyArray {
        name: name.to_owned(),
        shape: shape.to_vec(),
        values: values.to_vec(),
    };
    let expected = [array("Conv_0.kernel", &[1, 2], &[1.5, -2.0]), array("Conv_0.bias", &[1], &[7.0])];
    assert_eq!(read(&body).unwrap(), expected);
}

/// What NumPy 2.4 writes, from the corpus of the fuzz target: protocols 3 and 4, with the memo.
#[test]
fn files_of_numpy_are_read() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/pickle");
    for name in ["numpy2_p3.pkl", "numpy2_p4.pkl"] {
        let path = corpus.join(name);
        let arrays = read_numpy_pickle(&path, std::fs::read(&path).unwrap()).unwrap();
        let found: Vec<_> = arrays.iter().map(|array| (&*array.name, &array.shape[..], &array.values[..])).collect();
        let kernel = ("Dense_0.kernel", &[1, 2][..], &[1.5, -2.0][..]);
        assert_eq!(found, [kernel, ("Dense_0.bias", &[1], &[7.0])], "{name}");
    }
}

#[test]
fn hostile_and_foreign_files_are_refused() {
    let one = |key: &[u8], value: &[u8]| [b"}", key, value, b"s"].concat();
    let key = text("a");
    let (big, mut other_order) = (array(&[3], &[0.0; 2]), array(&[1], &[0.0]));
    let order = other_order.windows(6).position(|bytes| bytes == b"X\x01\0\0\0<").unwrap();
    other_order[order + 5] = b'>';
    let mut object_elements = array(&[1], &[0.0]);
    let element = object_elements.windows(2).position(|bytes| bytes == b"f4").unwrap();
    object_elements[element..element + 2].copy_from_slice(b"O8");
    let cycle = [&b"}q\x00"[..], &key, b"h\x00s"].concat();
    // Thirty dictionaries, each holding the one before twice: a billion paths.
    let mut laughs = b"}q\x00".to_vec();
    for level in 0..30u8 {
        laughs.extend(
            [&b"}("[..], &text("a"), &[b'h', level], &text("b"), &[b'h', level], &[b'u', b'q', level + 1]].concat(),
        );
    }
    let mut copies = [&array(&[200], &[0.5; 200])[..], b"q\x00}("].concat();
    for i in 0..200 {
        copies.extend([text(&format!("{i}")), b"h\x00".to_vec()].concat());
    }
    copies.push(b'u');
    for (body, reason) in [
        (b"cos\nsystem\nX\x02\0\0\0ls\x85R".to_vec(), "os.system"),
        (one(&key, &big), "8 bytes for an array of shape [3]"),
        (one(&key, &other_order), "byte order is not little-endian"),
        (one(&key, b"K\x05"), "a number at \"a\""),
        (one(b"K\x05", &array(&[1], &[0.0])), "a number as a key"),
        (cycle, "nested more than"),
        (laughs, "nested more than"),
        (copies, "many names"),
        (b"X\xff\xff\xff\xff".to_vec(), "more than the limit"),
        (b"X\xff\0\0\0".to_vec(), "cut short"),
        (b"t".to_vec(), "not there"),
        (b"\x87".to_vec(), "not there"),
        (b"h\x07".to_vec(), "never stored"),
        (b"\x95".to_vec(), "cut short"),
        (b"N".repeat(200_000), "more than 100000 values"),
        (b"\x80\x06".to_vec(), "protocol 6"),
        (b"cnumpy\nndarray\n)R".to_vec(), "a call of numpy.ndarray"),
        (one(&key, &object_elements), "\"O8\""),
    ] {
        let error = read(&body).unwrap_err();
        assert!(error.to_string().contains(reason) && error.to_string().contains("some.ckpt"), "{reason}: {error}");
    }
    let whole = [&b"\x80\x03"[..], &one(&key, &array(&[2], &[1.0, 2.0])), b"."].concat();
    for len in 0..whole.len() {
        assert!(read_numpy_pickle(Path::new("cut"), whole[..len].to_vec()).is_err(), "{len}");
    }
}
