//! Diffusion lip-sync: the pipeline and the command line
