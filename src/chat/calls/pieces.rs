//! What stands between the names and values of a rendered call, cut at the right places.

use super::members::{KEY, Style, Texts};
use super::{Body, HOLE, Written};
use serde_json::Value;
use std::borrow::Cow;
use std::cmp::Reverse;

/// Shortest tag that tells a call within a text; a brace or bracket does at its start.
const MIN_TAG: usize = 3;
/// The same for one that is a word of the text.
const MIN_WORD: usize = 6;
/// Shortest text that two turns end with alike.
const MIN_END: usize = 3;
/// Longest text in which the end of a turn is looked for, in bytes: each place is compared with each.
const MAX_END: usize = 512;

/// The part of `before`, the text before a call's name, that tells a call from other text, such as `after_words`.
pub fn tag_of<'t>(before: &'t str, after_words: &str) -> Option<&'t str> {
    let end = before.find(|c: char| c.is_whitespace() || c == '{');
    let tag = &before[..end.unwrap_or(before.len())];
    // A list may begin behind the tag, with a blank or without.
    let tag = match tag.strip_suffix('[') {
        Some(rest) if rest.ends_with(['>', ']', '|']) => rest,
        _ => tag,
    };
    match tag {
        "" if before.starts_with('{') => return Some("{"),
        "[" => return Some(tag),
        _ => {}
    }
    // Of several in a row the first will do, if it stands nowhere else.
    let ends = ["><", ">[", "]<", "]["].into_iter();
    let ends = ends.flat_map(|pair| tag.match_indices(pair).map(|(at, _)| at + 1));
    let is_telling = |first: &str| {
        let is_single = before.matches(first).count() == 1;
        first.len() >= MIN_TAG && is_single && !after_words.contains(first)
    };
    let first = ends.filter(|&end| is_telling(&tag[..end])).min();
    let tag = &tag[..first.unwrap_or(tag.len())];
    let shortest = match tag.contains(['<', '[', '|']) {
        true => MIN_TAG,
        false => MIN_WORD,
    };
    (tag.len() >= shortest).then_some(tag)
}

/// Where each call has tags of its own: what stands between the end of one and the beginning of the next.
pub fn end_of_unit<'t>(between: &'t str, tag: &str) -> Option<&'t str> {
    let (end, _) = between.split_once(tag)?;
    Some(end.trim_end())
}

/// What stands between a name and its arguments as a JSON object, and what follows those.
pub fn json_call(rest: &str) -> Option<(&str, &str)> {
    let at = rest.find('{')?;
    let mut values = serde_json::Deserializer::from_str(&rest[at..]).into_iter::<Value>();
    values.next()?.ok()?.is_object().then_some(())?;
    Some((&rest[..at], &rest[at + values.byte_offset()..]))
}

/// Two literals as one, with a hole where they differ.
pub fn merged(a: &str, b: &str) -> String {
    if a == b {
        return a.to_owned();
    }
    let front = common_prefix(a, b);
    let back = common_suffix(&a[front..], &b[front..]);
    format!("{}{HOLE}{}", &a[..front], &a[a.len() - back..])
}

fn common_prefix(a: &str, b: &str) -> usize {
    let pairs = a.chars().zip(b.chars());
    let same = pairs.take_while(|(a, b)| a == b);
    same.map(|(c, _)| c.len_utf8()).sum()
}

fn common_suffix(a: &str, b: &str) -> usize {
    let pairs = a.chars().rev().zip(b.chars().rev());
    let same = pairs.take_while(|(a, b)| a == b);
    same.map(|(c, _)| c.len_utf8()).sum()
}

/// A call with arguments as an object, whose name begins with `open`.
pub fn json_body(open: &str, middle: String) -> Body {
    Body::Json {
        open: open.to_owned().into(),
        middle: middle.into(),
        close: "".into(),
    }
}

/// A call with arguments one by one.
pub fn members_body(middle: String, style: Style) -> Body {
    Body::Members {
        open: Cow::Borrowed(""),
        middle: middle.into(),
        style,
        close: Cow::Borrowed(""),
    }
}

/// What stands around two arguments that are texts.
#[derive(Debug)]
pub struct Members {
    /// Before the first name.
    pub before: String,
    /// Between a name and its value.
    middle: String,
    /// Between the first value and the second name; [`KEY`] for the first name in it.
    between: String,
    /// After the second value; [`KEY`] for the second name in it.
    pub after: String,
}

impl Members {
    pub fn of(rest: &str, keys: [&str; 2], texts: [&str; 2]) -> Option<Members> {
        let (before, rest) = rest.split_once(keys[0])?;
        let (middle, rest) = rest.split_once(texts[0])?;
        let (between, rest) = rest.split_once(keys[1])?;
        let (again, after) = rest.split_once(texts[1])?;
        let named = |text: &str, key: &str| text.replace(key, &KEY.to_string());
        (middle == again).then(|| Members {
            before: before.to_owned(),
            middle: middle.to_owned(),
            between: named(between, keys[0]),
            after: named(after, keys[1]),
        })
    }

