//! TFLite.
