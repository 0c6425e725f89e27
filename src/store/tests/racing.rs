//! Many hands at once, from one process and from several.

use super::*;
use std::sync::atomic::{AtomicUsize, Ordering};

const ROUNDS: usize = 60;

/// Every listed model has all its blobs, whatever ran before.
fn check(store: &Store) {
    for entry in store.list().unwrap() {
        store.resolve(&entry.name).unwrap();
    }
}

#[test]
fn create_copy_and_delete_never_lose_a_shared_blob() {
    let f = Fixture::new();
    f.model("base", 8);
    // Two handles lock the same folder as two processes do.
    let handles = [f.store.clone(), Store::open(f.dir.path()).unwrap()];
    let name = |text: String| ModelName::parse(&text).unwrap();
    let done = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for (i, store) in handles.iter().enumerate() {
            let done = &done;
            scope.spawn(move || {
                for round in 0..ROUNDS {
                    let request = CreateRequest {
                        model: format!("m{}", round % 3),
                        from: "base".into(),
                        // The same prompt in both threads: a blob that one makes while the other removes it.
                        system: format!("prompt {}", round % 5),
                        ..CreateRequest::default()
                    };
                    store.create(&request, &mut |_| {}).unwrap();
                    done.fetch_add(1, Ordering::Relaxed);
                }
            });
            scope.spawn(move || {
                for round in 0..ROUNDS {
                    match store.delete(&name(format!("m{}", (round + i) % 3))) {
                        Ok(()) | Err(Error::NotFound(_)) => {}
                        Err(e) => panic!("{e}"),
                    }
                    match store.copy(&name(format!("m{}", round % 3)), &name("copy".into())) {
                        Ok(()) | Err(Error::NotFound(_)) => {}
                        Err(e) => panic!("{e}"),
                    }
                    store.prune().unwrap();
                }
            });
        }
    });
    assert_eq!(done.load(Ordering::Relaxed), 2 * ROUNDS);
    check(&f.store);
    check(&handles[1]);
    f.resolve("base").unwrap();
    assert!(
        f.blob_files()
            .iter()
            .all(|blob| blob.starts_with("sha256-")),
        "no unfinished files"
    );
}

#[test]
fn readers_see_a_whole_model_while_it_is_replaced() {
    let f = Fixture::new();
    f.model("base", 8);
    f.create(json!({"model": "m", "from": "base", "system": "0"}))
        .unwrap();
    let name = ModelName::parse("m").unwrap();
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for round in 1..=ROUNDS {
                f.create(json!({"model": "m", "from": "base", "system": round.to_string()}))
                    .unwrap();
            }
        });
        while !writer.is_finished() {
            f.store.list().unwrap();
            match f.store.resolve(&name) {
                Ok(model) => assert!(model.system.unwrap().parse::<usize>().unwrap() <= ROUNDS),
                Err(e) => panic!("{e}"),
            }
        }
    });
    assert_eq!(f.resolve("m").unwrap().system.unwrap(), ROUNDS.to_string());
}
