//! From tokens to text: half characters and possible stop strings are held back.

/// What the engine asks of a tokenizer.
pub trait Vocabulary: Send + Sync {
    /// The bytes that a token stands for; control tokens give their text.
    fn token_bytes(&self, token: u32) -> &[u8];
    /// Whether the token is no text, such as a role mark.
    fn is_control(&self, token: u32) -> bool;
    /// Whether the token ends a generation.
    fn is_end_of_generation(&self, token: u32) -> bool;
    /// The token that prompts begin with, where the model has one.
    fn bos(&self) -> Option<u32>;
}
