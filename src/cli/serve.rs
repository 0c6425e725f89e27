//! `serve`: settings, store, models and HTTP server put together, until the process is told to stop.

use super::{device, log, usage};
use crate::backend::KvType;
use crate::engine::{self, KeepAlive, Models, ModelsSettings};
use crate::gpu::Arithmetic;
use crate::server::{self, App, Changes, Keys, Origins, RequestLog, ServerSettings, Templates};
use crate::settings::Settings;
use crate::store::Store;
use crate::store::registry::Registry;
use anyhow::{Context, Result, anyhow, bail};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// How long files may be put in order at the end.
const LAST_WORK: Duration = Duration::from_secs(5);

/// The arguments of `serve`.
#[derive(Debug, Default, clap::Args)]
pub struct Arguments {
    #[arg(hide = true)]
    names: Vec<String>,
    /// Serve others: listen on all interfaces, for callers with API keys, who may ask models but not change them
    #[arg(long)]
    public: bool,
    /// With --public, answer everyone
    #[arg(long)]
    without_keys: bool,
    /// With --public, let callers make, copy, remove, pull and push models
    #[arg(long)]
    allow_changes: bool,
}

/// Runs the server; returns when it was told to stop.
pub fn serve(mut arguments: Arguments) -> Result<()> {
    let [] = usage::exactly(std::mem::take(&mut arguments.names))?;
    engine::share_one_heap();
    let settings = Settings::from_env();
    arguments.check(settings.api_keys_file.is_some())?;
    log::to_stderr(settings.log_level);
    for warning in &settings.warnings {
        tracing::warn!("{warning}");
    }
    for name in &settings.without_effect {
        tracing::debug!("{name} has no effect here");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the asynchronous runtime")?;
    let served = runtime.block_on(listen(settings, &arguments));
    // Work on files notices that nobody waits for it; a disk that does not answer keeps no process alive.
    runtime.shutdown_timeout(LAST_WORK);
    served
}

impl Arguments {
    /// Refuses what contradicts itself, and a public server that knows no callers by oversight.
    fn check(&self, has_keys: bool) -> Result<()> {
        match (self.public, self.without_keys, has_keys) {
            (false, _, _) if self.without_keys || self.allow_changes => {
                bail!("--without-keys and --allow-changes go with --public")
            }
            (true, false, false) => bail!(
                "a public server needs the API keys of its callers: set OLLAMA_WGPU_API_KEYS_FILE to a file with \
                 one key a line, or add --without-keys to answer everyone"
            ),
            (true, true, true) => {
                bail!("--without-keys contradicts OLLAMA_WGPU_API_KEYS_FILE: leave one of them out")
            }
            _ => Ok(()),
        }
    }

    /// Where to listen: a public server on all interfaces, unless the user says where.
    fn address(&self, settings: &Settings) -> String {
        let mut host = settings.host.clone();
        if self.public && !settings.has_host {
            host.name.clear();
        }
        host.bind_address()
    }

    fn changes(&self, settings: &Settings) -> Changes {
        match self.public && !self.allow_changes {
            true => Changes::PullsFrom(settings.registries.clone()),
            false => Changes::All,
        }
    }
}

async fn listen(settings: Settings, arguments: &Arguments) -> Result<()> {
    let origins = Origins::parse(settings.origins.iter().map(String::as_str));
    let origins = origins.map_err(anyhow::Error::msg)?;
    let keys = settings
        .api_keys_file
        .as_deref()
        .map(Keys::open)
        .transpose();
    let keys = keys.context("OLLAMA_WGPU_API_KEYS_FILE")?.map(Arc::new);
    let tls = match (&settings.tls_cert, &settings.tls_key) {
        (Some(cert), Some(key)) => Some(server::tls_acceptor(cert, key).context("TLS")?),
        (None, None) => None,
        _ => bail!("set both OLLAMA_WGPU_TLS_CERT and OLLAMA_WGPU_TLS_KEY, or neither"),
    };
    let address = arguments.address(&settings);
    let listener = server::bind(&address).await.map_err(with_remedy)?;
    let bound = listener.local_addr().context("no local address")?;
    // Of all devices: a model that finds no GPU it can use runs on the CPU, and one log line would be all that is said.
    Arithmetic::from_env()?;
    if let Some(name) = &settings.device {
        device::open(Some(name)).context("OLLAMA_WGPU_DEVICE")?;
    }
    let store = Store::open(&settings.models)?;
    look_after(store.clone(), settings.no_prune);
    if let Err(error) = Registry::make_key() {
        tracing::warn!("cannot make a key for registries, which are asked anonymously: {error}");
    }
    let request_log = settings
        .log_requests
        .then(|| log_requests(tls.is_some()))
        .transpose()?;
    let registry = Registry::new(store.clone());
    let is_reached = arguments.public || !bound.ip().is_loopback();
    if is_reached && keys.is_none() {
        registry.close_network(settings.registries.clone());
    }
    if let Some(agent) = &settings.user_agent {
        registry.call_itself(agent.clone());
    }
    let app = App {
        registry,
        store,
        models: Models::new(device::opener(settings.device.clone()), loading(&settings)),
        settings: ServerSettings {
            origins,
            loopback_only: bound.ip().is_loopback(),
            no_cloud: settings.no_cloud,
            keys: keys.clone(),
            changes: arguments.changes(&settings),
            go_template: settings.go_template,
            request_log,
        },
        templates: Templates::default(),
    };
    if let Some(warning) = exposure(bound, &app.settings.changes, keys.is_some(), tls.is_some()) {
        tracing::warn!("{warning}");
    }
    if let Some(keys) = keys {
        if let Some(path) = keys.readable_by_others() {
            let path = path.display();
            tracing::warn!(
                "other users may read the API keys in {path}: take the right away with chmod 600"
            );
        }
        reload_on_hangup(keys)?;
    }
    tracing::info!(
        models = %settings.models.display(),
        "listening on {bound} (version {})",
        env!("CARGO_PKG_VERSION")
    );
    server::serve(listener, tls, Arc::new(app), stop()?).await;
    tracing::info!("stopped");
    Ok(())
}

/// What to warn of: a server that others reach should know its callers, and not send keys in the clear.
fn exposure(bound: SocketAddr, changes: &Changes, has_keys: bool, has_tls: bool) -> Option<String> {
    let deeds = match changes {
        Changes::All => "use and delete models",
        Changes::PullsFrom(_) => "use its models",
    };
    match (has_keys, has_tls) {
        _ if bound.ip().is_loopback() => None,
        (false, _) => Some(format!(
            "listening on {bound} without API keys: whoever reaches it can {deeds}; \
             set OLLAMA_WGPU_API_KEYS_FILE"
        )),
        (true, false) => Some(format!(
            "listening on {bound} without TLS: API keys can be read on the way; \
             set OLLAMA_WGPU_TLS_CERT and OLLAMA_WGPU_TLS_KEY"
        )),
        (true, true) => None,
    }
}

fn log_requests(has_tls: bool) -> Result<Arc<RequestLog>> {
    let log = RequestLog::new(has_tls).context("OLLAMA_DEBUG_LOG_REQUESTS")?;
    tracing::warn!(
        "requests, with all they hold, are kept in {}; unset OLLAMA_DEBUG_LOG_REQUESTS to keep none",
        log.folder().display()
    );
    Ok(Arc::new(log))
}

/// Reads the keys again at every SIGHUP.
#[cfg(unix)]
fn reload_on_hangup(keys: Arc<Keys>) -> Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut hangups = signal(SignalKind::hangup()).context("cannot listen for signals")?;
    tokio::spawn(async move {
        while hangups.recv().await.is_some() {
            match keys.reload() {
                Ok(n) => tracing::info!("read {n} API keys again"),
                Err(error) => tracing::error!("API keys stay as they were: {error}"),
            }
        }
    });
    Ok(())
}

