//! Which of the faces of a clip is meant: the value of `--face`.

use crate::FaceError;
use std::fmt;
use std::str::FromStr;

/// Which of the faces of a clip is meant.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum FaceChoice {
    /// The track with the largest sum of box areas over its frames.
    #[default]
    Largest,
    /// The track furthest to the left in the picture.
    Left,
    /// The track furthest to the right in the picture.
    Right,
    /// The track nearest to the middle of the picture.
    Center,
    /// A track by its number, as `scan` lists them.
    Id(u32),
    /// The track whose box holds a pixel of a frame.
    Point {
        /// Frame index, from 0.
        frame: usize,
        /// Column in pixels.
        x: f32,
        /// Row in pixels.
        y: f32,
    },
}

impl FromStr for FaceChoice {
    type Err = FaceError;

    fn from_str(value: &str) -> Result<Self, FaceError> {
        let bad = |detail: &str| FaceError::BadChoice { value: value.to_owned(), detail: detail.to_owned() };
        match value {
            "largest" => return Ok(FaceChoice::Largest),
            "left" => return Ok(FaceChoice::Left),
            "right" => return Ok(FaceChoice::Right),
            "center" => return Ok(FaceChoice::Center),
            _ => {}
        }
        if let Some(id) = value.strip_prefix("id:") {
            return id.parse().map(FaceChoice::Id).map_err(|_| bad("N must be a track number, 0 or more"));
        }
        let Some(point) = value.strip_prefix("point:") else {
            return Err(bad("there is no such choice"));
        };
        let parts: Vec<&str> = point.split(',').collect();
        let [frame, x, y] = parts[..] else { return Err(bad("three numbers are needed")) };
        let frame = frame.parse().map_err(|_| bad("FRAME must be a frame index, 0 or more"))?;
        let coordinate = |text: &str| {
            let number = text.parse::<f32>().ok().filter(|v| v.is_finite() && *v >= 0.0);
            number.ok_or_else(|| bad("X and Y must be pixels, 0 or more"))
        };
        Ok(FaceChoice::Point { frame, x: coordinate(x)?, y: coordinate(y)? })
    }
}

impl fmt::Display for FaceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FaceChoice::Largest => f.write_str("largest"),
            FaceChoice::Left => f.write_str("left"),
            FaceChoice::Right => f.write_str("right"),
            FaceChoice::Center => f.write_str("center"),
            FaceChoice::Id(id) => write!(f, "id:{id}"),
            FaceChoice::Point { frame, x, y } => write!(f, "point:{frame},{x},{y}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Fault;

    #[test]
    fn every_form_is_read_and_written() {
        for text in ["largest", "left", "right", "center", "id:7", "point:12,30.5,8"] {
            assert_eq!(text.parse::<FaceChoice>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn mistakes_are_usage_errors_that_say_what_to_write() {
        for text in ["", "Largest", "id:", "id:-1", "point:1,2", "point:a,1,2", "point:1,nan,2"] {
            let error = text.parse::<FaceChoice>().unwrap_err();
            assert_eq!(error.fault(), Fault::Usage);
            assert!(error.to_string().contains("point:FRAME,X,Y"), "{error}");
        }
    }
}
