//! The `OLLAMA_*` environment variables, read once: as typed, then as what they mean.

mod duration;
mod host;

pub use duration::parse_duration;
pub use host::Host;

use std::path::PathBuf;
use std::time::Duration;

/// What the user set, with Ollama's defaults for the rest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// `OLLAMA_HOST`: where the server listens, and where its clients find it.
    pub host: Host,
    /// Whether it says so, or `host` is the default.
    pub has_host: bool,
    /// `OLLAMA_ORIGINS`: origins of web pages that may ask, beside the local ones.
    pub origins: Vec<String>,
    /// `OLLAMA_MODELS`: the folder of manifests and blobs.
    pub models: PathBuf,
    /// `OLLAMA_KEEP_ALIVE`: how long an unused model stays loaded; `None` is for ever.
    pub keep_alive: Option<Duration>,
    /// `OLLAMA_LOAD_TIMEOUT`: how long a load may stand still; `None` is for ever.
    pub load_timeout: Option<Duration>,
    /// `OLLAMA_CONTEXT_LENGTH`: context of requests that name none.
    pub context_length: Option<usize>,
    /// `OLLAMA_NUM_PARALLEL`: requests that one model answers at once.
    pub num_parallel: usize,
    /// `OLLAMA_MAX_LOADED_MODELS`.
    pub max_loaded_models: Option<usize>,
    /// `OLLAMA_MAX_QUEUE`: requests that may wait.
    pub max_queue: usize,
    /// `OLLAMA_KV_CACHE_TYPE` in lower case.
    pub kv_cache_type: String,
    /// `OLLAMA_GPU_OVERHEAD`: bytes of a GPU to leave free.
    pub gpu_overhead: u64,
    /// `OLLAMA_NOPRUNE`: leave unused blobs alone, at the start and where a model is replaced.
    pub no_prune: bool,
    /// `OLLAMA_GO_TEMPLATE`: prefer Go templates, or the GGUF's; `None` picks for each model.
    pub go_template: Option<bool>,
    /// `OLLAMA_NO_CLOUD`.
    pub no_cloud: bool,
    /// `OLLAMA_WGPU_DEVICE`: `cpu`, an index, or a part of an adapter's name; `None` picks.
    pub device: Option<String>,
    /// `OLLAMA_WGPU_API_KEYS_FILE`: who may call; `None` lets everyone.
    pub api_keys_file: Option<PathBuf>,
    /// `OLLAMA_WGPU_REGISTRIES`: those of this network that a server without keys asks though others reach it, and all
    /// that a public one pulls from.
    pub registries: Vec<String>,
    /// `OLLAMA_WGPU_USER_AGENT`: what the server calls itself to registries, which may turn old clients away by it.
    pub user_agent: Option<String>,
    /// `OLLAMA_WGPU_TLS_CERT` and `OLLAMA_WGPU_TLS_KEY`: PEM files of the server's certificate chain and private key.
    pub tls_cert: Option<PathBuf>,
    pub tls_key: Option<PathBuf>,
    /// `OLLAMA_API_KEY`: what the command line sends to a server that asks for keys.
    pub api_key: Option<String>,
    /// `OLLAMA_DEBUG_LOG_REQUESTS`: keep the bodies of requests.
    pub log_requests: bool,
    /// `OLLAMA_DEBUG`.
    pub log_level: LogLevel,
    /// Values that were not understood, and what is used in their place.
    pub warnings: Vec<String>,
    /// Variables of Ollama's that are set and mean nothing here.
    pub without_effect: Vec<&'static str>,
}

/// Variables for what this server does not have, or decides by itself.
const WITHOUT_EFFECT: [&str; 14] = [
    "OLLAMA_AUTH",
    "OLLAMA_FLASH_ATTENTION",
    "OLLAMA_IGPU_ENABLE",
    "OLLAMA_LLM_LIBRARY",
    "OLLAMA_MAX_TRANSFER_STREAMS",
    "OLLAMA_REMOTES",
    "OLLAMA_SCHED_SPREAD",
    "OLLAMA_VULKAN",
    "CUDA_VISIBLE_DEVICES",
    "GGML_VK_VISIBLE_DEVICES",
    "GPU_DEVICE_ORDINAL",
    "HIP_VISIBLE_DEVICES",
    "HSA_OVERRIDE_GFX_VERSION",
    "ROCR_VISIBLE_DEVICES",
];

/// How much the server logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

