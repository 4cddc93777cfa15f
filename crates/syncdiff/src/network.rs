//! TEMP adapter, replaced when the model's generation API lands.
use crate::clock::Clock;
use crate::error::Outcome;
use crate::mouth::{MouthModel, MouthSequence};
use crate::report::ModelReport;
use crate::settings::GenerateSettings;
use burn::tensor::Device;
use syncdiff_face::KeepMaskKind;
use syncdiff_media::{Frame, Plan};
pub struct Recipe;
pub struct Network;
impl Network {
    pub fn recipe(_: &GenerateSettings) -> Outcome<Recipe> { Ok(Recipe) }
    pub fn load(_: Recipe, _: &Device) -> Outcome<Network> { Ok(Network) }
    pub fn listen(&mut self, _: &[i16], _: &Plan) -> Outcome<()> { Ok(()) }
    pub fn about(&self) -> ModelReport { ModelReport { weights_sha256: String::new(), licence: String::new(), crop_size_px: 128, keep_mask: "aligned_fixed".into(), sampler: String::new(), steps: 0 } }
}
impl MouthModel for Network {
    fn crop_size(&self) -> usize { 128 }
    fn keep_mask(&self) -> KeepMaskKind { KeepMaskKind::AlignedFixed }
    fn start(&self, identity: &Frame) -> Outcome<Box<dyn MouthSequence + '_>> { Ok(Box::new(Echo(identity.clone()))) }
}
struct Echo(Frame);
impl MouthSequence for Echo {
    fn next(&mut self, _: &Frame, _: usize, _: &mut Clock) -> Outcome<Frame> { Ok(self.0.clone()) }
    fn restart(&mut self) {}
}
