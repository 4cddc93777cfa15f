//! Wav2Lip: a face with its lower half hidden, a reference face and 0.2 s of sound to a face; its sync expert and its
//! quality discriminator.
//!
//! # Source
//! Rudrabha/Wav2Lip `models/wav2lip.py` (`Wav2Lip`, `Wav2Lip_disc_qual`), `models/syncnet.py` (`SyncNet_color`),
//! `models/conv.py`. Field names are upstream's; public weights are for non-commercial use. Channels are in the order
//! of its data: blue, green, red.

use burn::module::Module;
use burn::tensor::activation::{leaky_relu, relu, sigmoid};
use burn::tensor::{Device, Tensor};

use crate::cost::{Cost, Meter};
use crate::nn::conv_norm::{Conv, ConvNorm, ConvShape};
use crate::weights::Remap;

/// Height and width of a face.
pub const FACE_SIZE: usize = 96;
/// Mel bands and columns of a chunk of sound.
pub const MEL_SIZE: [usize; 2] = [80, 16];
/// Length of the codes of faces and sound.
pub const CODE_DIM: usize = 512;
/// Slope of the discriminator's leaky ReLU.
const LEAK: f64 = 0.01;
/// Smallest length that a code is divided by, as `torch.nn.functional.normalize` does.
const NORMALISE_EPS: f64 = 1e-12;

/// Convolution, batch norm, the input added when residual, ReLU.
#[derive(Module, Debug)]
struct Block {
    conv_block: ConvNorm,
    #[module(skip)]
    residual: bool,
}

impl Block {
    fn new(input: usize, output: usize, shape: ConvShape, device: &Device) -> Self {
        Self { conv_block: ConvNorm::new(input, output, shape, device), residual: false }
    }

    /// A 3x3 convolution to `output` channels, then `count` residual ones.
    fn group(input: usize, output: usize, shape: ConvShape, count: usize, device: &Device) -> Vec<Self> {
        let residual = |_| Self { residual: true, ..Self::new(output, output, ConvShape::square(3, 1, 1), device) };
        std::iter::once(Self::new(input, output, shape, device)).chain((0..count).map(residual)).collect()
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let y = self.conv_block.forward(x.clone());
        relu(if self.residual { y + x } else { y })
    }
}

fn measure(blocks: &[Block], meter: &mut Meter) {
    blocks.iter().for_each(|block| block.conv_block.measure(meter));
}

fn run(blocks: &[Block], x: Tensor<4>) -> Tensor<4> {
    blocks.iter().fold(x, |x, block| block.forward(x))
}

/// 80 x 16 mel values to a code; the stage of 256 channels has two residual blocks in the expert, one in the generator.
fn audio_encoder(blocks_of_256: usize, device: &Device) -> Vec<Block> {
    let group =
        |input, output, stride, count| Block::group(input, output, ConvShape::strided(3, stride, 1), count, device);
    let mut blocks = group(1, 32, [1, 1], 2);
    blocks.extend(group(32, 64, [3, 1], 2)); // 27 x 16
    blocks.extend(group(64, 128, [3, 3], 2)); // 9 x 6
    blocks.extend(group(128, 256, [3, 2], blocks_of_256)); // 3 x 3
    blocks.push(Block::new(256, CODE_DIM, ConvShape::square(3, 1, 0), device));
    blocks.push(Block::new(CODE_DIM, CODE_DIM, ConvShape::square(1, 1, 0), device));
    blocks
}

/// Intermediate results of the generator, for tests.
pub struct GeneratorStages {
    /// Code of the sound, [batch, 512, 1, 1].
    pub audio: Tensor<4>,
    /// After each block of the face encoder.
    pub encoder: Vec<Tensor<4>>,
    /// After each block of the decoder, before the encoder's features join.
    pub decoder: Vec<Tensor<4>>,
    /// The face.
    pub face: Tensor<4>,
}

/// The generator: 36,298,035 parameters.
#[derive(Module, Debug)]
pub struct Wav2LipGenerator {
    face_encoder_blocks: Vec<Vec<Block>>,
    audio_encoder: Vec<Block>,
    face_decoder_blocks: Vec<Vec<Block>>,
    output_block: Block,
    output_conv: Conv,
}

