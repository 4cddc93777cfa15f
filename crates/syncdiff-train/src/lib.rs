//! Losses, trainers, checkpoints and resume
