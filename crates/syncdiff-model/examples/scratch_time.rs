use burn::tensor::*; use burn::module::Module; use std::time::Instant;
use syncdiff_model::unet::*; use syncdiff_model::autoencoder::*;
#[global_allocator] static A: mimalloc::MiMalloc = mimalloc::MiMalloc;
fn main(){
  let d=Device::flex().autodiff();
  for (mc,mult,res,att,n) in [(32,vec![1,2,4],1,vec![2,4],16)] {
    let c=UNetConfig{model_channels:mc,channel_mult:mult.clone(),num_res_blocks:res,attention_resolutions:att,context_dim:128,..UNetConfig::paper()};
    let u=UNet::new(&c,&d);
    let x=Tensor::<4>::random([n,10,32,32],Distribution::Default,&d); let ctx=Tensor::<3>::random([n,9,128],Distribution::Default,&d);
    let t=vec![500;n];
    let (mut f,mut b)=(9e9f64,9e9f64);
    for _ in 0..12 { let s=Instant::now(); let y=u.forward(x.clone(),&t,ctx.clone()); f=f.min(s.elapsed().as_secs_f64()); let s=Instant::now(); let g=y.powi_scalar(2).mean().backward(); b=b.min(s.elapsed().as_secs_f64()); drop(g);}
    let un=u.valid(); let di=Device::flex(); let x=Tensor::<4>::random([1,10,32,32],Distribution::Default,&di); let ctx=Tensor::<3>::random([1,9,128],Distribution::Default,&di);
    let mut f1=9e9f64; for _ in 0..6 { let s=Instant::now(); let _=un.forward(x.clone(),&[500],ctx.clone()); f1=f1.min(s.elapsed().as_secs_f64()); }
    println!("unet {mc} {mult:?} res{res} params {} batch {n}: fwd {:.0} ms bwd {:.0} ms -> {:.1} samples/s; single fwd {:.1} ms",u.num_params(),f*1e3,b*1e3,n as f64/(f+b),f1*1e3);
  }
  if std::env::var("AE").is_ok() { return; }
  for (ch,mult,res,s,n) in [(16,vec![1,2,4],1,128,4),(16,vec![1,2,4],1,64,16),(24,vec![1,2,4],1,128,4)] {
    let c=AutoencoderConfig{ch,ch_mult:mult.clone(),num_res_blocks:res,norm_groups:8,..AutoencoderConfig::paper()};
    let u=Autoencoder::new(&c,&d);
    let x=Tensor::<4>::random([n,3,s,s],Distribution::Default,&d);
    let (mut f,mut b)=(9e9f64,9e9f64);
    for _ in 0..3 { let s=Instant::now(); let q=u.quantize.quantize_for_training(u.encode(x.clone())); let y=u.decode_quantized(q.z); f=f.min(s.elapsed().as_secs_f64()); let s=Instant::now(); let g=(y.powi_scalar(2).mean()+q.loss.reshape([1])).backward(); b=b.min(s.elapsed().as_secs_f64()); drop(g);}
    let un=u.valid(); let di=Device::flex(); let x=Tensor::<4>::random([1,3,128,128],Distribution::Default,&di); 
    let (mut e,mut de)=(9e9f64,9e9f64); for _ in 0..4 { let s=Instant::now(); let z=un.encode(x.clone()); e=e.min(s.elapsed().as_secs_f64()); let s=Instant::now(); let _=un.decode(z); de=de.min(s.elapsed().as_secs_f64()); }
    println!("ae ch{ch} {mult:?} res{res} size {s} params {}: batch {n} fwd {:.0} bwd {:.0} ms -> {:.1} samples/s; enc {:.1} dec {:.1} ms",u.num_params(),f*1e3,b*1e3,n as f64/(f+b),e*1e3,de*1e3);
  }
}
