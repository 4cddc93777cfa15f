//! The text forms of protocol 0: numbers as decimal digits, strings with Python's escapes.

use crate::error::{Outcome, Problem};
use crate::pickle::Node;

fn number_text(line: &[u8]) -> Outcome<&str> {
    std::str::from_utf8(line).map_err(|_| Problem::damaged("a number of the pickle is not text"))
}

/// `I` and `L`: `01` and `00` are truth values in the first, an `L` at the end is dropped in the second.
pub(crate) fn integer(line: &[u8], long: bool) -> Outcome<Node> {
    let text = number_text(line)?;
    match text {
        "00" if !long => return Ok(Node::Bool(false)),
        "01" if !long => return Ok(Node::Bool(true)),
        _ => {}
    }
    let digits = if long { text.strip_suffix('L').unwrap_or(text) } else { text };
    if let Ok(value) = digits.parse() {
        return Ok(Node::Int(value));
    }
    let plain = digits.strip_prefix('-').unwrap_or(digits);
    if plain.is_empty() || !plain.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Problem::damaged(format!("{:?} of the pickle is no integer", shortened(text))));
    }
    // Conversion takes time with the square of the length; this is four times the longest that PyTorch writes.
    if plain.len() > 100 {
        return Err(Problem::Unsupported(format!("a decimal integer of {} digits", plain.len())));
    }
    Ok(Node::Long(twos_complement(plain, digits.starts_with('-'))))
}

fn shortened(text: &str) -> String {
    text.chars().take(40).collect()
}

/// Decimal digits as the two's complement bytes of the binary forms.
fn twos_complement(digits: &str, negative: bool) -> Box<[u8]> {
    let mut bytes: Vec<u8> = Vec::new();
    for digit in digits.bytes() {
        let mut carry = u32::from(digit - b'0');
        for byte in &mut bytes {
            let value = u32::from(*byte) * 10 + carry;
            *byte = value as u8;
            carry = value >> 8;
        }
        if carry > 0 {
            bytes.push(carry as u8);
        }
    }
    bytes.push(0);
    if negative {
        let mut carry = true;
        for byte in &mut bytes {
            let (value, overflow) = (!*byte).overflowing_add(u8::from(carry));
            (*byte, carry) = (value, overflow);
        }
    }
    shortest(bytes)
}

/// Drops sign bytes that say nothing.
fn shortest(mut bytes: Vec<u8>) -> Box<[u8]> {
    while let [.., before, last] = bytes[..] {
        let sign = if before & 0x80 == 0 { 0 } else { 0xff };
        if last != sign {
            break;
        }
        bytes.pop();
    }
    bytes.into()
}

/// `LONG1` and `LONG4`.
pub(crate) fn long(bytes: Vec<u8>) -> Node {
    let bytes = shortest(bytes);
    if bytes.len() > 8 {
        return Node::Long(bytes);
    }
    let fill = if bytes.last().is_some_and(|last| last & 0x80 != 0) { 0xff } else { 0 };
    let mut value = [fill; 8];
    value[..bytes.len()].copy_from_slice(&bytes);
    Node::Int(i64::from_le_bytes(value))
}

/// `F`.
pub(crate) fn float(line: &[u8]) -> Outcome<Node> {
    let text = number_text(line)?;
    let value = text.trim().parse();
    value.map(Node::Float).map_err(|_| Problem::damaged(format!("{:?} of the pickle is no number", shortened(text))))
}

/// Bytes of Python 2 strings: text where they can be.
pub(crate) fn python2_string(bytes: Vec<u8>) -> Node {
    match String::from_utf8(bytes) {
        Ok(text) => Node::Text(text.into()),
        Err(error) => Node::Bytes(error.into_bytes().into()),
    }
}