    /// How one argument is written; `of_number` stands between a name and a number.
    pub fn style(&self, of_number: &str) -> Option<Style> {
        let quote = self.middle.strip_prefix(of_number);
        let quote = quote.filter(|q| !q.is_empty() && self.between.starts_with(q));
        let texts = match quote {
            Some("\"" | "'") => Texts::Json,
            Some(quote) => Texts::Between(quote.to_owned().into()),
            None if self.middle == of_number => Texts::Bare,
            None => Texts::BareAfter(self.middle.clone().into()),
        };
        let middle = match texts {
            Texts::BareAfter(_) => merged(&self.middle, of_number),
            _ => of_number.to_owned(),
        };
        let quote = quote.unwrap_or_default();
        let (between, after) = (
            &self.between[quote.len()..],
            self.after.strip_prefix(quote)?,
        );
        let open = &self.before[self.before.len() - common_suffix(&self.before, between)..];
        let open = from_a_tag(open);
        let between = between.strip_suffix(open)?;
        let close = up_to_a_tag(&between[..common_prefix(between, after)]);
        let is_bare = matches!(texts, Texts::Bare | Texts::BareAfter(_));
        let can_be_read = !(is_bare && close.trim().is_empty() || close.contains(HOLE));
        can_be_read.then(|| Style {
            open: open.to_owned().into(),
            middle: middle.into(),
            close: close.to_owned().into(),
            between: between[close.len()..].to_owned().into(),
            texts,
        })
    }
}

/// What follows an argument's value in `after`.
pub fn without(style: &Style, after: &str) -> Option<String> {
    let quote = match &style.texts {
        Texts::Between(quote) => quote,
        Texts::Json => &after[..after.starts_with(['"', '\'']).into()],
        _ => "",
    };
    let after = after.strip_prefix(quote)?.strip_prefix(&*style.close)?;
    Some(after.to_owned())
}

/// A text without the end of a tag at its beginning.
fn from_a_tag(text: &str) -> &str {
    match (text.find('>'), text.find('<')) {
        (Some(end), begin) if begin.is_none_or(|begin| end < begin) => text[end + 1..].trim_start(),
        _ => text,
    }
}

/// A text without the beginning of a tag at its end.
fn up_to_a_tag(text: &str) -> &str {
    match (text.rfind('<'), text.rfind('>')) {
        (Some(begin), end) if end.is_none_or(|end| end < begin) => &text[..begin],
        _ => text,
    }
}

/// Where the turn ends in what follows a call: with what ends a turn of words, too.
pub fn end_of_turn(after: &str, after_words: &str) -> usize {
    let bounded = |text: &'_ str| text.floor_char_boundary(MAX_END.min(text.len()));
    let (after_words, n) = (&after_words[..bounded(after_words)], bounded(after));
    let starts = after[..n].char_indices().map(|(at, _)| at);
    let alike = starts.map(|at| {
        let words = after_words.char_indices().map(|(from, _)| from);
        let lengths = words.map(|from| {
            let length = common_prefix(&after[at..n], &after_words[from..]);
            (length, Reverse(from))
        });
        (lengths.max().unwrap_or_default(), at)
    });
    // The longest; of several the one that a turn of words ends with first, and of those the first.
    let longest = alike.max_by_key(|&(alike, at)| (alike, n - at));
    let Some((_, at)) = longest.filter(|&((length, _), _)| length >= MIN_END) else {
        return after.len();
    };
    // Tags may end alike, which does not end a turn.
    let is_inside = after[..at].rfind('<') > after[..at].rfind('>');
    match after[at..].find('>').filter(|_| is_inside) {
        Some(end) => at + end + 1,
        None => at,
    }
}

/// The end of `after` that tells where the calls end: a tag that stands nowhere within them, unless each call has tags of
/// its own.
pub fn close_of(
    after: &str,
    before: &str,
    tag: &str,
    between: Option<&str>,
    call: &Body,
) -> String {
    let after = after.trim();
    let inside = |close: &str| {
        let between = between.filter(|between| end_of_unit(between, tag).is_none());
        let pieces = of_call(call).into_iter().chain([before]).chain(between);
        pieces.into_iter().any(|piece| piece.contains(close))
    };
    let starts = after.rmatch_indices(['<', '[']).map(|(at, _)| &after[at..]);
    let closes = starts.filter(|close| close.len() >= MIN_TAG && !close.contains([HOLE, KEY]));
    let mut closes = closes.filter(|close| !inside(close));
    closes.next().unwrap_or_default().to_owned()
}

/// The texts of a form that stand in every answer.
pub fn literals(written: &Written) -> Vec<&str> {
    let mut out = vec![&*written.before, &*written.after];
    out.extend(written.between.as_deref());
    out.extend(of_call(&written.call));
    out
}

fn of_call(call: &Body) -> Vec<&str> {
    let (middle, style) = match call {
        Body::Json { middle, .. } => return vec![middle],
        Body::Members { middle, style, .. } => (middle, style),
    };
    let text = match &style.texts {
        Texts::BareAfter(text) | Texts::Between(text) => text,
        Texts::Bare | Texts::Json => "",
    };
    let Style {
        open,
        middle: inner,
        close,
        between,
        ..
    } = style;
    vec![middle, open, inner, close, between, text]
}

/// Texts in angles or brackets that may be control tokens.
pub fn tokens(literals: &[&str]) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    for (open, close) in [('<', '>'), ('[', ']')] {
        for literal in literals {
            for (at, _) in literal.match_indices(open) {
                let Some(end) = literal[at..].find(close) else {
                    continue;
                };
                let token = &literal[at..=at + end];
                let is_one = |c: char| !(c.is_whitespace() || matches!(c, HOLE | KEY | '{' | '"'));
                let is_one =
                    token.len() >= MIN_TAG && token[1..].chars().all(|c| is_one(c) && c != open);
                if (is_one || token == "<|\"|>") && !out.iter().any(|known| known == token) {
                    out.push(token.to_owned());
                }
            }
        }
    }
    out
}
