//! Broken, hostile and half-written stores.

use super::*;

#[test]
fn a_damaged_model_is_left_out_and_can_be_deleted() {
    let f = Fixture::new();
    let shared = f.model("good", 8);
    f.copy("good", "bad").unwrap();
    let digest = Digest::of(b"x");
    for text in [
        String::new(),
        "null".into(),
        "[]".into(),
        "{\"layers\": [".into(),
        "[".repeat(100_000),
        "x".repeat(5 << 20),
        r#"{"layers":[{"mediaType":"m","digest":"../../etc/passwd","size":1}]}"#.into(),
        format!(
            r#"{{"layers":[{{"mediaType":"{}","digest":"{digest}","size":-1}}]}}"#,
            media::MODEL
        ),
    ] {
        fs::create_dir_all(f.manifest("bad").parent().unwrap()).unwrap();
        fs::write(f.manifest("bad"), &text).unwrap();
        assert_eq!(f.names(), ["good:latest"]);
        let error = f.resolve("bad").unwrap_err();
        assert!(
            matches!(error, Error::Damaged { .. }),
            "{text:.40}: {error}"
        );
        f.create(json!({"model": "t", "from": "good", "system": "s"}))
            .unwrap();
        f.delete("t").unwrap();
        assert!(
            f.store.has_blob(&Digest::of(b"s")).unwrap(),
            "nothing is removed beside a damaged manifest"
        );
        assert_eq!(f.store.prune().unwrap(), 0);
        f.delete("bad").unwrap();
        assert!(f.resolve("bad").is_err());
    }
    assert!(f.store.has_blob(&shared).unwrap());
}

#[test]
fn missing_or_cut_blobs_are_named() {
    let f = Fixture::new();
    let weights = f.model("m", 8);
    let path = f.store.blob_path(&weights);
    File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_len(10)
        .unwrap();
    let error = f.resolve("m").unwrap_err().to_string();
    assert!(
        error.starts_with("model 'm:latest' is damaged: blob sha256:")
            && error.contains("has 10 bytes"),
        "{error}"
    );
    assert!(f.create(json!({"model": "n", "from": "m"})).is_err());
    fs::remove_file(&path).unwrap();
    let error = f.resolve("m").unwrap_err().to_string();
    assert!(
        error.contains(&format!("blob {weights} is missing")),
        "{error}"
    );
    assert!(f.create(json!({"model": "n", "from": "m"})).is_err());
    f.delete("m").unwrap();
}

