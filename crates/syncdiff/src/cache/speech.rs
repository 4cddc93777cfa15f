//! Encoded speech from the cache: one row of numbers for each model frame.

use burn::tensor::{DType, Device, Tensor, TensorData};
use syncdiff_model::{LipSync, SpeechTokens};

use super::codec::{Bytes, put_count};
use super::{Cache, Kept, Key, Kind};
use crate::device::DeviceChoice;
use crate::error::Outcome;
use crate::network::Recipe;

/// To be raised with every change of the speech encoder or of the form of an entry.
const FORMAT: u32 = 1;

/// As [`LipSync::encode_speech`], which runs only if the cache does not know the speech as these weights hear it.
///
/// # Errors
/// As [`LipSync::encode_speech`].
pub fn encode_speech(
    cache: Option<&Cache>,
    recipe: &Recipe,
    model: &LipSync,
    device: (&Device, DeviceChoice),
    samples: &[i16],
    num_frames: usize,
) -> Outcome<(SpeechTokens, Option<Kept>)> {
    let (device, device_name) = device;
    // Kept by what was decoded rather than by the file: the same sound in another file is the same speech.
    let key = cache.map(|_| {
        let sound: Vec<u8> = samples.iter().flat_map(|sample| sample.to_le_bytes()).collect();
        let key =
            Key::new(Kind::Speech, FORMAT).with(device_name.to_string()).with(num_frames.to_le_bytes()).with(sound);
        recipe.checksums().fold(key, Key::with)
    });
    Cache::find_or_make(
        cache,
        key,
        |bytes| {
            let (rows, shape) = decode(bytes).filter(|(_, [rows, _])| *rows == num_frames)?;
            Some(SpeechTokens::from_rows(Tensor::from_data(TensorData::new(rows, shape), device)))
        },
        || Ok(model.encode_speech(samples, num_frames)?),
        |tokens| {
            let data = tokens.rows().to_data();
            // Numbers of another type would not come back as such: they are not kept.
            let rows = (data.dtype() == DType::F32).then(|| data.try_to_vec::<f32>().ok()).flatten()?;
            Some(encode(&rows, tokens.rows().dims()))
        },
    )
}

fn encode(rows: &[f32], shape: [usize; 2]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(16 + 4 * rows.len());
    shape.iter().for_each(|size| put_count(&mut bytes, *size));
    rows.iter().for_each(|value| bytes.extend(value.to_le_bytes()));
    bytes
}

fn decode(bytes: &[u8]) -> Option<(Vec<f32>, [usize; 2])> {
    let mut bytes = Bytes(bytes);
    let shape = [bytes.count(1)?, bytes.count(1)?];
    let len = shape[0].checked_mul(shape[1])?;
    if len.checked_mul(4)? != bytes.0.len() {
        return None;
    }
    let rows = (0..len).map(|_| bytes.f32()).collect::<Option<Vec<f32>>>()?;
    Some((rows, shape))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_come_back_to_the_bit() {
        let rows = [0.1, -0.0, f32::MIN_POSITIVE, 3.0e8, 1.0 / 3.0, f32::MAX];
        let bytes = encode(&rows, [3, 2]);
        let (found, shape) = decode(&bytes).unwrap();
        assert_eq!(shape, [3, 2]);
        assert!(found.iter().zip(rows).all(|(a, b)| a.to_bits() == b.to_bits()));
        for len in 0..bytes.len() {
            assert!(decode(&bytes[..len]).is_none());
        }
        assert!(decode(&encode(&rows, [2, 2])).is_none() && decode(&encode(&[f32::NAN], [1, 1])).is_none());
        assert!(decode(&encode(&[], [usize::MAX, usize::MAX])).is_none());
    }
}