impl Settings {
    /// Reads the process's environment.
    pub fn from_env() -> Settings {
        let mut settings = Settings::read(|name| std::env::var(name).ok());
        let unread = std::env::vars_os().filter(|(_, value)| value.to_str().is_none());
        let unread = unread.filter_map(|(name, _)| name.into_string().ok());
        let warnings = unread
            .filter(|name| name.starts_with("OLLAMA_"))
            .map(|name| format!("{name} is no UTF-8 text, the default is used"));
        settings.warnings.extend(warnings);
        settings
    }

    /// Reads the variables that `get` knows.
    pub fn read(get: impl Fn(&str) -> Option<String>) -> Settings {
        let mut env = Env {
            get: &get,
            warnings: Vec::new(),
        };
        let five_minutes = Some(Duration::from_secs(5 * 60));
        Settings {
            host: Host::parse(&env.text("OLLAMA_HOST"), &mut env.warnings),
            has_host: env.set("OLLAMA_HOST").is_some(),
            origins: env.list("OLLAMA_ORIGINS"),
            models: env
                .set("OLLAMA_MODELS")
                .map_or_else(default_models, PathBuf::from),
            keep_alive: env.duration("OLLAMA_KEEP_ALIVE", five_minutes),
            load_timeout: env
                .duration("OLLAMA_LOAD_TIMEOUT", five_minutes)
                .filter(|limit| !limit.is_zero()),
            context_length: env.count("OLLAMA_CONTEXT_LENGTH"),
            num_parallel: env.count("OLLAMA_NUM_PARALLEL").unwrap_or(1),
            max_loaded_models: env.count("OLLAMA_MAX_LOADED_MODELS"),
            max_queue: env.number("OLLAMA_MAX_QUEUE").unwrap_or(512),
            kv_cache_type: env
                .set("OLLAMA_KV_CACHE_TYPE")
                .map_or_else(|| "f16".to_owned(), |text| text.to_lowercase()),
            gpu_overhead: env.number("OLLAMA_GPU_OVERHEAD").unwrap_or(0) as u64,
            no_prune: env.is_on("OLLAMA_NOPRUNE"),
            go_template: env.set("OLLAMA_GO_TEMPLATE").map(|text| is_true(&text)),
            no_cloud: env.is_on("OLLAMA_NO_CLOUD"),
            device: env.set("OLLAMA_WGPU_DEVICE"),
            api_keys_file: env.set("OLLAMA_WGPU_API_KEYS_FILE").map(PathBuf::from),
            registries: env.list("OLLAMA_WGPU_REGISTRIES"),
            user_agent: env.set("OLLAMA_WGPU_USER_AGENT"),
            tls_cert: env.set("OLLAMA_WGPU_TLS_CERT").map(PathBuf::from),
            tls_key: env.set("OLLAMA_WGPU_TLS_KEY").map(PathBuf::from),
            api_key: env.set("OLLAMA_API_KEY"),
            log_requests: env.is_on("OLLAMA_DEBUG_LOG_REQUESTS"),
            log_level: log_level(&env.text("OLLAMA_DEBUG")),
            without_effect: WITHOUT_EFFECT
                .into_iter()
                .filter(|name| env.set(name).is_some())
                .collect(),
            warnings: env.warnings,
        }
    }
}

/// A variable's text, without blanks and quotes around it; `None` where nothing is left.
pub fn variable(name: &str) -> Option<String> {
    let value = std::env::var(name).ok()?;
    Some(clean(&value).to_owned()).filter(|text| !text.is_empty())
}

/// Is the variable set, and not to one of Go's spellings of false?
pub fn is_on(name: &str) -> bool {
    variable(name).is_some_and(|text| is_true(&text))
}

/// Where a program may keep what it can make again: the folder of this one in that of the user, if there is one.
pub fn cache_folder() -> Option<PathBuf> {
    let set = |name| std::env::var_os(name).map(PathBuf::from);
    let absolute = |folder: &PathBuf| folder.is_absolute();
    let named = ["XDG_CACHE_HOME", "LOCALAPPDATA"].into_iter();
    let folder = named.filter_map(set).find(absolute);
    let folder = folder.or_else(|| std::env::home_dir().map(|home| home.join(".cache")));
    folder
        .filter(absolute)
        .map(|folder| folder.join("ollama-wgpu"))
}

fn default_models() -> PathBuf {
    let home = std::env::home_dir().unwrap_or_default();
    home.join(".ollama").join("models")
}

/// Without blanks and quotes around it.
fn clean(value: &str) -> &str {
    value.trim().trim_matches(['"', '\''])
}

/// Any text that is no spelling of false is true.
fn is_true(text: &str) -> bool {
    !matches!(text, "" | "0" | "f" | "F" | "false" | "FALSE" | "False")
}

