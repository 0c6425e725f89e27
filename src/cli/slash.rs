//! The interactive prompt's commands: `/set`, `/show`, `/load`, `/save` and their like.

use super::client::Client;
use super::repl::{Repl, history_file, is_answered, message};
use super::session::{self, can};
use super::show::{self, Section};
use super::{create, list, tell, whole};
use crate::api::{CreateRequest, Object, ShowReply, ShowRequest};
use crate::store::{ModelName, Parameter, parse_parameter};
use anyhow::Result;
use serde_json::Value;

/// What became of a line.
pub enum Outcome {
    NotACommand,
    Done,
    Quit,
}

/// Carries out `line` if it is a command. Only the loss of the server is an error.
pub async fn command(repl: &mut Repl<'_>, line: &str) -> Result<Outcome> {
    let line = line.trim();
    if !line.starts_with('/') {
        return Ok(Outcome::NotACommand);
    }
    let words: Vec<&str> = line.split_whitespace().collect();
    let done = match (words[0], &words[1..]) {
        ("/bye" | "/exit", _) => return Ok(Outcome::Quit),
        ("/?" | "/help", topic) => {
            tell(help(topic));
            Ok(())
        }
        ("/set", ["think", level @ ..]) => {
            set_think(repl, level.first().copied().unwrap_or_default()).await
        }
        ("/set", ["nothink"]) => set_think(repl, "false").await,
        ("/set", arguments) => {
            set(repl, line, arguments);
            Ok(())
        }
        ("/show", arguments) => show(repl, arguments).await,
        ("/list", arguments) => print_list(repl.client, arguments).await,
        ("/load", [model]) => load(repl, model).await,
        ("/load", _) => usage("/load <modelname>"),
        ("/save", [model]) => save(repl, model).await,
        ("/save", _) => usage("/save <modelname>"),
        ("/clear", _) => {
            repl.messages.retain(|message| message.role == "system");
            println!("Cleared session context");
            Ok(())
        }
        (unknown, _) => {
            println!("Unknown command '{unknown}'. Type /? for help");
            Ok(())
        }
    };
    match done {
        Err(error) if !is_answered(&error) => Err(error),
        Err(error) => {
            tell(&format!("Error: {}", whole(&error)));
            Ok(Outcome::Done)
        }
        Ok(()) => Ok(Outcome::Done),
    }
}

fn usage(text: &str) -> Result<()> {
    println!("Usage:\n  {text}");
    Ok(())
}

async fn print_list(client: &Client, arguments: &[&str]) -> Result<()> {
    let prefix = arguments.first().copied().unwrap_or_default();
    print!("{}", list::list(client, prefix).await?);
    Ok(())
}

/// `/load`: another model, and nothing said yet.
async fn load(repl: &mut Repl<'_>, model: &str) -> Result<()> {
    println!("Loading model '{model}'");
    let shown = match session::look_up(repl.client, model).await {
        Err(error) if error.is_not_found() => {
            println!("Couldn't find model '{model}'");
            return Ok(());
        }
        Err(error) => return Err(error.into()),
        Ok(shown) if session::only_embeds(&shown) => {
            println!("Couldn't load model '{model}': it embeds texts and writes none");
            return Ok(());
        }
        Ok(shown) => shown,
    };
    let mut session = repl.session.clone();
    session.adopt(model, &shown);
    session.load(repl.client).await?;
    repl.session = session;
    repl.messages.clear();
    Ok(())
}

/// `/save`: a model made of this session's model, options and messages.
async fn save(repl: &Repl<'_>, model: &str) -> Result<()> {
    let (system, messages): (Vec<_>, Vec<_>) = repl
        .messages
        .iter()
        .cloned()
        .partition(|message| message.role == "system");
    let request = CreateRequest {
        model: model.to_owned(),
        from: repl.session.model.clone(),
        system: system.last().map(|m| m.content.clone()).unwrap_or_default(),
        parameters: repl.session.options.clone(),
        messages,
        ..Default::default()
    };
    if ModelName::parse(model).is_err() {
        println!("error: The model name '{model}' is invalid");
        return Ok(());
    }
    create::send(repl.client, &request).await?;
    println!("Created new model '{model}'");
    Ok(())
}

