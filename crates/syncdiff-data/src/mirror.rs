//! Which face landmark takes the place of which in a mirrored picture.

use syncdiff_face::NUM_LANDMARKS;

/// Landmarks on the middle line of the face.
///
/// # Source
/// The canonical face model of MediaPipe (`canonical_face_model.obj`): the vertices with x = 0. Its
/// vertices 0 to 247 are the middle line and one side, 248 to 467 the other side in the same order.
const MIDDLE: [u16; 28] =
    [0, 1, 2, 4, 5, 6, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 94, 151, 152, 164, 168, 175, 195, 197, 199, 200];

/// First landmark of the second side.
const SECOND_SIDE: usize = 248;

/// For each landmark the one that takes its place in the mirrored picture; applied twice, it changes
/// nothing.
pub const MIRRORED_LANDMARK: [u16; NUM_LANDMARKS] = {
    let mut table = [0; NUM_LANDMARKS];
    let (mut at, mut middle, mut side) = (0, 0, SECOND_SIDE);
    while at < SECOND_SIDE {
        if middle < MIDDLE.len() && MIDDLE[middle] as usize == at {
            table[at] = at as u16;
            middle += 1;
        } else {
            table[at] = side as u16;
            table[side] = at as u16;
            side += 1;
        }
        at += 1;
    }
    assert!(side == NUM_LANDMARKS);
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_pairs_and_the_whole_table_agree() {
        for (at, mirrored) in MIRRORED_LANDMARK.iter().enumerate() {
            assert_eq!(usize::from(MIRRORED_LANDMARK[usize::from(*mirrored)]), at);
        }
        // Eye corners, mouth corners, inner lip corners, lips, brows, temples: well-known pairs.
        for (a, b) in [(33, 263), (133, 362), (61, 291), (78, 308), (39, 269), (84, 314), (70, 300), (127, 356)] {
            assert_eq!(MIRRORED_LANDMARK[a], b);
        }
    }
}
