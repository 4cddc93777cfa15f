use burn::tensor::Device; use syncdiff_train::*; use syncdiff_model::autoencoder::*;
#[global_allocator] static A: mimalloc::MiMalloc = mimalloc::MiMalloc;
struct Raw{side:usize,clips:Vec<Vec<u8>>}
impl Raw{fn open(dir:&str,prefix:&str)->Self{let mut clips=vec![];let mut side=0;let mut fs:Vec<_>=std::fs::read_dir(dir).unwrap().map(|e|e.unwrap().path()).filter(|p|p.file_name().unwrap().to_string_lossy().starts_with(prefix)).collect();fs.sort();
 for p in fs{let b=std::fs::read(&p).unwrap();let st=match safetensors::SafeTensors::deserialize(&b){Ok(s)=>s,Err(_)=>continue};let t=st.tensor("frames").unwrap();side=t.shape()[1];clips.push(t.data().to_vec());}
 eprintln!("{prefix}: {} clips side {side}",clips.len());Self{side,clips}}}
impl FrameSource for Raw{fn side(&self)->usize{self.side} fn frame(&self,seed:u64)->TrainResult<Vec<u8>>{let c=&self.clips[(seed>>20) as usize%self.clips.len()];let n=c.len()/(self.side*self.side*3);let i=(seed>>3) as usize%n;let l=self.side*self.side*3;Ok(c[i*l..(i+1)*l].to_vec())}}
fn main(){let a:Vec<String>=std::env::args().collect();
 let steps:u64=a[2].parse().unwrap(); let ch:usize=a[3].parse().unwrap();
 let d=Device::flex().autodiff(); d.seed(1);
 let c=AutoencoderConfig{ch,num_res_blocks:1,norm_groups:8,..AutoencoderConfig::paper()};
 let m=Autoencoder::new(&c,&d);
 let (t,v)=(Raw::open("/work/prep_raw","train"),Raw::open("/work/prep_raw","valid"));
 let task=AutoencoderTask{settings:AutoencoderTraining{window:64,quantize_from:300,edge_weight:0.5,codebook_weight:1.0},batch_size:16,seed:1,device:d,frames:&t,valid:&v};
 let o=TrainOptions{steps,batch_size:16,learning_rate:1.5e-3,warmup_steps:50,final_rate:0.1,weight_decay:0.0,clip_norm:1.0,ema_decay:0.999,seed:1,checkpoint_every:200,keep_checkpoints:2,log_every:10};
 let s=std::time::Instant::now();
 std::fs::create_dir_all(&a[1]).unwrap();
 train(&task,m,&o,std::path::Path::new(&a[1]),&||s.elapsed().as_secs_f64(),&mut |s|{println!("{}",serde_json::to_string(s).unwrap());true}).unwrap();}