impl Wav2LipGenerator {
    /// The network with PyTorch's default initialisation.
    pub fn new(device: &Device) -> Self {
        let down = |input, output, count| Block::group(input, output, ConvShape::square(3, 2, 1), count, device);
        let up = |input, output, shape, count| Block::group(input, output, shape, count, device);
        let twice = ConvShape::transposed(3, 2, 1, 1);
        let last = vec![
            Block::new(512, 512, ConvShape::square(3, 1, 0), device),
            Block::new(512, 512, ConvShape::square(1, 1, 0), device),
        ];
        Self {
            face_encoder_blocks: vec![
                vec![Block::new(6, 16, ConvShape::square(7, 1, 3), device)], // 96
                down(16, 32, 2),                                             // 48
                down(32, 64, 3),                                             // 24
                down(64, 128, 2),                                            // 12
                down(128, 256, 2),                                           // 6
                down(256, 512, 1),                                           // 3
                last,                                                        // 1
            ],
            audio_encoder: audio_encoder(1, device),
            face_decoder_blocks: vec![
                vec![Block::new(512, 512, ConvShape::square(1, 1, 0), device)], // 1
                up(1024, 512, ConvShape::transposed(3, 1, 0, 0), 1),            // 3
                up(1024, 512, twice, 2),                                        // 6
                up(768, 384, twice, 2),                                         // 12
                up(512, 256, twice, 2),                                         // 24
                up(320, 128, twice, 2),                                         // 48
                up(160, 64, twice, 2),                                          // 96
            ],
            output_block: Block::new(80, 32, ConvShape::square(3, 1, 1), device),
            output_conv: Conv::new(32, 3, ConvShape::square(1, 1, 0), device),
        }
    }

    /// Names in the source, without the `module.` that public checkpoints begin with.
    pub fn remap() -> Remap {
        block_names(&[("output_block", "output_block.0"), ("output_conv", "output_block.1")])
    }

    /// One face with its sound.
    pub fn cost(&self) -> Cost {
        let (mut face, mut sound) = (Meter::new([FACE_SIZE; 2]), Meter::new(MEL_SIZE));
        self.face_encoder_blocks.iter().for_each(|blocks| measure(blocks, &mut face));
        measure(&self.audio_encoder, &mut sound);
        self.face_decoder_blocks.iter().for_each(|blocks| measure(blocks, &mut face));
        self.output_block.conv_block.measure(&mut face);
        self.output_conv.measure(&mut face);
        face.cost + sound.cost
    }

    /// Draws faces.
    ///
    /// # Shapes
    /// mel: [batch, 1, 80, 16]; faces: [batch, 6, 96, 96] in [0, 1], the target with its lower half zero, then the
    /// reference -> [batch, 3, 96, 96] in [0, 1]
    pub fn forward(&self, mel: Tensor<4>, faces: Tensor<4>) -> Tensor<4> {
        self.forward_stages(mel, faces).face
    }

    /// [`Self::forward`] with everything on the way.
    pub fn forward_stages(&self, mel: Tensor<4>, faces: Tensor<4>) -> GeneratorStages {
        let mut encoder: Vec<Tensor<4>> = Vec::new();
        for blocks in &self.face_encoder_blocks {
            let x = encoder.last().unwrap_or(&faces).clone();
            encoder.push(run(blocks, x));
        }
        let audio = run(&self.audio_encoder, mel);
        let (mut x, mut decoder) = (audio.clone(), Vec::new());
        for (blocks, mirror) in self.face_decoder_blocks.iter().zip(encoder.iter().rev()) {
            x = run(blocks, x);
            decoder.push(x.clone());
            x = Tensor::cat(vec![x, mirror.clone()], 1);
        }
        let face = sigmoid(self.output_conv.forward(self.output_block.forward(x)));
        GeneratorStages { audio, encoder, decoder, face }
    }

    /// Draws the frames of windows, each frame with its own chunk of sound.
    ///
    /// # Shapes
    /// mel: [batch, frames, 1, 80, 16]; faces: [batch, 6, frames, 96, 96] -> [batch, 3, frames, 96, 96]
    pub fn forward_windows(&self, mel: Tensor<5>, faces: Tensor<5>) -> Tensor<5> {
        let [batch, frames, channels, bands, columns] = mel.dims();
        let y = self.forward(mel.reshape([batch * frames, channels, bands, columns]), frames_of(faces));
        let [_, channels, height, width] = y.dims();
        y.reshape([batch, frames, channels, height, width]).swap_dims(1, 2)
    }
}

/// [batch, channels, frames, height, width] -> [batch * frames, channels, height, width]
fn frames_of(x: Tensor<5>) -> Tensor<4> {
    let [batch, channels, frames, height, width] = x.dims();
    x.swap_dims(1, 2).reshape([batch * frames, channels, height, width])
}

/// The sync expert on colour faces: 16,435,072 parameters.
#[derive(Module, Debug)]
pub struct ColourSyncNet {
    face_encoder: Vec<Block>,
    audio_encoder: Vec<Block>,
}

