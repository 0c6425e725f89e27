//! `ollama-wgpu`: a GGUF engine on hand-written WGSL and SIMD, behind Ollama's API.
//!
//! # Layers
//!
//! A module imports only from rows above it; modules of one row do not know each other.
//!
//! | layer | modules | may not know |
//! | --- | --- | --- |
//! | 0 | `settings`, `metrics`, `api`, `chat`, `quant` | anything of ours |
//! | 1 | `gguf` | what tensors mean |
//! | 2 | `tokenizer`, `store`, `backend` | each other; who implements `Backend` |
//! | 3 | `cpu`, `gpu`, `model` | each other: the plan is all they share |
//! | 4 | `engine` | HTTP, `cpu`, `gpu` |
//! | 5 | `server` | tensors, backends |
//! | 6 | `cli` | how the server is made |

pub mod api;
pub mod backend;
pub mod chat;
pub mod cli;
pub mod cpu;
pub mod engine;
pub mod gguf;
pub mod gpu;
pub mod metrics;
pub mod model;
pub mod quant;
pub mod server;
pub mod settings;
pub mod store;
pub mod tokenizer;
