//! What FROM names: a model, a file, or a folder of weights.

use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::{fs, io};

/// What follows FROM.
#[derive(Debug, PartialEq, Eq)]
pub enum Source {
    Model(String),
    Files(Vec<PathBuf>),
}

/// An existing file or folder, else a model's name. Text that can only be a path is an error that says so.
pub fn source(text: &str, folder: &Path) -> Result<Source> {
    let path = resolve(text, folder);
    if path.is_dir() {
        return weights(&path).map(Source::Files);
    }
    if path.exists() {
        return parts(path).map(Source::Files);
    }
    let is_path = text.starts_with(['/', '.', '~', '\\']) || text.ends_with(".gguf");
    if is_path {
        bail!(
            "FROM {text}: there is no file {}; give the path of a GGUF file, relative to the Modelfile, or a model's name",
            path.display()
        );
    }
    Ok(Source::Model(text.to_owned()))
}

/// All files of a model that was split (`NAME-00001-of-00003.gguf`), of which `path` is one; any other file alone.
fn parts(path: PathBuf) -> Result<Vec<PathBuf>> {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let split = stem.rsplit_once("-of-").and_then(|(start, total)| {
        let (prefix, number) = start.rsplit_once('-')?;
        let is_number = |text: &str| text.len() == 5 && text.bytes().all(|b| b.is_ascii_digit());
        let total = is_number(total).then(|| total.parse::<u32>().ok())??;
        (is_number(number) && total > 0).then_some((prefix, total))
    });
    let Some((prefix, total)) = split.filter(|_| path.extension().is_some_and(|e| e == "gguf"))
    else {
        return Ok(vec![path]);
    };
    let part = |i| path.with_file_name(format!("{prefix}-{i:05}-of-{total:05}.gguf"));
    let parts: Vec<PathBuf> = (1..=total).map(part).collect();
    if let Some(missing) = parts.iter().find(|part| !part.exists()) {
        bail!(
            "{} is one of {total} files of a model, and {} is missing",
            path.display(),
            missing.display()
        );
    }
    Ok(parts)
}

/// `path` from the Modelfile's folder, with `~` as the home folder.
pub fn resolve(text: &str, folder: &Path) -> PathBuf {
    let home = text
        .strip_prefix("~")
        .filter(|rest| rest.is_empty() || rest.starts_with('/'));
    match (home, std::env::home_dir()) {
        (Some(rest), Some(home)) => home.join(rest.trim_start_matches('/')),
        // Without the `.` parts, which would only clutter messages.
        _ => folder.join(text).components().collect(),
    }
}

/// The weights of a folder: safetensors with what belongs to them, else GGUF files, by name.
fn weights(folder: &Path) -> Result<Vec<PathBuf>> {
    let paths = entries(folder)?;
    for prefix in ["model", "consolidated"] {
        let mut found = matching(&paths, prefix, "safetensors");
        if !found.is_empty() {
            found.extend(beside_safetensors(&paths)?);
            return inside(folder, found);
        }
    }
    let found = matching(&paths, "", "gguf");
    if found.is_empty() {
        bail!(
            "no Modelfile, safetensors or GGUF files found in {}; give a Modelfile with -f",
            folder.display()
        );
    }
    Ok(found)
}

/// The files of an adapter, which `text` names by a file or a folder: GGUF, or safetensors with their settings.
pub fn adapter(text: &str, folder: &Path) -> Result<Vec<PathBuf>> {
    let path = resolve(text, folder);
    if !path.exists() {
        bail!("stat {}: no such file or directory", path.display());
    }
    let beside = |weights: PathBuf| {
        let settings = weights.with_file_name("adapter_config.json");
        let mut found = vec![weights];
        found.extend(settings.is_file().then_some(settings));
        found
    };
    if !path.is_dir() {
        let is_safetensors = path.extension().is_some_and(|e| e == "safetensors");
        return Ok(if is_safetensors {
            beside(path)
        } else {
            vec![path]
        });
    }
    let names = ["adapters.safetensors", "adapter_model.safetensors"];
    if let Some(weights) = names
        .iter()
        .map(|name| path.join(name))
        .find(|p| p.is_file())
    {
        return inside(&path, beside(weights));
    }
    match matching(&entries(&path)?, "", "gguf").as_slice() {
        [file] => inside(&path, vec![file.clone()]),
        found => bail!(
            "{} is a folder with neither {} nor one GGUF file, but {} of them; give the path of the adapter's file",
            path.display(),
            names.join(" nor "),
            found.len()
        ),
    }
}

/// Settings and vocabulary: JSON files here and one folder down, and what has a name of its own.
fn beside_safetensors(paths: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut found = matching(paths, "", "json");
    let named = ["chat_template.jinja", "tokenizer.model"];
    let is_named = |path: &&PathBuf| {
        path.file_name()
            .is_some_and(|name| named.iter().any(|n| name == *n))
    };
    found.extend(paths.iter().filter(is_named).cloned());
    for folder in paths.iter().filter(|path| path.is_dir()) {
        found.extend(matching(&entries(folder)?, "", "json"));
    }
    Ok(found)
}

/// What is in a folder, by name.
fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let cannot_read = || format!("cannot read the folder {}", folder.display());
    let entries = fs::read_dir(folder).with_context(cannot_read)?;
    let paths = entries.map(|entry| entry.map(|entry| entry.path()));
    let mut paths: Vec<PathBuf> = paths.collect::<io::Result<_>>().with_context(cannot_read)?;
    paths.sort();
    Ok(paths)
}