/// `S`: a string in Python's quotes.
pub(crate) fn quoted(line: &[u8]) -> Outcome<Vec<u8>> {
    let bad = || Problem::damaged("a quoted string of the pickle is malformed");
    let line = line.trim_ascii();
    let [quote @ (b'\'' | b'"'), inner @ .., last] = line else { return Err(bad()) };
    if quote != last {
        return Err(bad());
    }
    let mut bytes = Vec::with_capacity(inner.len());
    let mut rest = inner.iter().copied();
    while let Some(byte) = rest.next() {
        if byte != b'\\' {
            bytes.push(byte);
            continue;
        }
        match rest.next().ok_or_else(bad)? {
            b'n' => bytes.push(b'\n'),
            b'r' => bytes.push(b'\r'),
            b't' => bytes.push(b'\t'),
            b'a' => bytes.push(7),
            b'b' => bytes.push(8),
            b'f' => bytes.push(12),
            b'v' => bytes.push(11),
            b'x' => {
                let high = hex_digit(rest.next()).ok_or_else(bad)?;
                let low = hex_digit(rest.next()).ok_or_else(bad)?;
                bytes.push((high * 16 + low) as u8);
            }
            plain @ (b'\\' | b'\'' | b'"') => bytes.push(plain),
            other => bytes.extend([b'\\', other]),
        }
    }
    Ok(bytes)
}

/// `V`: Latin-1 with `\uXXXX` and `\UXXXXXXXX`.
pub(crate) fn raw_unicode(line: &[u8]) -> Outcome<String> {
    let bad = || Problem::damaged("a unicode string of the pickle is malformed");
    let mut text = String::with_capacity(line.len());
    let mut rest = line.iter().copied().peekable();
    while let Some(byte) = rest.next() {
        let digits = match (byte, rest.peek()) {
            (b'\\', Some(b'u')) => 4,
            (b'\\', Some(b'U')) => 8,
            _ => {
                text.push(char::from(byte));
                continue;
            }
        };
        rest.next();
        let mut code = 0u32;
        for _ in 0..digits {
            code = (code << 4) | hex_digit(rest.next()).ok_or_else(bad)?;
        }
        text.push(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER));
    }
    Ok(text)
}

fn hex_digit(byte: Option<u8>) -> Option<u32> {
    byte.and_then(|byte| char::from(byte).to_digit(16))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_integers_have_one_form_however_they_are_written() {
        let magic = b"119547037146038801333356L";
        let Node::Long(bytes) = integer(magic, true).unwrap() else { panic!("fits in 64 bits?") };
        assert_eq!(*bytes, [0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19]);
        let Node::Long(again) = long(bytes.to_vec()) else { panic!() };
        assert_eq!(again, bytes);
        let Node::Long(negative) = integer(b"-36893488147419103232L", true).unwrap() else { panic!() };
        assert_eq!(*negative, [0, 0, 0, 0, 0, 0, 0, 0, 0xfe]);
        for value in [0i64, 1, -1, 127, 128, -128, -129, 255, 256, i64::MAX, i64::MIN] {
            let Node::Int(read) = long(value.to_le_bytes().to_vec()) else { panic!() };
            assert_eq!(read, value);
        }
        assert!(matches!(integer(b"01", false).unwrap(), Node::Bool(true)));
        assert!(integer(b"1x", false).is_err() && integer(b"", true).is_err() && integer(&[b'9'; 5000], true).is_err());
    }

    #[test]
    fn escapes_of_protocol_zero() {
        assert_eq!(quoted(br#"'a\n\x41\'"\\\q'"#).unwrap(), b"a\nA'\"\\\\q");
        assert!(quoted(b"'a").is_err() && quoted(b"'").is_err() && quoted(br"'\'").is_err() && quoted(b"").is_err());
        assert_eq!(raw_unicode(b"a\\u0416\xe9\\U0001f600\\n").unwrap(), "a\u{416}\u{e9}\u{1f600}\\n");
        assert!(raw_unicode(b"\\u12").is_err());
    }
}
