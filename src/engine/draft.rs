//! Prompt lookup: the next tokens guessed from the text so far, for one step to check at once.
//!
//! Texts repeat themselves, above all where an answer quotes its prompt: what followed the last
//! tokens where they stood before is a guess at what follows now. A step computes the guessed tokens
//! behind the last one and gives a row for each; every row is sampled as if its token had been
//! generated, and the first one that gives another token than was guessed ends it. So the tokens
//! are those of single steps, whatever is guessed. Saxena 2023,
//! <https://github.com/apoorvumang/prompt-lookup-decoding>; Leviathan et al. 2022,
//! <https://arxiv.org/abs/2211.17192>.

/// Most guesses of one step: more make a step longer than they save.
pub const MAX_DRAFT: usize = 16;

/// Fewest and most last tokens that are looked for.
const MIN_MATCH: usize = 3;
const MAX_MATCH: usize = 16;

/// Up to `most` tokens that followed where the end of `tokens` stood before: where most of it did,
/// and there where it did last.
pub fn draft(tokens: &[u32], most: usize) -> &[u32] {
    let mut best = (MIN_MATCH - 1, tokens.len());
    let Some((last, _)) = tokens.split_last() else {
        return &[];
    };
    for end in (1..tokens.len()).filter(|&end| tokens[end - 1] == *last) {
        let pairs = tokens[..end].iter().rev().zip(tokens.iter().rev());
        let n = pairs.take(MAX_MATCH).take_while(|(a, b)| a == b).count();
        if n >= MIN_MATCH && n >= best.0 {
            best = (n, end);
        }
    }
    &tokens[best.1..tokens.len().min(best.1 + most)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_followed_before_is_guessed() {
        let tokens = [1, 2, 3, 4, 5, 6, 9, 1, 2, 3];
        assert_eq!(draft(&tokens, 3), [4, 5, 6]);
        assert_eq!(draft(&tokens, 100), [4, 5, 6, 9, 1, 2, 3]);
        assert!(draft(&tokens, 0).is_empty());
        // The longer match, not the later one; of equals the later one.
        assert_eq!(draft(&[0, 1, 2, 3, 7, 1, 2, 3, 8, 0, 1, 2, 3], 1), [7]);
        assert_eq!(draft(&[9, 1, 2, 3, 7, 5, 1, 2, 3, 8, 6, 1, 2, 3], 1), [8]);
        // A run of one token continues.
        assert_eq!(draft(&[4; 10], 2), [4]);
    }

    #[test]
    fn what_did_not_stand_there_is_not_guessed() {
        assert!(draft(&[], 8).is_empty());
        assert!(draft(&[1], 8).is_empty());
        assert!(draft(&[1, 2, 5, 3, 1, 2], 8).is_empty());
    }
}