/// There is no such signal here: new keys need a restart.
#[cfg(not(unix))]
fn reload_on_hangup(_: Arc<Keys>) -> Result<()> {
    Ok(())
}

/// The address in use is the one start-up error that users meet daily: say what to do.
fn with_remedy(error: io::Error) -> anyhow::Error {
    if error.kind() == io::ErrorKind::AddrInUse {
        anyhow!("{error}; stop the server that runs there, or set OLLAMA_HOST to another address")
    } else {
        error.into()
    }
}

/// Looks after the models folder: removes what a crash or a deleted model left behind, unless that is not wanted, and
/// warns of what others can change. A failure is no reason not to serve.
fn look_after(store: Store, no_prune: bool) {
    if no_prune {
        store.keep_replaced();
    }
    tokio::task::spawn_blocking(move || {
        if let Some(path) = store.writable_by_others() {
            let path = path.display();
            tracing::warn!("other users may write {path}, and so decide what models say");
        }
        if no_prune {
            return;
        }
        match store.prune() {
            Ok(0) => {}
            Ok(removed) => tracing::info!("removed {removed} unused files from the models folder"),
            Err(error) => tracing::warn!("cannot clean up the models folder: {error}"),
        }
    });
}

/// What the settings say about loading models.
pub fn loading(settings: &Settings) -> ModelsSettings {
    let defaults = ModelsSettings::default();
    ModelsSettings {
        max_queue: settings.max_queue,
        max_loaded: settings.max_loaded_models.unwrap_or(defaults.max_loaded),
        n_parallel: settings.num_parallel,
        keep_alive: settings
            .keep_alive
            .map_or(KeepAlive::Forever, KeepAlive::For),
        load_timeout: settings.load_timeout,
        n_ctx: settings.context_length,
        kv_type: kv_type(&settings.kv_cache_type),
        gpu_overhead: settings.gpu_overhead,
    }
}