fn set(repl: &mut Repl<'_>, line: &str, arguments: &[&str]) {
    let session = &mut repl.session;
    match arguments {
        ["parameter", name, values @ ..] if !values.is_empty() => {
            set_parameter(&mut session.options, name, values);
        }
        ["parameter", ..] => tell(HELP_PARAMETERS),
        ["system", ..] => set_system(repl, line),
        ["history"] => {
            repl.history = history_file();
            println!("Set 'history' mode.");
        }
        ["nohistory"] => {
            repl.history = None;
            println!("Set 'nohistory' mode.");
        }
        ["wordwrap"] => {
            session.word_wrap = true;
            println!("Set 'wordwrap' mode.");
        }
        ["nowordwrap"] => {
            session.word_wrap = false;
            println!("Set 'nowordwrap' mode.");
        }
        ["verbose"] => {
            session.verbose = true;
            println!("Set 'verbose' mode.");
        }
        ["quiet"] => {
            session.verbose = false;
            println!("Set 'quiet' mode.");
        }
        ["format", "json"] => {
            session.format = Some("json".into());
            println!("Set format to 'json' mode.");
        }
        ["format", ..] => {
            println!("Invalid or missing format. For 'json' mode use '/set format json'")
        }
        ["noformat"] => {
            session.format = None;
            println!("Disabled format.");
        }
        [] => tell(help(&["set"])),
        [unknown, ..] => println!("Unknown command '/set {unknown}'. Type /? for help"),
    }
}

/// Replaces an option; `stop` takes all the values, the others the first.
fn set_parameter(options: &mut Object, name: &str, values: &[&str]) {
    let mut stops = Vec::new();
    for text in values {
        match parse_parameter(name, text) {
            Ok(Parameter::Single(value)) => {
                options.insert(name.to_owned(), value);
                println!("Set parameter '{name}' to '{text}'");
                return;
            }
            Ok(Parameter::Item(text)) => stops.push(Value::String(text)),
            Ok(Parameter::Deprecated) => {
                println!("Couldn't set parameter: \"{name} is deprecated\"");
                return;
            }
            Err(error) => {
                println!("Couldn't set parameter: {:?}", error.to_string());
                return;
            }
        }
    }
    options.insert(name.to_owned(), Value::Array(stops));
    println!("Set parameter '{name}' to '{}'", values.join(", "));
}

/// The system message holds from here on; one that nothing was said after is replaced.
fn set_system(repl: &mut Repl<'_>, line: &str) {
    let text = line
        .split_once("system")
        .map_or("", |(_, text)| text.trim());
    let text = text.strip_prefix("\"\"\"").unwrap_or(text);
    let text = text.strip_suffix("\"\"\"").unwrap_or(text);
    if text.is_empty() {
        tell(HELP_SET);
        return;
    }
    if repl.messages.last().is_some_and(|m| m.role == "system") {
        repl.messages.pop();
    }
    repl.messages.push(message("system", text.to_owned()));
    println!("Set system message.");
}

/// Switches thinking, with a warning where the model cannot.
async fn set_think(repl: &mut Repl<'_>, text: &str) -> Result<()> {
    let Some(think) = session::think(text) else {
        println!("Invalid think value {text:?} (must be true, false, high, medium, low, or max)");
        return Ok(());
    };
    match text {
        "false" => println!("Set 'nothink' mode."),
        "" | "true" => println!("Set 'think' mode."),
        level => println!("Set 'think' mode to '{level}'."),
    }
    let wanted = think.is_on();
    repl.session.think = Some(think);
    repl.session.think_chosen = true;
    let shown = session::look_up(repl.client, &repl.session.model).await?;
    if wanted && !can(&shown, "thinking") {
        let model = &repl.session.model;
        tell(&format!(
            "warning: model {model:?} does not support thinking output"
        ));
    }
    Ok(())
}

async fn show(repl: &Repl<'_>, arguments: &[&str]) -> Result<()> {
    let [what, ..] = arguments else {
        tell(help(&["show"]));
        return Ok(());
    };
    let request = ShowRequest {
        model: repl.session.model.clone(),
        options: repl.session.options.clone(),
        ..Default::default()
    };
    let model: ShowReply = repl.client.post("/api/show", &request).await?;
    match *what {
        "info" => print!("{}", show::summary(&model, false)),
        "license" => section(
            Section::License,
            &model,
            "No license was specified for this model.",
        ),
        "modelfile" => section(Section::Modelfile, &model, "No Modelfile for this model."),
        "parameters" => show_parameters(&model, &repl.session.options),
        "system" => show_system(repl, &model),
        "template" => section(
            Section::Template,
            &model,
            "No prompt template was specified for this model.",
        ),
        unknown => println!("Unknown command '/show {unknown}'. Type /? for help"),
    }
    Ok(())
}

