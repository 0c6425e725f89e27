//! The real server over a socket: what holds whatever else is running, and what bad input gets.

mod adapters;
mod bad_input;
mod bench;
mod broken_streams;
mod cache;
mod checkpoints;
mod cli;
mod concurrency;
#[cfg(unix)]
mod cut;
mod files;
mod hostile;
mod hostile_templates;
mod https;
mod kernels_on_disk;
mod keys;
mod memory;
#[path = "../models.rs"]
mod models;
mod names;
mod offload;
mod openai;
mod prompts;
mod public;
mod pulling;
mod refusals;
mod registry;
mod rows;
#[allow(dead_code, reason = "the library's tests use all of it")]
#[path = "../../src/store/registry/tests/scripted.rs"]
mod scripted;
#[path = "../server.rs"]
mod server;
mod tools;
