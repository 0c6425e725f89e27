//! The command line: a client of the server over HTTP, as any other, and `serve`, which is the server.
//!
//! Commands, flags, texts and exit codes are Ollama's; `docs/differences-from-ollama.md` names what differs.

mod answer;
mod bench;
mod client;
mod compose;
mod create;
mod debug;
pub mod device;
mod doctor;
mod editor;
mod format;
mod list;
mod log;
mod models;
mod print;
mod profile;
mod progress;
mod repl;
mod run;
mod serve;
mod session;
mod show;
mod slash;
mod source;
mod table;
mod transfer;
mod usage;
mod verify;

use crate::settings::Settings;
use anyhow::{Context, Result};
use clap::error::ErrorKind;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use client::Client;
use std::future::Future;
use std::io::{self, Write, stdout};
use std::process::ExitCode;

/// Serve and run language models on any GPU, behind Ollama's API
#[derive(Debug, Parser)]
#[command(
    name = "ollama-wgpu",
    override_usage = "ollama-wgpu [flags]\n       ollama-wgpu [command]",
    disable_help_subcommand = false,
    after_help = "Use \"ollama-wgpu [command] --help\" for more information about a command."
)]
struct Program {
    /// Show the version of the server and of this program
    #[arg(short = 'v', long)]
    version: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

const HOST_HELP: &str = "\
Environment Variables:
  OLLAMA_HOST       Address of the server (default 127.0.0.1:11434)
  OLLAMA_API_KEY    Key for a server that asks for one";

const SERVE_HELP: &str = "\
Environment Variables:
  OLLAMA_HOST                 Address to listen on (default 127.0.0.1:11434)
  OLLAMA_MODELS               Folder of the models (default ~/.ollama/models)
  OLLAMA_WGPU_DEVICE          Device: cpu, an index, or a part of its name such as vulkan:llvmpipe
                              (default: the best GPU, else the CPU)
  OLLAMA_WGPU_ARITHMETIC      What a GPU computes prompts in: floats, integers, halves
                              (default: what suits it)
  OLLAMA_KEEP_ALIVE           How long an unused model stays loaded (default 5m, negative is for ever)
  OLLAMA_LOAD_TIMEOUT         How long a load may stand still (default 5m, 0 or negative is for ever)
  OLLAMA_CONTEXT_LENGTH       Context length of requests that name none
                              (default: 4096, 32768 or 262144, by the GPU's memory)
  OLLAMA_NUM_PARALLEL         Requests that one model answers at once (default 1)
  OLLAMA_MAX_LOADED_MODELS    Models loaded at once
  OLLAMA_MAX_QUEUE            Requests that may wait (default 512)
  OLLAMA_KV_CACHE_TYPE        Type of the cache: f32, f16, q8_0 or q4_0 (default f16)
  OLLAMA_GPU_OVERHEAD         Bytes of a GPU's memory to leave free
  OLLAMA_WGPU_API_KEYS_FILE   File of the keys of those who may call, one a line; SIGHUP reads it again
  OLLAMA_WGPU_TLS_CERT        PEM file of the certificate chain to serve https with
  OLLAMA_WGPU_TLS_KEY         PEM file of its private key
  OLLAMA_WGPU_REGISTRIES      Registries of this network, HOST or HOST:PORT, separated by commas, that a server
                              without keys asks though others reach it; with --public, all that it pulls from
  OLLAMA_WGPU_USER_AGENT      What registries are told of the program's name and version
  OLLAMA_ORIGINS              Origins of web pages that may ask, separated by commas
  OLLAMA_GO_TEMPLATE          Prefer Go templates (true) or the model file's own (false)
  OLLAMA_NO_CLOUD             Say that hosted models are off
  OLLAMA_NOPRUNE              Remove unused files from the models folder only with their model
  OLLAMA_DEBUG                Log more (1, 2) or less (-1, -2)
  OLLAMA_DEBUG_LOG_REQUESTS   Keep the bodies of requests, with scripts that send them again, in a temporary folder";

#[derive(Debug, Subcommand)]
enum Command {
    /// Start the server
    #[command(visible_alias = "start", override_usage = "ollama-wgpu serve [flags]", after_help = SERVE_HELP)]
    Serve(serve::Arguments),
    /// Create a model from a Modelfile
    #[command(override_usage = "ollama-wgpu create MODEL [flags]", after_help = HOST_HELP)]
    Create(create::Arguments),
    /// Show what a model is
    #[command(override_usage = "ollama-wgpu show MODEL [flags]", after_help = HOST_HELP)]
    Show(models::Show),
    /// Ask a model, once or in a conversation
    #[command(
        override_usage = "ollama-wgpu run MODEL [PROMPT] [flags]",
        after_help = "Environment Variables:\n  OLLAMA_HOST         Address of the server (default 127.0.0.1:11434)\n  OLLAMA_API_KEY      Key for a server that asks for one\n  OLLAMA_NOHISTORY    Do not keep the history of the interactive prompt\n  OLLAMA_EDITOR       Editor that Ctrl + g opens (default VISUAL, EDITOR, vi)"
    )]
    Run(run::Arguments),
    /// Unload a model
    #[command(override_usage = "ollama-wgpu stop MODEL [flags]", after_help = HOST_HELP)]
    Stop(Names),
    /// Fetch a model from a registry
    #[command(override_usage = "ollama-wgpu pull MODEL [flags]", after_help = HOST_HELP)]
    Pull(transfer::Arguments),
    /// Send a model to a registry
    #[command(override_usage = "ollama-wgpu push MODEL [flags]", after_help = HOST_HELP)]
    Push(transfer::Arguments),
    /// List the models of the store, or those whose name begins with an argument
    #[command(visible_alias = "ls", override_usage = "ollama-wgpu list [flags]", after_help = HOST_HELP)]
    List(Names),
    /// List the models in memory, or those whose name begins with an argument
    #[command(override_usage = "ollama-wgpu ps [flags]", after_help = HOST_HELP)]
    Ps(Names),
    /// Copy a model
    #[command(override_usage = "ollama-wgpu cp SOURCE DESTINATION [flags]", after_help = HOST_HELP)]
    Cp(Names),
    /// Remove models
    #[command(override_usage = "ollama-wgpu rm MODEL [MODEL...] [flags]", after_help = HOST_HELP)]
    Rm(Names),
    /// Say which devices there are, which one is used, whether it computes rightly, and what fits
    #[command(
        override_usage = "ollama-wgpu doctor [flags]",
        after_help = "Environment Variables:\n  OLLAMA_WGPU_DEVICE    The device, as for serve"
    )]
    Doctor(Names),
    /// Measure how fast a model loads, reads and writes on this machine; no server is needed
    #[command(
        override_usage = "ollama-wgpu bench MODEL [flags]",
        after_help = "Environment Variables:\n  OLLAMA_MODELS         Folder of the models (default ~/.ollama/models)\n  OLLAMA_WGPU_DEVICE    The device, as for serve"
    )]
    Bench(bench::Arguments),
    /// Print what makes a shell complete this program's commands
    #[command(
        override_usage = "ollama-wgpu completions SHELL [flags]",
        after_help = "For example: ollama-wgpu completions bash > ~/.local/share/bash-completion/completions/ollama-wgpu"
    )]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Look inside models and devices (docs/debugging.md)
    #[command(subcommand, hide = true)]
    Debug(debug::Debug),
}

