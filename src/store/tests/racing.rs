//! Many hands at once, from one process and from several.

use super::*;
use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

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
                    store.create(&request, &mut |_: Progress| {}).unwrap();
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

/// Of pairs of operations that meet.
const N_MEETINGS: usize = 300;

/// Runs two operations at once: one begins up to 300 microseconds before or after the other.
fn at_once<A, B: Send>(
    round: usize,
    first: impl FnOnce() -> A,
    second: impl FnOnce() -> B + Send,
) -> (A, B) {
    let start = Barrier::new(2);
    let wait = |is_late: bool| {
        start.wait();
        let begun = Instant::now();
        // A sleep would be longer than what is to be met.
        while is_late && begun.elapsed() < Duration::from_micros(round as u64 % 30 * 10) {
            std::hint::spin_loop();
        }
    };
    std::thread::scope(|scope| {
        let second = scope.spawn(|| {
            wait(round.is_multiple_of(2));
            second()
        });
        wait(round % 2 == 1);
        let first = first();
        (first, second.join().unwrap())
    })
}

/// What became of models that were made while something else went on: how many are whole, and how many were refused since
/// what they were made of had gone.
#[derive(Debug, Default)]
struct Made {
    n_whole: usize,
    n_refused: usize,
}

impl Made {
    /// Looks at the model `m`, and removes it.
    fn count(&mut self, f: &Fixture, made: Result<Vec<String>, Error>) {
        check(&f.store);
        match made {
            Ok(_) => {
                f.resolve("m").unwrap();
                f.delete("m").unwrap();
                self.n_whole += 1;
            }
            Err(Error::NotFound(_) | Error::BlobNotFound(_)) => {
                assert!(matches!(f.resolve("m"), Err(Error::NotFound(_))));
                self.n_refused += 1;
            }
            Err(e) => panic!("{e}"),
        }
    }

    /// That each of the two came first at times.
    fn met(&self) {
        assert!(self.n_whole > 0 && self.n_refused > 0, "{self:?}");
    }
}

#[test]
fn a_model_whose_source_is_deleted_meanwhile_is_whole_or_refused() {
    let f = Fixture::new();
    let other = Store::open(f.dir.path()).unwrap();
    let source = ModelName::parse("source").unwrap();
    let mut outcomes = Made::default();
    for round in 0..N_MEETINGS {
        f.model("source", 8);
        let request = json!({"model": "m", "from": "source", "system": "s"});
        let (made, deleted) = at_once(round, || f.create(request), || other.delete(&source));
        deleted.unwrap();
        outcomes.count(&f, made);
    }
    outcomes.met();
    assert!(f.names().is_empty());
}

#[test]
fn the_sweep_of_one_server_takes_nothing_that_another_names() {
    let f = Fixture::new();
    let other = Store::open(f.dir.path()).unwrap();
    let mut outcomes = Made::default();
    for round in 0..N_MEETINGS {
        let weights = f.blob(&gguf("llama", &[], 8));
        age(f.store.blob_path(&weights));
        let request = json!({"model": "m", "files": {"m.gguf": weights.to_string()}});
        let (made, swept) = at_once(round, || f.create(request), || other.prune());
        swept.unwrap();
        outcomes.count(&f, made);
    }
    outcomes.met();
}

/// Where the process that is to be killed works.
const VICTIM: &str = "OLLAMA_WGPU_STORE_VICTIM";

/// Not a test of its own: [`a_kill_at_any_moment_leaves_whole_models`] starts it in a process and kills that.
#[test]
#[ignore = "run by a_kill_at_any_moment_leaves_whole_models"]
fn victim() {
    let Some(root) = std::env::var_os(VICTIM) else {
        return;
    };
    let store = Store::open(Path::new(&root)).unwrap();
    let name = |text: &str| ModelName::parse(text).unwrap();
    for round in 0.. {
        let request = CreateRequest {
            model: "m".into(),
            from: "base".into(),
            system: format!("prompt {round}"),
            ..CreateRequest::default()
        };
        store
            .create(&request, &mut |step: Progress| println!("{}", step.status))
            .unwrap();
        store
            .copy(&name("m"), &name(&format!("copy{}", round % 3)))
            .unwrap();
        println!("copied");
        store.delete(&name(&format!("copy{}", round % 3))).unwrap();
        println!("deleted");
    }
}

#[test]
fn a_kill_at_any_moment_leaves_whole_models() {
    let f = Fixture::new();
    f.model("base", 8);
    for n_steps in 1..=25 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "store::tests::racing::victim",
                "--ignored",
                "--nocapture",
            ])
            .env(VICTIM, f.dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let is_step = |line: &String| {
            let starts = [
                "creating", "using", "writing", "success", "copied", "deleted",
            ];
            starts.iter().any(|start| line.starts_with(start))
        };
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut steps = lines.map_while(Result::ok).filter(is_step);
        // The pipe stays open until the child is dead: it is to die by the kill, not by its own output.
        let n_seen = steps.by_ref().take(3 * n_steps).count();
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(n_seen, 3 * n_steps, "the child worked until it was killed");

        let store = Store::open(f.dir.path()).unwrap();
        check(&store);
        let n_manifests = store.walk(&|_, _| true).unwrap().len();
        assert_eq!(
            store.list().unwrap().len(),
            n_manifests,
            "no damaged manifest"
        );
    }
    f.create(json!({"model": "after", "from": "base"})).unwrap();
}
