//! The interactive prompt's commands: `/set`, `/show`, `/load`, `/save` and their like.

use super::client::Client;
use super::repl::{Repl, history_file, is_answered, message};
use super::session::{self, can};
use super::show::{self, Section};
use super::{create, list, print, print_line, tell, whole};
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

/// Carries out `line` if it is a command.
///
/// # Errors
/// The loss of the server or of the terminal; what else goes wrong is told, and the prompt goes on.
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
        ("/set", arguments) => set(repl, line, arguments),
        ("/show", arguments) => show(repl, arguments).await,
        ("/list", arguments) => print_list(repl.client, arguments).await,
        ("/load", [model]) => load(repl, model).await,
        ("/load", _) => usage("/load <modelname>"),
        ("/save", [model]) => save(repl, model).await,
        ("/save", _) => usage("/save <modelname>"),
        ("/clear", _) => {
            repl.messages.retain(|message| message.role == "system");
            print_line("Cleared session context")
        }
        (unknown, _) => print_line(&format!("Unknown command '{unknown}'. Type /? for help")),
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
    print_line(&format!("Usage:\n  {text}"))
}

async fn print_list(client: &Client, arguments: &[&str]) -> Result<()> {
    let prefix = arguments.first().copied().unwrap_or_default();
    print(&list::list(client, prefix).await?)
}

/// `/load`: another model, and nothing said yet.
async fn load(repl: &mut Repl<'_>, model: &str) -> Result<()> {
    print_line(&format!("Loading model '{model}'"))?;
    let shown = match session::look_up(repl.client, model).await {
        Err(error) if error.is_not_found() => {
            return print_line(&format!("Couldn't find model '{model}'"));
        }
        Err(error) => return Err(error.into()),
        Ok(shown) if session::only_embeds(&shown) => {
            return print_line(&format!(
                "Couldn't load model '{model}': it embeds texts and writes none"
            ));
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
        return print_line(&format!("error: The model name '{model}' is invalid"));
    }
    create::send(repl.client, &request).await?;
    print_line(&format!("Created new model '{model}'"))
}

/// `/set`: changes the session, and says what was set.
fn set(repl: &mut Repl<'_>, line: &str, arguments: &[&str]) -> Result<()> {
    let session = &mut repl.session;
    let done = match arguments {
        ["parameter", name, values @ ..] if !values.is_empty() => {
            &set_parameter(&mut session.options, name, values)
        }
        ["parameter", ..] => {
            tell(HELP_PARAMETERS);
            return Ok(());
        }
        ["system", ..] => return set_system(repl, line),
        ["history"] => {
            repl.history = history_file();
            "Set 'history' mode."
        }
        ["nohistory"] => {
            repl.history = None;
            "Set 'nohistory' mode."
        }
        ["wordwrap"] => {
            session.word_wrap = true;
            "Set 'wordwrap' mode."
        }
        ["nowordwrap"] => {
            session.word_wrap = false;
            "Set 'nowordwrap' mode."
        }
        ["verbose"] => {
            session.verbose = true;
            "Set 'verbose' mode."
        }
        ["quiet"] => {
            session.verbose = false;
            "Set 'quiet' mode."
        }
        ["format", "json"] => {
            session.format = Some("json".into());
            "Set format to 'json' mode."
        }
        ["format", ..] => "Invalid or missing format. For 'json' mode use '/set format json'",
        ["noformat"] => {
            session.format = None;
            "Disabled format."
        }
        [] => {
            tell(help(&["set"]));
            return Ok(());
        }
        [unknown, ..] => &format!("Unknown command '/set {unknown}'. Type /? for help"),
    };
    print_line(done)
}

/// Replaces an option, and returns what is said of it; `stop` takes all the values, the others the first.
fn set_parameter(options: &mut Object, name: &str, values: &[&str]) -> String {
    let mut stops = Vec::new();
    for text in values {
        match parse_parameter(name, text) {
            Ok(Parameter::Single(value)) => {
                options.insert(name.to_owned(), value);
                return format!("Set parameter '{name}' to '{text}'");
            }
            Ok(Parameter::Item(text)) => stops.push(Value::String(text)),
            Ok(Parameter::Deprecated) => {
                return format!("Couldn't set parameter: \"{name} is deprecated\"");
            }
            Err(error) => return format!("Couldn't set parameter: {:?}", error.to_string()),
        }
    }
    options.insert(name.to_owned(), Value::Array(stops));
    format!("Set parameter '{name}' to '{}'", values.join(", "))
}

/// The system message holds from here on; one that nothing was said after is replaced.
fn set_system(repl: &mut Repl<'_>, line: &str) -> Result<()> {
    let text = line
        .split_once("system")
        .map_or("", |(_, text)| text.trim());
    let text = text.strip_prefix("\"\"\"").unwrap_or(text);
    let text = text.strip_suffix("\"\"\"").unwrap_or(text);
    if text.is_empty() {
        tell(HELP_SET);
        return Ok(());
    }
    if repl.messages.last().is_some_and(|m| m.role == "system") {
        repl.messages.pop();
    }
    repl.messages.push(message("system", text.to_owned()));
    print_line("Set system message.")
}

/// Switches thinking, with a warning where the model cannot.
async fn set_think(repl: &mut Repl<'_>, text: &str) -> Result<()> {
    let Some(think) = session::think(text) else {
        return print_line(&format!(
            "Invalid think value {text:?} (must be true, false, high, medium, low, or max)"
        ));
    };
    match text {
        "false" => print_line("Set 'nothink' mode.")?,
        "" | "true" => print_line("Set 'think' mode.")?,
        level => print_line(&format!("Set 'think' mode to '{level}'."))?,
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
        "info" => print(&show::summary(&model, false)),
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
        unknown => print_line(&format!(
            "Unknown command '/show {unknown}'. Type /? for help"
        )),
    }
}

fn section(section: Section, model: &ShowReply, nothing: &str) -> Result<()> {
    let text = section.text(model);
    let text = text.trim_end();
    print_line(if text.is_empty() { nothing } else { text })
}

fn show_parameters(model: &ShowReply, options: &Object) -> Result<()> {
    let mut text = String::from("Model defined parameters:\n");
    if model.parameters.is_empty() {
        text += "  No additional parameters were specified for this model.\n";
    }
    for line in model.parameters.lines() {
        text += &format!("  {line}\n");
    }
    text += "\n";
    if !options.is_empty() {
        text += "User defined parameters:\n";
        for (name, value) in options {
            text += &format!("  {name:<30} {value}\n");
        }
        text += "\n";
    }
    print(&text)
}

fn show_system(repl: &Repl<'_>, model: &ShowReply) -> Result<()> {
    let said = repl.messages.iter().rev().find(|m| m.role == "system");
    match said {
        Some(message) => print(&format!("{}\n\n", message.content)),
        None if model.system.is_empty() => {
            print_line("No system message was specified for this model.")
        }
        None => print(&format!("{}\n\n", model.system)),
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