#[derive(Debug, clap::Args)]
struct Names {
    #[arg(hide = true)]
    names: Vec<String>,
}

/// Runs the program on the process's arguments; errors go to stderr as `Error: <message>`.
pub fn main() -> ExitCode {
    let mut program = Program::command();
    program.build();
    let parsed = program
        .try_get_matches_from_mut(std::env::args_os())
        .and_then(|matches| Program::from_arg_matches(&matches));
    let done = match parsed {
        Ok(parsed) => parsed.run(&mut program),
        Err(error) if is_help(error.kind()) => print(&error.to_string()),
        Err(error) => Err(anyhow::anyhow!(usage::refusal(&error, &program))),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            tell(&format!("Error: {}", whole(&error)));
            ExitCode::FAILURE
        }
    }
}

/// Was help asked for, or a group of commands without one of them?
fn is_help(kind: ErrorKind) -> bool {
    use ErrorKind::{DisplayHelp, DisplayHelpOnMissingArgumentOrSubcommand};
    matches!(kind, DisplayHelp | DisplayHelpOnMissingArgumentOrSubcommand)
}

/// An error and its causes, each once: some tell theirs themselves.
fn whole(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if text.is_empty() {
            text = cause;
        } else if !text.ends_with(&cause) {
            text += ": ";
            text += &cause;
        }
    }
    text
}

/// Did the reader of our output go away, as `head` does?
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let cause = error.downcast_ref::<io::Error>();
    cause.is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe)
}

impl Program {
    fn run(self, program: &mut clap::Command) -> Result<()> {
        match self.command {
            None if self.version => block_on(models::version(&client()?)),
            None => print(&program.render_help().to_string()),
            Some(command) => command.run(),
        }
    }
}

impl Command {
    fn run(self) -> Result<()> {
        match self {
            Command::Serve(arguments) => serve::serve(arguments),
            Command::Create(arguments) => block_on(create::create(&client()?, arguments)),
            Command::Show(arguments) => block_on(models::show(&client()?, arguments)),
            Command::Run(arguments) => block_on(run::run(&client()?, arguments)),
            Command::Stop(Names { names }) => block_on(models::stop(&client()?, names)),
            Command::Pull(arguments) => block_on(transfer::pull(&client()?, arguments)),
            Command::Push(arguments) => block_on(transfer::push(&client()?, arguments)),
            Command::List(Names { names }) => block_on(models::list(&client()?, names)),
            Command::Ps(Names { names }) => block_on(models::ps(&client()?, names)),
            Command::Cp(Names { names }) => block_on(models::cp(&client()?, names)),
            Command::Rm(Names { names }) => block_on(models::rm(&client()?, names)),
            Command::Doctor(Names { names }) => {
                let [] = usage::exactly(names)?;
                doctor::doctor()
            }
            Command::Bench(arguments) => bench::bench(arguments),
            Command::Completions { shell } => {
                let mut script = Vec::new();
                let mut program = Program::command();
                clap_complete::generate(shell, &mut program, "ollama-wgpu", &mut script);
                print(&String::from_utf8_lossy(&script))
            }
            Command::Debug(debug) => debug.run(),
        }
    }
}

fn client() -> Result<Client> {
    let settings = Settings::from_env();
    Client::new(&settings.host.url(), settings.api_key.as_deref())
}

/// A client needs one thread; the interactive prompt waits for keys on another.
fn block_on<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the asynchronous runtime")?
        .block_on(work)
}

/// Writes a line to stderr. Nobody is left to be told if that is gone, as on a full disk.
fn tell(line: &str) {
    writeln!(io::stderr(), "{line}").ok();
}

/// What is said where stdout takes nothing more.
const UNWRITTEN: &str = "cannot write to standard output";

/// Writes `text` to stdout.
fn print(text: &str) -> Result<()> {
    let mut out = stdout().lock();
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    written.context(UNWRITTEN)
}

/// Writes a line to stdout.
fn print_line(line: &str) -> Result<()> {
    print(&format!("{line}\n"))
}
