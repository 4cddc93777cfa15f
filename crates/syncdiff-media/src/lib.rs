//! Files to frames, samples and time, and back, through ffmpeg child processes