fn log_level(text: &str) -> LogLevel {
    match text.parse::<i64>() {
        Ok(..=-2) => LogLevel::Error,
        Ok(-1) => LogLevel::Warn,
        Ok(2..) => LogLevel::Trace,
        _ if is_true(text) => LogLevel::Debug,
        _ => LogLevel::Info,
    }
}

struct Env<'a> {
    get: &'a dyn Fn(&str) -> Option<String>,
    warnings: Vec<String>,
}

impl Env<'_> {
    fn text(&self, name: &str) -> String {
        clean(&(self.get)(name).unwrap_or_default()).to_owned()
    }

    fn set(&self, name: &str) -> Option<String> {
        Some(self.text(name)).filter(|text| !text.is_empty())
    }

    fn is_on(&self, name: &str) -> bool {
        is_true(&self.text(name))
    }

    fn list(&self, name: &str) -> Vec<String> {
        let text = self.text(name);
        let entries = text.split(',').map(str::trim);
        entries
            .filter(|entry| !entry.is_empty())
            .map(str::to_owned)
            .collect()
    }

    fn number(&mut self, name: &str) -> Option<usize> {
        let text = self.set(name)?;
        // A sign is none of Go's decimal digits.
        let is_plain = text.bytes().all(|b| b.is_ascii_digit());
        let number = text.parse().ok().filter(|_| is_plain);
        if number.is_none() {
            self.warnings.push(format!(
                "{name}={text:?} is not a whole number, the default is used"
            ));
        }
        number
    }

    /// A number above zero; zero leaves the choice open.
    fn count(&mut self, name: &str) -> Option<usize> {
        self.number(name).filter(|&count| count > 0)
    }

    /// A duration, or a bare number of seconds; negative is for ever.
    fn duration(&mut self, name: &str, default: Option<Duration>) -> Option<Duration> {
        let Some(text) = self.set(name) else {
            return default;
        };
        if let Ok(seconds) = text.parse::<i64>() {
            return u64::try_from(seconds).ok().map(Duration::from_secs);
        }
        parse_duration(&text).unwrap_or_else(|error| {
            let warning = format!("{name}: {error}, the default is used");
            self.warnings.push(warning);
            default
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(variables: &[(&str, &str)]) -> Settings {
        Settings::read(|name| {
            let found = variables.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn defaults_are_ollamas() {
        let defaults = settings(&[]);
        assert_eq!(defaults.host.url(), "http://127.0.0.1:11434");
        assert_eq!(defaults.keep_alive, Some(Duration::from_secs(300)));
        assert_eq!((defaults.num_parallel, defaults.max_queue), (1, 512));
        assert_eq!(defaults.kv_cache_type, "f16");
        assert!(!defaults.has_host && settings(&[("OLLAMA_HOST", "::1")]).has_host);
        assert!(defaults.models.ends_with(".ollama/models"));
        assert!(defaults.warnings.is_empty() && defaults.origins.is_empty());
    }

    #[test]
    fn values_are_cleaned_and_typed() {
        let set = settings(&[
            ("OLLAMA_MODELS", " \"/a b\" "),
            ("OLLAMA_NUM_PARALLEL", "'4'"),
            ("OLLAMA_CONTEXT_LENGTH", "0"),
            ("OLLAMA_MAX_QUEUE", "0"),
            ("OLLAMA_ORIGINS", "https://a, http://*.b ,"),
            ("OLLAMA_WGPU_REGISTRIES", "10.0.0.5:5000, hub.local"),
            ("OLLAMA_WGPU_USER_AGENT", "ollama/9.9.9"),
            ("OLLAMA_KV_CACHE_TYPE", "F32"),
            ("OLLAMA_GPU_OVERHEAD", "1073741824"),
            ("OLLAMA_NOPRUNE", "yes"),
            ("OLLAMA_GO_TEMPLATE", "false"),
            ("OLLAMA_WGPU_DEVICE", "cpu"),
        ]);
        assert_eq!(set.models, PathBuf::from("/a b"));
        assert_eq!((set.num_parallel, set.max_queue), (4, 0));
        assert_eq!(set.context_length, None);
        assert_eq!(set.origins, ["https://a", "http://*.b"]);
        assert_eq!(set.registries, ["10.0.0.5:5000", "hub.local"]);
        assert_eq!(set.user_agent.as_deref(), Some("ollama/9.9.9"));
        assert_eq!(set.kv_cache_type, "f32");
        assert_eq!(set.gpu_overhead, 1 << 30);
        assert!(set.no_prune && !set.no_cloud);
        assert_eq!(set.go_template, Some(false));
        assert_eq!(set.device.as_deref(), Some("cpu"));
    }

    #[test]
    fn keep_alive_forms() {
        let of = |text| settings(&[("OLLAMA_KEEP_ALIVE", text)]).keep_alive;
        for (text, seconds) in [
            ("60", Some(60)),
            ("0", Some(0)),
            ("1h", Some(3600)),
            ("-1", None),
            ("-5m", None),
            ("soon", Some(300)),
        ] {
            assert_eq!(of(text), seconds.map(Duration::from_secs), "{text}");
        }
    }

    #[test]
    fn load_timeout_forms() {
        let of = |text| settings(&[("OLLAMA_LOAD_TIMEOUT", text)]).load_timeout;
        for (text, seconds) in [
            ("", Some(300)),
            ("90", Some(90)),
            ("2m", Some(120)),
            ("0", None),
            ("0s", None),
            ("-1", None),
            ("-1s", None),
            ("soon", Some(300)),
        ] {
            assert_eq!(of(text), seconds.map(Duration::from_secs), "{text}");
        }
    }

    #[test]
    fn what_is_not_understood_is_told() {
        let set = settings(&[
            ("OLLAMA_NUM_PARALLEL", "-1"),
            ("OLLAMA_MAX_QUEUE", "+4"),
            ("OLLAMA_CONTEXT_LENGTH", "0x10"),
            ("OLLAMA_GPU_OVERHEAD", "1e9"),
            ("OLLAMA_MAX_LOADED_MODELS", "99999999999999999999"),
            ("OLLAMA_LOAD_TIMEOUT", "5 m"),
            ("OLLAMA_KEEP_ALIVE", "soon"),
            ("OLLAMA_HOST", "localhost:99999"),
        ]);
        assert_eq!((set.num_parallel, set.max_queue), (1, 512));
        assert_eq!((set.context_length, set.gpu_overhead), (None, 0));
        assert_eq!(set.max_loaded_models, None);
        for name in [
            "OLLAMA_NUM_PARALLEL",
            "OLLAMA_MAX_QUEUE",
            "OLLAMA_CONTEXT_LENGTH",
            "OLLAMA_GPU_OVERHEAD",
            "OLLAMA_MAX_LOADED_MODELS",
            "OLLAMA_LOAD_TIMEOUT",
            "OLLAMA_KEEP_ALIVE",
            "OLLAMA_HOST",
        ] {
            let named = set.warnings.iter().filter(|w| w.contains(name)).count();
            assert_eq!(named, 1, "{name} in {:?}", set.warnings);
        }
    }

    #[test]
    fn booleans_are_gos_and_any_other_text_is_true() {
        for (text, is_on) in [
            ("", false),
            ("0", false),
            ("f", false),
            ("F", false),
            ("false", false),
            ("FALSE", false),
            ("False", false),
            (" 'false' ", false),
            ("1", true),
            ("t", true),
            ("T", true),
            ("true", true),
            ("TRUE", true),
            ("True", true),
            ("fALSE", true),
            ("no", true),
            ("off", true),
        ] {
            let set = settings(&[
                ("OLLAMA_NOPRUNE", text),
                ("OLLAMA_NO_CLOUD", text),
                ("OLLAMA_DEBUG_LOG_REQUESTS", text),
            ]);
            let all = [set.no_prune, set.no_cloud, set.log_requests];
            assert_eq!(all, [is_on; 3], "{text:?}");
        }
    }

    #[test]
    fn what_means_nothing_here_is_listed() {
        let set = settings(&[
            ("OLLAMA_FLASH_ATTENTION", "1"),
            ("OLLAMA_SCHED_SPREAD", ""),
            ("CUDA_VISIBLE_DEVICES", "0"),
        ]);
        let expected = ["OLLAMA_FLASH_ATTENTION", "CUDA_VISIBLE_DEVICES"];
        assert_eq!(set.without_effect, expected);
        assert!(set.warnings.is_empty());
    }

    #[test]
    fn log_levels() {
        for (text, level) in [
            ("", LogLevel::Info),
            ("false", LogLevel::Info),
            ("0", LogLevel::Info),
            ("1", LogLevel::Debug),
            ("true", LogLevel::Debug),
            ("2", LogLevel::Trace),
            ("-1", LogLevel::Warn),
            ("-4", LogLevel::Error),
        ] {
            assert_eq!(log_level(text), level, "{text:?}");
        }
    }
}
