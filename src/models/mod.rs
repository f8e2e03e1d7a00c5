//! The models and what feeds them: text, pixels and tensors in and out.

pub mod adamw;
pub mod answer;
pub mod chat;
pub mod clip;
pub mod cpu;
pub mod device;
pub mod endpoint;
pub mod grammar;
pub mod image;
pub mod llm;
pub mod logistic;
pub mod quant;
pub mod replay;
pub mod sampling;
pub mod tokenizer;
pub mod weights;
