//! From tokens to text: half characters and possible stop strings are held back.

use super::TokenLogprob;
use crate::tokenizer::Tokenizer;

/// What the engine asks of a tokenizer.
pub trait Vocabulary: Send + Sync {
    /// The bytes that a token stands for; control tokens give their text.
    fn token_bytes(&self, token: u32) -> &[u8];
    /// Whether the token is no text, such as a role mark.
    fn is_control(&self, token: u32) -> bool;
    /// Whether the token ends a generation.
    fn is_end_of_generation(&self, token: u32) -> bool;
    /// Whether every prompt begins with a token that marks the beginning.
    fn adds_bos(&self) -> bool;
}

impl Vocabulary for Tokenizer {
    fn token_bytes(&self, token: u32) -> &[u8] {
        self.token_bytes(token)
    }

    fn is_control(&self, token: u32) -> bool {
        self.is_control(token)
    }

    fn is_end_of_generation(&self, token: u32) -> bool {
        self.is_end_of_generation(token)
    }

    fn adds_bos(&self) -> bool {
        self.adds_bos()
    }
}

/// Any model's tokens as text that never ends: for measurements and references, whose answers have a given length.
pub struct Endless;

impl Vocabulary for Endless {
    fn token_bytes(&self, _: u32) -> &[u8] {
        b"."
    }

    fn is_control(&self, _: u32) -> bool {
        false
    }

    fn is_end_of_generation(&self, _: u32) -> bool {
        false
    }

    fn adds_bos(&self) -> bool {
        false
    }
}

/// Text that may be shown, and the tokens behind it.
#[derive(Debug, Default, PartialEq)]
pub struct Piece {
    pub text: String,
    pub tokens: Vec<u32>,
    pub logprobs: Vec<TokenLogprob>,
}

impl Piece {
    /// Whether there is nothing to tell.
    pub fn is_empty(&self) -> bool {
        self.text.is_empty() && self.tokens.is_empty()
    }
}

/// The text of one generation on its way out.
#[derive(Debug)]
pub struct Output {
    stops: Vec<Vec<u8>>,
    /// Bytes that were not given out yet. A stop string always begins in here, since whatever
    /// may be the beginning of one is held back.
    held: Vec<u8>,
    /// Tokens that were not given out yet, with the place in `held` where each ends.
    tokens: Vec<(u32, Option<TokenLogprob>, usize)>,
    matched: Option<usize>,
}

impl Output {
    /// Nothing generated yet.
    pub fn new(stops: &[String]) -> Output {
        Output {
            stops: stops.iter().map(|s| s.as_bytes().to_vec()).collect(),
            held: Vec::new(),
            tokens: Vec::new(),
            matched: None,
        }
    }

    /// The stop string that ended the text, by its place among all.
    pub fn matched_stop(&self) -> Option<usize> {
        self.matched
    }

    /// Takes the next token and its bytes. Returns what may be shown now, and whether a stop
    /// string ended the text.
    pub fn push(
        &mut self,
        token: u32,
        bytes: &[u8],
        logprob: Option<TokenLogprob>,
    ) -> (Piece, bool) {
        self.held.extend_from_slice(bytes);
        self.tokens.push((token, logprob, self.held.len()));
        if let Some((at, stop)) = self.find_stop() {
            self.matched = Some(stop);
            // The last token that has text before the stop string is the one that goes past it.
            let n_before = self.tokens.partition_point(|&(_, _, end)| end <= at);
            let begins_before = self.tokens[..n_before].last().map_or(0, |t| t.2) < at;
            self.tokens.truncate(n_before + usize::from(begins_before));
            return (self.release_all(at), true);
        }
        let until = whole_characters(&self.held[..self.held.len() - self.possible_stop()]);
        if until == 0 {
            return (Piece::default(), false);
        }
        (self.release(until), false)
    }

    /// The rest, when the generation ends for another reason. Half a character is dropped.
    pub fn finish(&mut self) -> Piece {
        self.release_all(whole_characters(&self.held))
    }

    /// Gives out the first `until` bytes and all tokens; the rest of the bytes is dropped.
    fn release_all(&mut self, until: usize) -> Piece {
        self.held.truncate(until);
        for (_, _, end) in &mut self.tokens {
            *end = (*end).min(until);
        }
        self.release(until)
    }

    /// Where the first stop string begins, and which one it is. An empty one is none.
    fn find_stop(&self) -> Option<(usize, usize)> {
        let find = |stop: &Vec<u8>| self.held.windows(stop.len()).position(|w| w == stop);
        let stops = self.stops.iter().enumerate().filter(|(_, s)| !s.is_empty());
        stops.filter_map(|(i, stop)| Some((find(stop)?, i))).min()
    }

    /// Length of the longest end of the held bytes that may be the beginning of a stop string.
    fn possible_stop(&self) -> usize {
        let longest = |stop: &Vec<u8>| {
            let most = self.held.len().min(stop.len().saturating_sub(1));
            (1..=most).rev().find(|&n| self.held.ends_with(&stop[..n]))
        };
        self.stops.iter().filter_map(longest).max().unwrap_or(0)
    }

