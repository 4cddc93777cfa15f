//! Clips on disk to aligned, indexed training samples
