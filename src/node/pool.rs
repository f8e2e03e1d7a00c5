//! Models loaded on one device, owned by the one thread that works there.

use std::{collections::HashMap, path::Path, sync::Arc};

use anyhow::{Context, Result, bail};
use burn::tensor::{DType, Device};

use super::ModelFolder;
use crate::models::{
    clip::{Clip, Tower},
    device::{DeviceChoice, open},
    llm::{Llm, Precision},
};

/// Loaded models; each is loaded at its first use and kept until released.
pub struct Models {
    choice: DeviceChoice,
    device: Option<Device>,
    clips: HashMap<(String, Tower), Arc<Clip>>,
    llms: HashMap<String, Arc<Llm>>,
    on_load: Box<dyn Fn(&Path) + Send>,
}

impl Models {
    /// No model yet; the device is opened at the first use.
    pub fn new(choice: DeviceChoice) -> Self {
        Self {
            choice,
            device: None,
            clips: HashMap::new(),
            llms: HashMap::new(),
            on_load: Box::new(|_| {}),
        }
    }

    /// From now on tells `listener` the folder of each model before it is loaded.
    pub fn when_loading(&mut self, listener: impl Fn(&Path) + Send + 'static) {
        self.on_load = Box::new(listener);
    }

    /// The device in words: `cpu`, `cuda:0`.
    pub fn device_name(&self) -> String {
        self.choice.to_string()
    }

    /// Whether the device is a GPU, whose thread cannot go on after a panic.
    pub fn is_cuda(&self) -> bool {
        matches!(self.choice, DeviceChoice::Cuda(_))
    }

    /// The device itself.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn device(&mut self) -> Result<Device> {
        if let Some(device) = &self.device {
            return Ok(device.clone());
        }
        let device = open(&self.choice)?;
        self.device = Some(device.clone());
        Ok(device)
    }

    /// One tower (or both) of the CLIP model in `folder`.
    ///
    /// # Errors
    /// When its files are not what they should be; the message names file and tensor.
    pub fn clip(&mut self, folder: &ModelFolder, tower: Tower) -> Result<Arc<Clip>> {
        let key = (id(folder), tower);
        if let Some(clip) = self.clips.get(&key) {
            return Ok(clip.clone());
        }
        let device = self.device()?;
        (self.on_load)(&folder.path);
        let clip = folder
            .checkpoint()
            .and_then(|files| Clip::load_tower(&files, tower, dtype(&folder.dtype)?, &device))
            .with_context(|| {
                format!(
                    "failed to load the CLIP model in `{}`",
                    folder.path.display()
                )
            })?;
        let clip = Arc::new(clip);
        self.clips.insert(key, clip.clone());
        Ok(clip)
    }

    /// The language model in `folder`, whose weights take at most about
    /// `weights_memory` bytes of a GPU where that can be.
    ///
    /// # Errors
    /// When its files are not what they should be; the message names file and tensor.
    pub fn llm(&mut self, folder: &ModelFolder, weights_memory: Option<u64>) -> Result<Arc<Llm>> {
        let key = id(folder);
        if let Some(llm) = self.llms.get(&key) {
            return Ok(llm.clone());
        }
        let device = self.device()?;
        (self.on_load)(&folder.path);
        let precision = Precision {
            dtype: dtype(&folder.dtype)?,
            quantize: folder.quantize,
        };
        let room = weights_memory.unwrap_or(u64::MAX);
        let llm = Llm::load(&folder.path, precision, &device, room).with_context(|| {
            format!(
                "failed to load the language model in `{}`",
                folder.path.display()
            )
        })?;
        let llm = Arc::new(llm);
        self.llms.insert(key, llm.clone());
        Ok(llm)
    }

    /// Lets go of the model whose [`id`] this is.
    pub fn release(&mut self, model: &str) {
        self.clips.retain(|(key, _), _| key != model);
        self.llms.retain(|key, _| key != model);
    }
}

/// Identity of a loaded model: content and numbers.
pub fn id(folder: &ModelFolder) -> String {
    format!("{} {} {:?}", folder.digest(), folder.dtype, folder.quantize)
}

fn dtype(name: &str) -> Result<DType> {
    Ok(match name {
        "f32" => DType::F32,
        "f16" => DType::F16,
        "bf16" => DType::BF16,
        other => bail!("`{other}` is no dtype\nhint: use \"f32\", \"f16\" or \"bf16\""),
    })
}