    /// Gives out the first `until` bytes and the tokens that end in them.
    fn release(&mut self, until: usize) -> Piece {
        let rest = self.held.split_off(until);
        let shown = std::mem::replace(&mut self.held, rest);
        let mut piece = Piece {
            text: String::from_utf8_lossy(&shown).into_owned(),
            ..Piece::default()
        };
        let n = self.tokens.partition_point(|&(_, _, end)| end <= until);
        for (token, logprob, _) in self.tokens.drain(..n) {
            piece.tokens.push(token);
            piece.logprobs.extend(logprob);
        }
        for (_, _, end) in &mut self.tokens {
            *end -= until;
        }
        piece
    }
}

/// Length without an unfinished character at the end. Bytes that can never become a character
/// count as whole.
fn whole_characters(bytes: &[u8]) -> usize {
    let mut at = 0;
    while let Err(error) = std::str::from_utf8(&bytes[at..]) {
        at += error.valid_up_to();
        match error.error_len() {
            Some(n) => at += n,
            None => return at,
        }
    }
    bytes.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pushes byte strings as tokens 0, 1, 2, ... and gives what came out at each.
    fn run(stops: &[&str], pieces: &[&[u8]]) -> (Vec<String>, String, bool) {
        let stops: Vec<String> = stops.iter().map(|s| s.to_string()).collect();
        let mut output = Output::new(&stops);
        let mut shown = Vec::new();
        for (i, bytes) in pieces.iter().enumerate() {
            let (piece, stopped) = output.push(i as u32, bytes, None);
            shown.push(piece.text);
            if stopped {
                return (shown, String::new(), true);
            }
        }
        (shown, output.finish().text, false)
    }

    #[test]
    fn half_characters_wait_for_their_other_half() {
        let (shown, rest, _) = run(&[], &[b"a\xe2", b"\x82", b"\xac!", b"\xf0\x9f"]);
        assert_eq!(shown, ["a", "", "\u{20ac}!", ""]);
        assert_eq!(rest, "", "half a character is never shown");
    }

    #[test]
    fn bytes_that_are_no_text_do_not_hold_up_the_rest() {
        let (shown, _, _) = run(&[], &[b"\xff", b"a\xc3", b"b"]);
        assert_eq!(shown, ["\u{fffd}", "a", "\u{fffd}b"]);
    }

    #[test]
    fn stop_strings_end_the_text_across_pieces() {
        let (shown, _, stopped) = run(&["STOP"], &[b"one S", b"T", b"OP two"]);
        assert!(stopped);
        assert_eq!(shown, ["one ", "", ""]);
    }

    #[test]
    fn a_false_beginning_of_a_stop_string_is_shown_later() {
        let (shown, rest, stopped) = run(&["STOP"], &[b"S", b"TO", b"ol ", b"ST"]);
        assert!(!stopped);
        assert_eq!(shown, ["", "", "STOol ", ""]);
        assert_eq!(rest, "ST");
    }

    #[test]
    fn the_first_of_several_stop_strings_wins() {
        let (shown, _, stopped) = run(&["", "cd", "bcx", "b"], &[b"ab", b"cd"]);
        assert!(stopped);
        let mut output = Output::new(&["".into(), "cd".into(), "b".into()]);
        output.push(0, b"abcd", None);
        assert_eq!(output.matched_stop(), Some(2));
        assert_eq!(shown, ["a"]);
    }

    #[test]
    fn overlapping_beginnings_are_held_as_long_as_any_fits() {
        let (shown, _, stopped) = run(&["aab"], &[b"aa", b"a", b"b"]);
        assert!(stopped);
        assert_eq!(shown.concat(), "a");
    }

    #[test]
    fn every_split_of_a_text_gives_the_same_text() {
        let text = "x\u{20ac}<end y</end>z\u{1f600}".as_bytes();
        for cut in 0..=text.len() {
            for cut2 in cut..=text.len() {
                let pieces = [&text[..cut], &text[cut..cut2], &text[cut2..]];
                let (shown, _, stopped) = run(&["</end>"], &pieces);
                assert!(stopped);
                assert_eq!(shown.concat(), "x\u{20ac}<end y", "{cut} {cut2}");
            }
        }
    }

    #[test]
    fn tokens_come_with_the_text_that_they_end() {
        let mut output = Output::new(&["!".into()]);
        assert_eq!(output.push(7, b"\xe2\x82", None).0, Piece::default());
        let (piece, _) = output.push(8, b"\xac", None);
        assert_eq!(piece.tokens, [7, 8]);
        assert_eq!(output.push(9, b"ab", None).0.tokens, [9]);
        let (piece, stopped) = output.push(10, b"!", None);
        assert!(stopped);
        assert!(piece.is_empty(), "the token of the stop string is not told");
    }

    #[test]
    fn tokens_without_text_come_with_the_next_text_or_at_the_end() {
        let mut output = Output::new(&[]);
        assert!(output.push(1, b"", None).0.is_empty());
        assert_eq!(output.push(2, b"a", None).0.tokens, [1, 2]);
        assert!(output.push(3, b"", None).0.is_empty());
        assert_eq!(output.finish().tokens, [3]);
    }
}