impl ColourSyncNet {
    /// The network with PyTorch's default initialisation.
    pub fn new(device: &Device) -> Self {
        let group = |input, output, shape, count| Block::group(input, output, shape, count, device);
        let half = ConvShape::square(3, 2, 1);
        let mut face_encoder = vec![Block::new(15, 32, ConvShape::square(7, 1, 3), device)]; // 48 x 96
        face_encoder.extend(group(32, 64, ConvShape::strided(5, [1, 2], 1), 2)); // 46 x 47
        face_encoder.extend(group(64, 128, half, 3)); // 23 x 24
        face_encoder.extend(group(128, 256, half, 2)); // 12 x 12
        face_encoder.extend(group(256, 512, half, 2)); // 6 x 6
        face_encoder.push(Block::new(512, 512, half, device)); // 3 x 3
        face_encoder.push(Block::new(512, 512, ConvShape::square(3, 1, 0), device));
        face_encoder.push(Block::new(512, CODE_DIM, ConvShape::square(1, 1, 0), device));
        Self { face_encoder, audio_encoder: audio_encoder(2, device) }
    }

    /// Names in the source.
    pub fn remap() -> Remap {
        block_names(&[])
    }

    /// One window of five frames with its sound.
    pub fn cost(&self) -> Cost {
        let (mut faces, mut sound) = (Meter::new([FACE_SIZE / 2, FACE_SIZE]), Meter::new(MEL_SIZE));
        measure(&self.face_encoder, &mut faces);
        measure(&self.audio_encoder, &mut sound);
        faces.cost + sound.cost
    }

    /// Codes of the sound, of length 1.
    ///
    /// # Shapes
    /// [batch, 1, 80, 16] -> [batch, 512]
    pub fn forward_audio(&self, mel: Tensor<4>) -> Tensor<2> {
        normalised(run(&self.audio_encoder, mel))
    }

    /// Codes of the faces, of length 1.
    ///
    /// # Shapes
    /// [batch, 15, 48, 96] in [0, 1], the lower halves of five frames one after the other -> [batch, 512]
    pub fn forward_face(&self, faces: Tensor<4>) -> Tensor<2> {
        normalised(run(&self.face_encoder, faces))
    }

    /// How well sound and faces agree: the cosine of their codes, in [0, 1].
    ///
    /// # Shapes
    /// as [`Self::forward_audio`] and [`Self::forward_face`] -> [batch]
    pub fn agreement(&self, mel: Tensor<4>, faces: Tensor<4>) -> Tensor<1> {
        (self.forward_audio(mel) * self.forward_face(faces)).sum_dim(1).squeeze_dim(1)
    }
}

/// [batch, dim, 1, 1] -> [batch, dim] of length 1
fn normalised(x: Tensor<4>) -> Tensor<2> {
    let x: Tensor<2> = x.flatten(1, 3);
    let length = x.clone().powi_scalar(2).sum_dim(1).sqrt().clamp_min(NORMALISE_EPS);
    x / length
}

/// The quality discriminator: 14,113,793 parameters.
#[derive(Module, Debug)]
pub struct Wav2LipDiscriminator {
    face_encoder_blocks: Vec<Vec<Conv>>,
    binary_pred: Conv,
}

impl Wav2LipDiscriminator {
    /// The network with PyTorch's default initialisation.
    pub fn new(device: &Device) -> Self {
        let conv = |input, output, shape| Conv::new(input, output, shape, device);
        let pair = |input, output, kernel, stride| {
            let padding = kernel / 2;
            vec![
                conv(input, output, ConvShape::strided(kernel, stride, padding)),
                conv(output, output, ConvShape::square(kernel, 1, padding)),
            ]
        };
        Self {
            face_encoder_blocks: vec![
                vec![conv(3, 32, ConvShape::square(7, 1, 3))], // 48 x 96
                pair(32, 64, 5, [1, 2]),                       // 48 x 48
                pair(64, 128, 5, [2, 2]),                      // 24 x 24
                pair(128, 256, 5, [2, 2]),                     // 12 x 12
                pair(256, 512, 3, [2, 2]),                     // 6 x 6
                pair(512, 512, 3, [2, 2]),                     // 3 x 3
                vec![conv(512, 512, ConvShape::square(3, 1, 0)), conv(512, 512, ConvShape::square(1, 1, 0))],
            ],
            binary_pred: conv(512, 1, ConvShape::square(1, 1, 0)),
        }
    }

