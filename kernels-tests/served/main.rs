//! The real server over a socket: what holds whatever else is running, and what bad input gets.

mod adapters;
mod bad_input;
mod bench;
mod cache;
mod checkpoints;
mod cli;
mod concurrency;
mod kernels_on_disk;
mod keys;
mod memory;
#[path = "../models.rs"]
mod models;
mod offload;
mod openai;
#[path = "../server.rs"]
mod server;
mod tools;
