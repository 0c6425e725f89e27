//! The kernels' test suite: every case on the f64 oracle, on the CPU with every instruction set
//! present, and on every GPU with every variant of the shaders, through the same plans; and the
//! reference answers of tiny and real models.

mod adapters;
mod case;
mod cases;
mod cases_attention;
mod cases_experts;
mod cases_runs;
mod devices;
mod documented;
mod embedding;
mod encoder;
mod engine;
mod file;
mod golden;
mod golden_real;
mod imported;
mod lost;
mod low_rank;
mod models;
mod profile;
mod recurrent;
mod reference;
mod refused;
mod sampling;
mod split;
mod suite;
