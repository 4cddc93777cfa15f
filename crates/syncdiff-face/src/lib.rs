//! Detect, track, align and mask faces, and paste them back