#[test]
fn bad_small_layers_fail_their_model_alone() {
    let f = Fixture::new();
    f.model("good", 8);
    let huge = format!("{{\"a\":\"{}\"}}", "x".repeat(50 << 20));
    let million = |item: &str| format!("[{}{item}]", format!("{item},").repeat(999_999));
    let (short, long) = (million("{}"), million(r#"{"role":"user","content":"x"}"#));
    for (media_type, content) in [
        (media::PARAMS, "[]"),
        (media::PARAMS, "not json"),
        (media::PARAMS, huge.as_str()),
        (media::PARAMS, short.as_str()),
        (media::MESSAGES, "{}"),
        (media::MESSAGES, short.as_str()),
        (media::MESSAGES, long.as_str()),
        (media::CONFIG, "nonsense"),
    ] {
        f.copy("good", "bad").unwrap();
        let digest = f.blob(content.as_bytes());
        let mut value: Value =
            serde_json::from_slice(&fs::read(f.manifest("bad")).unwrap()).unwrap();
        let layer =
            json!({"mediaType": media_type, "digest": digest.to_string(), "size": content.len()});
        match media_type {
            media::CONFIG => value["config"] = layer,
            _ => value["layers"].as_array_mut().unwrap().push(layer),
        }
        fs::write(f.manifest("bad"), value.to_string()).unwrap();
        assert!(
            matches!(f.resolve("bad"), Err(Error::Damaged { .. })),
            "{media_type} {content:.20}"
        );
        f.resolve("good").unwrap();
        assert!(f.names().contains(&"good:latest".to_owned()));
    }
}

#[test]
fn unsupported_formats_are_named() {
    let f = Fixture::new();
    f.model("m", 8);
    let value: Value = serde_json::from_slice(&fs::read(f.manifest("m")).unwrap()).unwrap();
    for (media_type, message) in [
        (media::TENSOR, "safetensors"),
        (media::LICENSE, "no GGUF weights"),
    ] {
        let mut value = value.clone();
        value["layers"][0]["mediaType"] = media_type.into();
        fs::write(f.manifest("m"), value.to_string()).unwrap();
        assert!(f.resolve("m").unwrap_err().to_string().contains(message));
    }
}

#[test]
fn rests_of_a_crash_are_not_seen() {
    let f = Fixture::new();
    f.model("m", 8);
    let folder = f.manifest("m").parent().unwrap().to_owned();
    fs::write(folder.join(".tmp-1"), "{").unwrap();
    fs::write(f.dir.path().join("manifests/.tmp-2"), "{").unwrap();
    fs::write(f.dir.path().join("blobs/.tmp-3"), "half").unwrap();
    fs::write(
        f.dir
            .path()
            .join("manifests/registry.ollama.ai/library/stray"),
        "",
    )
    .unwrap();
    fs::create_dir_all(folder.join("deep/er")).unwrap();
    let reopened = Store::open(f.dir.path()).unwrap();
    assert_eq!(reopened.list().unwrap().len(), 1);
    reopened.resolve(&ModelName::parse("m").unwrap()).unwrap();
    f.delete("m").unwrap();
    assert_eq!(f.blob_files().len(), 1, "only the unfinished file is left");
}

#[cfg(unix)]
#[test]
fn links_and_devices_are_not_followed_out() {
    use std::os::unix::fs::symlink;
    let f = Fixture::new();
    let weights = f.model("m", 8);
    let outside = tempfile::tempdir().unwrap();
    let secret = outside.path().join("latest");
    fs::copy(f.manifest("m"), &secret).unwrap();
    let library = f.dir.path().join("manifests/registry.ollama.ai/library");
    fs::create_dir(library.join("linked")).unwrap();
    symlink(&secret, library.join("linked/latest")).unwrap();
    symlink(outside.path(), library.join("parent")).unwrap();
    assert_eq!(f.names(), ["m:latest"]);
    assert!(matches!(f.resolve("linked"), Err(Error::Damaged { .. })));
    assert!(matches!(f.resolve("parent"), Err(Error::NotFound(_))));
    assert!(matches!(f.delete("parent"), Err(Error::NotFound(_))));
    assert!(
        f.create(json!({"model": "parent:new", "from": "m"}))
            .is_err()
    );
    assert!(!outside.path().join("new").exists());
    f.delete("linked").unwrap();
    assert!(secret.exists(), "only the link goes");

    let path = f.store.blob_path(&weights);
    fs::remove_file(&path).unwrap();
    for target in ["/dev/zero", "/etc/passwd"] {
        symlink(target, &path).unwrap();
        assert!(
            f.resolve("m")
                .unwrap_err()
                .to_string()
                .contains("is missing")
        );
        assert!(!f.store.has_blob(&weights).unwrap());
        fs::remove_file(&path).unwrap();
    }
    fs::create_dir(&path).unwrap();
    assert!(f.resolve("m").is_err());
}

#[cfg(unix)]
#[test]
fn a_folder_that_cannot_be_made_is_named() {
    let f = Fixture::new();
    let file = f.dir.path().join("file");
    fs::write(&file, "").unwrap();
    let error = Store::open(&file).unwrap_err().to_string();
    assert!(error.contains("OLLAMA_MODELS"), "{error}");
}

#[test]
fn changed_bytes_are_found_and_discarded() {
    let f = Fixture::new();
    let weights = f.model("base", 8);
    f.create(json!({"model": "other", "from": "base", "system": "Be brief."}))
        .unwrap();
    let names = |texts: &[&str]| -> Vec<ModelName> {
        let parsed = texts.iter().map(|text| ModelName::parse(text).unwrap());
        parsed.collect()
    };
    let mut told = Vec::new();
    let mut verify = |names: &[ModelName]| {
        let tell = &mut |name: &ModelName| told.push(name.to_string());
        f.store.verify(names, tell)
    };
    assert_eq!(verify(&[]).unwrap(), []);
    let path = f.store.blob_path(&weights);
    let mut bytes = fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&path, &bytes).unwrap();
    // Nothing else notices.
    f.resolve("other").unwrap();
    let found = verify(&names(&["other", "base"])).unwrap();
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(
        (found[0].model.to_string().as_str(), found[0].digest),
        ("other:latest", weights)
    );
    let other = Digest::of(&bytes).to_string();
    assert!(found[0].why.contains(&other), "{}", found[0].why);
    f.store.discard(&found[0]).unwrap();
    assert!(
        f.resolve("base")
            .unwrap_err()
            .to_string()
            .contains("is missing")
    );
    assert_eq!(verify(&names(&["base"])).unwrap()[0].why, "is missing");
    assert!(matches!(verify(&names(&["nope"])), Err(Error::NotFound(_))));
    let all = [
        "base:latest",
        "other:latest",
        "other:latest",
        "base:latest",
        "base:latest",
        "nope:latest",
    ];
    assert_eq!(told, all);
}