/// As Ollama: what is unknown is reported, and half floats are used.
fn kv_type(name: &str) -> KvType {
    KvType::from_name(name).unwrap_or_else(|| {
        let names = KvType::ALL.map(KvType::name).join(", ");
        tracing::warn!("OLLAMA_KV_CACHE_TYPE={name:?} is not supported ({names} are), f16 is used");
        KvType::F16
    })
}

/// Resolves at the first Ctrl-C or request to terminate.
fn stop() -> Result<impl Future<Output = ()>> {
    #[cfg(unix)]
    let mut terminate = {
        use tokio::signal::unix::{SignalKind, signal};
        signal(SignalKind::terminate()).context("cannot listen for signals")?
    };
    Ok(async move {
        #[cfg(unix)]
        tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            _ = terminate.recv() => {}
        }
        #[cfg(not(unix))]
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_that_others_reach_are_warned_of() {
        for (address, has_keys, has_tls, part) in [
            ("127.0.0.1:1", false, false, None),
            ("[::1]:1", false, false, None),
            ("0.0.0.0:1", false, false, Some("without API keys")),
            ("[::]:1", false, true, Some("without API keys")),
            ("192.0.2.1:1", true, false, Some("without TLS")),
            ("192.0.2.1:1", true, true, None),
        ] {
            let address = address.parse().expect("an address");
            let warning = exposure(address, &Changes::All, has_keys, has_tls);
            assert_eq!(warning.is_some(), part.is_some(), "{address}: {warning:?}");
            let warning = warning.unwrap_or_default();
            assert!(warning.contains(part.unwrap_or_default()), "{warning}");
            assert_eq!(warning.contains("delete"), warning.contains("without API"));
        }
        let everywhere = "0.0.0.0:1".parse().expect("an address");
        let closed = exposure(everywhere, &Changes::PullsFrom(Vec::new()), false, true);
        assert!(closed.is_some_and(|warning| !warning.contains("delete")));
    }

    #[test]
    fn a_public_server_listens_everywhere_unless_told_where() {
        for (host, public, address) in [
            (None, false, "127.0.0.1:11434"),
            (None, true, "0.0.0.0:11434"),
            (Some(":8080"), true, "0.0.0.0:8080"),
            (Some("127.0.0.1:0"), true, "127.0.0.1:0"),
            (Some("[::]"), true, "[::]:11434"),
            (Some("192.0.2.7"), false, "192.0.2.7:11434"),
        ] {
            let settings = Settings::read(|name| match name {
                "OLLAMA_HOST" => host.map(str::to_owned),
                _ => None,
            });
            let arguments = Arguments {
                public,
                ..Arguments::default()
            };
            assert_eq!(arguments.address(&settings), address, "{host:?} {public}");
        }
    }

    #[test]
    fn a_public_server_knows_its_callers_or_says_that_it_does_not() {
        for (public, without_keys, allow_changes, has_keys, part) in [
            (false, false, false, false, ""),
            (false, false, false, true, ""),
            (true, false, false, true, ""),
            (true, true, false, false, ""),
            (true, false, true, true, ""),
            (true, false, false, false, "OLLAMA_WGPU_API_KEYS_FILE"),
            (true, false, true, false, "--without-keys"),
            (true, true, false, true, "contradicts"),
            (false, true, false, false, "go with --public"),
            (false, false, true, true, "go with --public"),
        ] {
            let arguments = Arguments {
                public,
                without_keys,
                allow_changes,
                ..Arguments::default()
            };
            let checked = arguments.check(has_keys);
            assert_eq!(checked.is_ok(), part.is_empty(), "{arguments:?} {has_keys}");
            let text = checked.err().map(|e| e.to_string()).unwrap_or_default();
            assert!(text.contains(part), "{text}");
            let changes = arguments.changes(&Settings::read(|_| None));
            let may_change = matches!(changes, Changes::All);
            assert_eq!(may_change, !public || allow_changes);
        }
    }
}
