//! The program `ollama-wgpu`: everything is in the library's `cli`.

use std::process::ExitCode;

fn main() -> ExitCode {
    ollama_wgpu::cli::main()
}
