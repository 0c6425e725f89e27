//! `ollama-wgpu`: a GGUF engine on hand-written WGSL and SIMD, behind Ollama's API.
//!
//! # Layers
//!
//! A module imports only from rows above it; modules of one row do not know each other.
//!
//! | layer | modules | may not know |
//! | --- | --- | --- |
//! | 0 | `settings`, `api`, `chat`, `quant` | anything of ours |
//! | 1 | `gguf` | what tensors mean |
//! | 2 | `tokenizer`, `store`, `backend` | each other; who implements `Backend` |
//! | 3 | `cpu`, `gpu`, `model` | each other: the plan is all they share |
//! | 4 | `engine` | HTTP, `cpu`, `gpu` |
//! | 5 | `server` | tensors, backends |
//! | 6 | `cli` | how the server is made |

// `println!` panics where the terminal or the disk behind it is gone: `cli::print` returns the error.
#![cfg_attr(not(test), warn(clippy::print_stdout, clippy::print_stderr))]

pub mod api;
pub mod backend;
pub mod chat;
pub mod cli;
pub mod cpu;
pub mod engine;
pub mod gguf;
pub mod gpu;
pub mod model;
pub mod quant;
pub mod server;
pub mod settings;
pub mod store;
pub mod tokenizer;

#[cfg(test)]
mod layers {
    //! The table above, held by a test over the imports of all of `src/`.

    use std::path::{Path, PathBuf};

    /// Modules by layer; `main` and `lib` stand above all.
    const LAYERS: &[&[&str]] = &[
        &["settings", "api", "chat", "quant"],
        &["gguf"],
        &["tokenizer", "store", "backend"],
        &["cpu", "gpu", "model"],
        &["engine"],
        &["server"],
        &["cli"],
    ];

    /// Crates that one module alone may name.
    const OWNED: &[(&str, &[&str])] = &[
        ("wgpu", &["gpu"]),
        ("warp", &["server"]),
        ("clap", &["cli", "main"]),
        ("clap_complete", &["cli"]),
        ("indicatif", &["cli"]),
        ("rustyline", &["cli"]),
    ];

    fn layer(module: &str) -> Option<usize> {
        LAYERS.iter().position(|row| row.contains(&module))
    }

    /// What is wrong with one line of a module, if anything.
    fn problem(module: &str, line: &str) -> Option<String> {
        let code = line.trim_start();
        if code.starts_with("//") {
            return None;
        }
        if code.contains("crate::{") {
            return Some(format!(
                "{module} imports several modules in one line: write one each"
            ));
        }
        for part in code.split("crate::").skip(1) {
            let used: String = part
                .chars()
                .take_while(|c| c.is_alphanumeric() || *c == '_')
                .collect();
            let (Some(here), Some(there)) = (layer(module), layer(&used)) else {
                continue;
            };
            if used != module && there >= here {
                return Some(format!("{module} imports {used}"));
            }
        }
        let owned = OWNED
            .iter()
            .find(|(name, owners)| names(code, name) && !owners.contains(&module));
        owned.map(|(name, _)| format!("{module} names the crate {name}"))
    }

    /// Whether code uses a crate by its path.
    fn names(code: &str, krate: &str) -> bool {
        code.match_indices(krate).any(|(at, _)| {
            let before = code[..at].chars().next_back();
            code[at + krate.len()..].starts_with("::")
                && !before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':')
        })
    }

    fn rust_files(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).expect("a folder of the sources") {
            let path = entry.expect("an entry").path();
            match path.is_dir() {
                true => rust_files(&path, found),
                false => found.push(path),
            }
        }
    }

    /// Paths below `src`, and what the files hold.
    fn sources() -> Vec<(PathBuf, String)> {
        let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let mut files = Vec::new();
        rust_files(&src, &mut files);
        let ours = files
            .iter()
            .filter(|f| f.extension().is_some_and(|e| e == "rs"));
        ours.map(|file| {
            let inside = file.strip_prefix(&src).expect("a file of src");
            let text = std::fs::read_to_string(file).expect("readable");
            (inside.to_owned(), text)
        })
        .collect()
    }

    /// A panic that holds a lock must not be one of everybody who takes it afterwards.
    #[test]
    fn no_lock_is_lost_by_a_panic() {
        let mut problems = Vec::new();
        for (file, text) in sources() {
            let code = text.split("#[cfg(test)]").next().unwrap_or_default();
            let code: String = code.split_whitespace().collect();
            let is_test = file.components().any(|part| {
                let part = part.as_os_str().to_string_lossy();
                part.starts_with("tests") || part == "lib.rs"
            });
            for taken in [".lock()", ".read()", ".write()", ".wait(", ".into_inner()"] {
                let spoilt = [".unwrap()", ".expect("].iter();
                let spoilt = spoilt.filter(|end| code.contains(&format!("{taken}{end}")));
                problems.extend(
                    spoilt
                        .filter(|_| !is_test)
                        .map(|end| format!("{}: {taken}{end}", file.display())),
                );
            }
        }
        assert!(problems.is_empty(), "{}", problems.join("\n"));
    }

    #[test]
    fn modules_import_only_from_layers_below() {
        let mut problems = Vec::new();
        for (inside, text) in sources() {
            let first = inside.iter().next().expect("a name").to_string_lossy();
            let module = first.trim_end_matches(".rs");
            let known = layer(module).is_some() || ["main", "lib"].contains(&module);
            assert!(known, "{module} has no layer");
            if module != "lib" {
                problems.extend(text.lines().filter_map(|line| {
                    problem(module, line).map(|p| format!("{}: {p}", inside.display()))
                }));
            }
        }
        assert!(problems.is_empty(), "{}", problems.join("\n"));
    }

    #[test]
    fn a_wrong_import_is_found() {
        assert!(problem("model", "use crate::cpu::CpuBackend;").is_some());
        assert!(problem("engine", "let x = wgpu::Instance::default();").is_some());
        assert!(problem("gguf", "use crate::quant::QuantType;").is_none());
        assert!(problem("cli", "use crate::{gguf, model};").is_some());
    }
}