fn section(section: Section, model: &ShowReply, nothing: &str) {
    let text = section.text(model);
    let text = text.trim_end();
    println!("{}", if text.is_empty() { nothing } else { text });
}

fn show_parameters(model: &ShowReply, options: &Object) {
    println!("Model defined parameters:");
    if model.parameters.is_empty() {
        println!("  No additional parameters were specified for this model.");
    }
    for line in model.parameters.lines() {
        println!("  {line}");
    }
    println!();
    if !options.is_empty() {
        println!("User defined parameters:");
        for (name, value) in options {
            println!("  {name:<30} {value}");
        }
        println!();
    }
}

fn show_system(repl: &Repl<'_>, model: &ShowReply) {
    let said = repl.messages.iter().rev().find(|m| m.role == "system");
    match said {
        Some(message) => println!("{}\n", message.content),
        None if model.system.is_empty() => {
            println!("No system message was specified for this model.");
        }
        None => println!("{}\n", model.system),
    }
}

fn help(topic: &[&str]) -> &'static str {
    match topic.first().copied() {
        Some("set" | "/set") => HELP_SET,
        Some("show" | "/show") => HELP_SHOW,
        Some("shortcut" | "shortcuts") => HELP_SHORTCUTS,
        _ => HELP,
    }
}

const HELP: &str = "\
Available Commands:
  /set            Set session variables
  /show           Show model information
  /list [prefix]  List the models
  /load <model>   Load another model
  /save <model>   Save this session as a model
  /clear          Forget the conversation
  /bye            Exit
  /?, /help       Help for a command
  /? shortcuts    Help for keyboard shortcuts

Use \"\"\" to begin and end a message of several lines.
";

const HELP_SET: &str = "\
Available Commands:
  /set parameter <name> <value>  Set an option, such as temperature, num_ctx, seed or stop
  /set system <text>             Set the system message
  /set history                   Keep the prompt history
  /set nohistory                 Do not keep the prompt history
  /set wordwrap                  Wrap words at the edge of the terminal
  /set nowordwrap                Do not wrap words
  /set format json               Answer in JSON
  /set noformat                  Answer in any form
  /set verbose                   Show timings after each answer
  /set quiet                     Show no timings
  /set think [level]             Let the model reason first (low, medium, high or max)
  /set nothink                   Do not let the model reason
";

const HELP_PARAMETERS: &str = "\
Usage:
  /set parameter <name> <value>

Parameters:
  seed <int>                   Where the random numbers begin
  num_predict <int>            Most tokens of an answer
  num_ctx <int>                Tokens of context
  temperature <float>          0 takes the likeliest token, more is freer
  top_k <int>                  Choose among so many tokens
  top_p <float>                Choose among the tokens of so much probability
  min_p <float>                Leave out what has less than this share of the likeliest token's probability
  repeat_penalty <float>       How much less likely tokens become that were there before
  repeat_last_n <int>          How far back these are looked for
  num_gpu <int>                Layers on the GPU
  stop <text> <text> ...       Texts that end an answer
";

const HELP_SHOW: &str = "\
Available Commands:
  /show info         Show what the model is
  /show license      Show its license
  /show modelfile    Show its Modelfile
  /show parameters   Show its parameters and this session's
  /show system       Show the system message
  /show template     Show its prompt template
";

const HELP_SHORTCUTS: &str = "\
Available keyboard shortcuts:
  Ctrl + a, e    Move to the beginning, the end of the line
  Alt + b, f     Move back, forward one word
  Ctrl + k, u    Delete to the end, to the beginning of the line
  Ctrl + w       Delete the word before the cursor
  Ctrl + j       Add a line to the message
  Ctrl + g       Go on with the message in an editor (OLLAMA_EDITOR)
  Ctrl + r       Search the history
  Up, Down       Recall earlier lines
  Ctrl + l       Clear the screen
  Ctrl + c       Stop the model's answer
  Ctrl + d       Exit (/bye)
";