    /// Names in the source.
    pub fn remap() -> Remap {
        Remap::table(&[
            ("face_encoder_blocks.*.*", "face_encoder_blocks.*.*.conv_block.0"),
            ("binary_pred", "binary_pred.0"),
        ])
    }

    /// One face.
    pub fn cost(&self) -> Cost {
        let mut meter = Meter::new([FACE_SIZE / 2, FACE_SIZE]);
        self.face_encoder_blocks.iter().flatten().for_each(|conv| conv.measure(&mut meter));
        self.binary_pred.measure(&mut meter);
        meter.cost
    }

    /// How real the lower halves of faces look, 0 to 1.
    ///
    /// # Shapes
    /// [batch, 3, 96, 96] in [0, 1] -> [batch, 1]
    pub fn forward(&self, faces: Tensor<4>) -> Tensor<2> {
        let height = faces.dims()[2];
        let lower = faces.narrow(2, height / 2, height - height / 2);
        let x = self.face_encoder_blocks.iter().flatten().fold(lower, |x, conv| leaky_relu(conv.forward(x), LEAK));
        sigmoid(self.binary_pred.forward(x)).flatten(1, 3)
    }
}

/// Names of blocks, and of whatever else there is: upstream keeps convolution and normalisation in a sequence.
fn block_names(others: &[(&'static str, &'static str)]) -> Remap {
    let others = others.to_vec();
    let names = move |path: &str| {
        let renamed = others.iter().find_map(|(from, to)| Some(format!("{to}{}", path.strip_prefix(from)?)));
        let path = renamed.as_deref().unwrap_or(path);
        Some(path.replace(".conv_block.conv.", ".conv_block.0.").replace(".conv_block.norm.", ".conv_block.1."))
    };
    let counters = ["*.*.*.*.num_batches_tracked", "*.*.*.*.*.num_batches_tracked"];
    Remap::identity().with_names(names).ignoring(&counters)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::conv_norm::count_learned;

    #[test]
    fn parameter_counts() {
        let device = Device::default();
        let generator = Wav2LipGenerator::new(&device);
        assert_eq!(count_learned(&generator), 36_298_035);
        assert_eq!(count_learned(&generator.audio_encoder), 2_812_672);
        // What TalkLip keeps of the generator: everything but the sound.
        assert_eq!(count_learned(&generator) - count_learned(&generator.audio_encoder), 33_485_363);
        assert_eq!(count_learned(&ColourSyncNet::new(&device)), 16_435_072);
        assert_eq!(count_learned(&Wav2LipDiscriminator::new(&device)), 14_113_793);
    }

    #[test]
    fn costs() {
        let device = Device::default();
        let generator = Wav2LipGenerator::new(&device).cost();
        assert_eq!(generator.parameters, 36_298_035);
        assert!((generator.macs as f64 / 1e9 - 3.97).abs() < 0.005, "{generator:?}");
        assert_eq!(ColourSyncNet::new(&device).cost().parameters, 16_435_072);
        let discriminator = Wav2LipDiscriminator::new(&device);
        assert_eq!(discriminator.cost().parameters, 14_113_793);
        // Sides 48 x 96, 48 x 48, 24 x 24, 12 x 12, 6 x 6, 3 x 3 and 1 x 1.
        let level = |input: u64, output: u64, kernel: u64, cells: u64| (input + output) * output * kernel * cells;
        let expected = 3 * 32 * 49 * 48 * 96
            + level(32, 64, 25, 48 * 48)
            + level(64, 128, 25, 24 * 24)
            + level(128, 256, 25, 12 * 12)
            + level(256, 512, 9, 6 * 6)
            + level(512, 512, 9, 3 * 3)
            + 512 * 512 * 9
            + 512 * 512
            + 512;
        assert_eq!(discriminator.cost().macs, expected);
    }

    #[test]
    fn names_are_upstreams() {
        let names = Wav2LipGenerator::remap();
        for (path, name) in [
            ("face_encoder_blocks.1.2.conv_block.conv.weight", "face_encoder_blocks.1.2.conv_block.0.weight"),
            ("audio_encoder.3.conv_block.norm.running_var", "audio_encoder.3.conv_block.1.running_var"),
            ("output_block.conv_block.norm.bias", "output_block.0.conv_block.1.bias"),
            ("output_conv.bias", "output_block.1.bias"),
        ] {
            assert_eq!(names.disk_name(path), name);
        }
        assert!(names.allows_unused("face_decoder_blocks.1.0.conv_block.1.num_batches_tracked"));
        assert!(names.allows_unused("audio_encoder.1.conv_block.1.num_batches_tracked"));
        assert!(!names.allows_unused("audio_encoder.1.conv_block.1.weight"));
    }
}
