//! Numbers for generated videos
