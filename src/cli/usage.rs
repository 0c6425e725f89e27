//! What was typed wrong, in the words of Ollama's command line.

use anyhow::{Result, bail};
use clap::Command;
use clap::error::{ContextKind, ContextValue, ErrorKind};

/// The text for a command line that clap refused.
pub fn refusal(error: &clap::Error, program: &Command) -> String {
    let context = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => text.as_str(),
        _ => "",
    };
    let argument = context(ContextKind::InvalidArg);
    let flag = argument.split([' ', '=']).next().unwrap_or_default();
    match error.kind() {
        ErrorKind::InvalidSubcommand => {
            unknown_command(context(ContextKind::InvalidSubcommand), program)
        }
        ErrorKind::UnknownArgument if flag.starts_with("--") => format!("unknown flag: {flag}"),
        ErrorKind::UnknownArgument => {
            let letter = flag.trim_start_matches('-');
            format!("unknown shorthand flag: '{letter}' in {flag}")
        }
        ErrorKind::InvalidValue if context(ContextKind::InvalidValue).is_empty() => {
            format!("flag needs an argument: {flag}")
        }
        ErrorKind::InvalidValue | ErrorKind::ValueValidation => format!(
            "invalid argument {:?} for {flag}",
            context(ContextKind::InvalidValue)
        ),
        ErrorKind::MissingRequiredArgument => match error.get(ContextKind::InvalidArg) {
            Some(ContextValue::Strings(missing)) => format!("requires {}", missing.join(" ")),
            _ => first_line(error),
        },
        _ => first_line(error),
    }
}

fn first_line(error: &clap::Error) -> String {
    let text = error.to_string();
    let line = text.lines().next().unwrap_or_default();
    line.trim_start_matches("error: ").to_owned()
}

fn unknown_command(typed: &str, program: &Command) -> String {
    let mut text = format!("unknown command {typed:?} for {:?}", program.get_name());
    let near: Vec<_> = program
        .get_subcommands()
        .filter(|command| !command.is_hide_set())
        .map(Command::get_name)
        .filter(|name| name.starts_with(typed) || distance(typed, name) <= 2)
        .collect();
    if !near.is_empty() {
        text += "\nDid you mean this?";
        for name in near {
            text += "\n\t";
            text += name;
        }
    }
    text
}

/// Letters to change, add or remove between two words (Levenshtein), case ignored.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.to_lowercase().chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.to_lowercase().chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, &y) in b.iter().enumerate() {
            let change = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = change.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

/// Exactly `N` arguments.
pub fn exactly<const N: usize>(arguments: Vec<String>) -> Result<[String; N]> {
    let received = arguments.len();
    match arguments.try_into() {
        Ok(arguments) => Ok(arguments),
        Err(_) => bail!("accepts {N} arg(s), received {received}"),
    }
}

/// The first argument and the others.
pub fn at_least_one(mut arguments: Vec<String>) -> Result<(String, Vec<String>)> {
    if arguments.is_empty() {
        bail!("requires at least 1 arg(s), only received 0");
    }
    let first = arguments.remove(0);
    Ok((first, arguments))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances() {
        for (a, b, letters) in [
            ("", "ps", 2),
            ("lst", "list", 1),
            ("lst", "ps", 2),
            ("lst", "cp", 3),
            ("LIST", "list", 0),
            ("kitten", "sitting", 3),
        ] {
            assert_eq!(distance(a, b), letters, "{a} {b}");
        }
    }

    #[test]
    fn argument_counts() {
        let args = |n: usize| vec![String::from("a"); n];
        let text = |n| exactly::<1>(args(n)).unwrap_err().to_string();
        assert_eq!(text(0), "accepts 1 arg(s), received 0");
        assert_eq!(text(2), "accepts 1 arg(s), received 2");
        assert!(exactly::<2>(args(2)).is_ok());
        assert_eq!(
            at_least_one(args(0)).unwrap_err().to_string(),
            "requires at least 1 arg(s), only received 0"
        );
        assert_eq!(at_least_one(args(3)).unwrap().1.len(), 2);
    }
}