/// The files whose names begin and end so.
fn matching(paths: &[PathBuf], prefix: &str, extension: &str) -> Vec<PathBuf> {
    let matches = |path: &&PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        path.is_file()
            && name.starts_with(prefix)
            && path.extension().is_some_and(|e| e == extension)
    };
    paths.iter().filter(matches).cloned().collect()
}

/// The files, none of which may be a link that leads out of the folder: it would be uploaded.
fn inside(folder: &Path, files: Vec<PathBuf>) -> Result<Vec<PathBuf>> {
    let root = fs::canonicalize(folder)?;
    for file in &files {
        if !fs::canonicalize(file)?.starts_with(&root) {
            bail!(
                "insecure path: {} leads out of {}",
                file.display(),
                folder.display()
            );
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn from_is_a_path_if_there_is_one() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("a.gguf"), "x").unwrap();
        fs::write(at("llama3"), "x").unwrap();
        let source = |text| source(text, folder.path());
        assert_eq!(
            source("./a.gguf").unwrap(),
            Source::Files(vec![at("a.gguf")])
        );
        assert_eq!(source("llama3").unwrap(), Source::Files(vec![at("llama3")]));
        assert_eq!(source("qwen3").unwrap(), Source::Model("qwen3".into()));
        assert_eq!(source(".").unwrap(), Source::Files(vec![at("a.gguf")]));
        for missing in ["./nope.gguf", "nope.gguf", "/nope", "~/nope-nope"] {
            let error = source(missing).unwrap_err().to_string();
            assert!(error.contains(missing) && error.contains("GGUF"), "{error}");
        }
    }

    #[test]
    fn a_part_stands_for_all_parts() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let names = ["m-x-00001-of-00002.gguf", "m-x-00002-of-00002.gguf"];
        fs::write(at(names[1]), "x").unwrap();
        let error = parts(at(names[1])).unwrap_err().to_string();
        assert!(error.contains("00001-of-00002.gguf is missing"), "{error}");
        fs::write(at(names[0]), "x").unwrap();
        assert_eq!(parts(at(names[1])).unwrap(), names.map(at));
        for alone in [
            "m-1-of-2.gguf",
            "m-00001-of-00000.gguf",
            "m-00001-of-00002.bin",
        ] {
            assert_eq!(parts(at(alone)).unwrap(), [at(alone)]);
        }
    }

    #[test]
    fn folders_without_gguf_say_what_they_lack() {
        let folder = tempfile::tempdir().unwrap();
        let error = || weights(folder.path()).unwrap_err().to_string();
        fs::write(folder.path().join("other.safetensors"), "x").unwrap();
        assert!(
            error().contains("no Modelfile, safetensors or GGUF files"),
            "{}",
            error()
        );
    }

    #[test]
    fn a_checkpoint_is_its_weights_and_what_belongs_to_them() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir_all(at("1_Pooling/deep")).unwrap();
        let wanted = [
            "model-00001-of-00002.safetensors",
            "model-00002-of-00002.safetensors",
            "config.json",
            "model.safetensors.index.json",
            "chat_template.jinja",
            "tokenizer.model",
            "1_Pooling/config.json",
        ];
        let others = [
            "consolidated.safetensors",
            "m.gguf",
            "README.md",
            "1_Pooling/deep/x.json",
            "pytorch_model.bin",
        ];
        for name in wanted.iter().chain(&others) {
            fs::write(at(name), "x").unwrap();
        }
        assert_eq!(weights(folder.path()).unwrap(), wanted.map(at));
        for name in &wanted[..2] {
            fs::remove_file(at(name)).unwrap();
        }
        assert_eq!(
            weights(folder.path()).unwrap()[0],
            at("consolidated.safetensors")
        );
        fs::remove_file(at("consolidated.safetensors")).unwrap();
        assert_eq!(weights(folder.path()).unwrap(), [at("m.gguf")]);
    }

    #[test]
    fn an_adapter_is_a_file_or_a_folder() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let files = |text: &str| adapter(text, folder.path());
        let error = |text: &str| files(text).unwrap_err().to_string();
        assert!(error("./nope").contains("no such file or directory"));
        assert!(error(".").contains("nor one GGUF file, but 0"));
        fs::write(at("a.gguf"), "x").unwrap();
        assert_eq!(files(".").unwrap(), [at("a.gguf")]);
        assert_eq!(files("a.gguf").unwrap(), [at("a.gguf")]);
        fs::write(at("b.gguf"), "x").unwrap();
        assert!(error(".").contains("but 2"), "{}", error("."));
        let wanted = ["adapter_model.safetensors", "adapter_config.json"].map(at);
        fs::write(&wanted[0], "x").unwrap();
        assert_eq!(files(".").unwrap(), wanted[..1]);
        fs::write(&wanted[1], "{}").unwrap();
        assert_eq!(files(".").unwrap(), wanted);
        assert_eq!(files("adapter_model.safetensors").unwrap(), wanted);
        fs::write(at("adapters.safetensors"), "x").unwrap();
        assert_eq!(files(".").unwrap()[0], at("adapters.safetensors"));
    }

    #[cfg(unix)]
    #[test]
    fn links_out_of_a_checkpoint_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir(at("m")).unwrap();
        fs::write(at("m/model.safetensors"), "x").unwrap();
        fs::write(at("secret.json"), "x").unwrap();
        std::os::unix::fs::symlink(at("secret.json"), at("m/config.json")).unwrap();
        let error = weights(&at("m")).unwrap_err().to_string();
        assert!(error.starts_with("insecure path"), "{error}");
    }
}
